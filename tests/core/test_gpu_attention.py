"""Attention of one row and whole units, in Triton's interpreter or on a card, against plain torch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.core.interpreted import DEVICE, few_programs

# isort: split
from core.gpu import room
from core.gpu.attend import Attender
from core.gpu.units import FastUnits
from core.model.cache import KVCache
from core.model.config import ModelConfig
from core.model.ops import Ops
from core.model.rope import rope_table
from core.model.transformer import Transformer, Units
from core.weights.kernels import DeviceKernel, Kernels
from core.weights.layouts import FORMATS
from tests.core.matrices import matrix_in, random_memory


@pytest.fixture
def few_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the interpreter runs in a moment."""
    few_programs(monkeypatch)


def config(heads: int, kv_heads: int, head_dim: int, layers: int = 1) -> ModelConfig:
    return ModelConfig(
        dim=64, n_layers=layers, n_heads=heads, n_kv_heads=kv_heads, head_dim=head_dim, hidden_dim=128,
        vocab_size=50, norm_eps=1e-5, max_context=400,
    )  # fmt: skip


def filled(sizes: ModelConfig, dtype: torch.dtype, length: int, states: torch.dtype) -> KVCache:
    """A cache whose rows were written as the plain path writes them."""
    cache = KVCache(sizes, 320, dtype, DEVICE)
    shape = (sizes.n_kv_heads, length, sizes.head_dim)
    if length:
        keys, values = (torch.randn(shape, device=DEVICE).to(states) for _ in range(2))
        cache.append(0, keys, values)
        cache.commit([1] * length)
    return cache


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(4, 4, 16), (6, 2, 48), (8, 4, 8), (8, 1, 128)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int8])
@pytest.mark.usefixtures("few_parts")
@torch.inference_mode()
def test_as_plain_torch_at_any_position(heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype) -> None:
    """The same rows in the cache, and the same sums."""
    torch.manual_seed(1)
    states = torch.float32 if dtype is torch.int8 else dtype
    sizes = config(heads, kv_heads, head_dim)
    rope = rope_table(sizes, 320).to(DEVICE)
    attender = Attender(heads, kv_heads, rope, states)
    for length in (0, 1, 64, 65, 300):
        cache = filled(sizes, dtype, length, states)
        q = torch.randn(1, heads * head_dim, device=DEVICE).to(states)
        k, v = (torch.randn(1, kv_heads * head_dim, device=DEVICE).to(states) for _ in range(2))
        attender.move_to(length)
        found = attender(q, k, v, cache.layer(0, 1))
        there = cache.layer(0, 1)
        rows = [there.keys[:, length].clone(), there.values[:, length].clone()]
        want = Ops().attend(q, k, v, cache, 0, rope[length : length + 1], None)
        limit = 5e-3 if states is torch.float16 else 1e-4
        torch.testing.assert_close(found, want, rtol=limit, atol=limit)
        for ours, theirs in zip(rows, (there.keys[:, length], there.values[:, length]), strict=True):
            off = (ours.float() - theirs.float()).abs().max()
            assert off <= (1 if dtype is torch.int8 else limit)


def test_as_many_parts_as_keep_a_card_busy() -> None:
    assert [room.split_count(heads) for heads in (1, 8, 32, 40, 1000)] == [64, 64, 16, 8, 1]


def model_in(format: str, sizes: ModelConfig, states: torch.dtype) -> Transformer:
    """A model whose matrices are of a format, multiplied by torch."""
    with torch.device("meta"):
        model = Transformer(sizes)
    kernels = Kernels(dict.fromkeys(FORMATS, (DeviceKernel(),) * 4))
    for i, (name, shape) in enumerate(sizes.shapes().items()):
        parent, _, last = name.removesuffix(".weight").rpartition(".")
        owner = model.get_submodule(parent)
        if len(shape) == 1:
            gain = 1 + torch.randn(shape, device=DEVICE) / 10
            getattr(owner, last).weight = nn.Parameter(gain, requires_grad=False)
        elif last not in ("tok_embeddings", "output"):
            matrix = matrix_in(format, *shape, random_memory(format, *shape, seed=i).to(DEVICE))
            matrix.kernels = kernels
            setattr(owner, last, matrix)
    model.prepare(64, DEVICE)
    return model


@pytest.mark.parametrize("format", ["float32", "int8", "int4", "nf4", "q8_0"])
@pytest.mark.usefixtures("few_parts")
@torch.inference_mode()
def test_units_for_one_row_compute_what_the_models_own_do(format: str) -> None:
    sizes = config(4, 2, 16, layers=1)
    model = model_in(format, sizes, torch.float32)
    fast = Units(FastUnits(model, torch.float32).of(model.units))
    assert [unit.name for unit in fast] == [unit.name for unit in model.units]
    outs: list[list[Tensor]] = []
    for units in (model.units, fast):
        torch.manual_seed(2)
        cache, found = KVCache(sizes, 64, torch.float32, DEVICE), []
        model.tok_embeddings = nn.Embedding.from_pretrained(torch.randn(50, 64, device=DEVICE))
        for tokens in ([3, 1, 4], [1], [9, 2], [6]):
            x = torch.tensor(tokens, device=DEVICE)
            found.append(model.hidden(x, cache, units))
            cache.commit(tokens)
        outs.append(found)
    for own, ours in zip(*outs, strict=True):
        torch.testing.assert_close(own, ours, rtol=2e-3, atol=2e-3)
