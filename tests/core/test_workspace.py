"""What a pass really takes besides weights and cache, against what the needs say."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from core.model.cache import KVCache
from core.model.config import ModelConfig
from core.model.transformer import Transformer
from core.weights.needs import needs_of


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make, while they live, and the most of them at once."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage().data_ptr() for t in torch.utils._pytree.tree_leaves((args, kwargs))
                 if isinstance(t, torch.Tensor)}  # fmt: skip
        out = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in given and storage.data_ptr() not in self.live:
                    self.live[storage.data_ptr()] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, storage.data_ptr(), None)
        self.peak = max(self.peak, sum(self.live.values()))
        return out


@pytest.mark.parametrize("kv_type", ["float", "int8"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [8, 2])
@pytest.mark.parametrize("rows", [1, 8, 128])
def test_the_workspace_is_enough_and_not_far_too_much(
    dtype: torch.dtype, kv_heads: int, rows: int, kv_type: str
) -> None:
    config = ModelConfig(
        dim=256, n_layers=2, n_heads=8, n_kv_heads=kv_heads, head_dim=32, hidden_dim=704, vocab_size=999,
        norm_eps=1e-5,
    )  # fmt: skip
    context = 512
    model = Transformer(config).to(dtype).requires_grad_(False)
    model.prepare(context, torch.device("cpu"))
    kept = torch.int8 if kv_type == "int8" else dtype
    cache = KVCache(config, context, kept, torch.device("cpu"))
    cache.commit([0] * (context - rows))  # the last rows of a full context are the most expensive ones
    type_, of_cache = (str(one).removeprefix("torch.") for one in (dtype, kept))
    needs = needs_of(config, type_, context, 512, kv_type=of_cache)
    allowed = needs.workspace + rows * needs.workspace_row
    with torch.inference_mode(), LiveBytes() as counter:
        model(torch.arange(rows), cache)
    assert counter.peak <= allowed
    if rows == 128:
        assert counter.peak > allowed / 4
