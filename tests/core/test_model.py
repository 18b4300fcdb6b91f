"""The model against a naive float32 oracle: no cache, no shared code, every formula written out."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.model.cache import KVCache
from core.model.config import ModelConfig
from core.model.transformer import Transformer

CPU = torch.device("cpu")


def config(n_heads: int, n_kv_heads: int) -> ModelConfig:
    return ModelConfig(
        dim=48, n_layers=3, n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=12, hidden_dim=80,
        vocab_size=101, norm_eps=1e-5, rope_theta=10000.0, max_context=64,
    )  # fmt: skip


def build(sizes: ModelConfig, seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    model = Transformer(sizes)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim == 2 else 1.0)
    model.prepare(64, CPU)
    return model.requires_grad_(False)


def naive(weights: dict[str, torch.Tensor], c: ModelConfig, tokens: list[int]) -> torch.Tensor:
    """Logits [T, V], computed head by head and position by position in float64."""
    w = {name: tensor.double() for name, tensor in weights.items()}

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x / torch.sqrt((x * x).mean() + c.norm_eps) * weight

    def rope(x: torch.Tensor, position: int) -> torch.Tensor:
        out = x.clone()
        for i in range(c.head_dim // 2):
            angle = position * c.rope_theta ** (-2 * i / c.head_dim)
            a, b = x[2 * i], x[2 * i + 1]
            out[2 * i] = a * math.cos(angle) - b * math.sin(angle)
            out[2 * i + 1] = a * math.sin(angle) + b * math.cos(angle)
        return out

    def head(x: torch.Tensor, i: int) -> torch.Tensor:
        return x[i * c.head_dim : (i + 1) * c.head_dim]

    xs = [w["tok_embeddings.weight"][token] for token in tokens]
    for layer in range(c.n_layers):
        p = f"layers.{layer}."
        hs = [norm(x, w[p + "attention_norm.weight"]) for x in xs]
        qs = [w[p + "attention.wq.weight"] @ h for h in hs]
        ks = [w[p + "attention.wk.weight"] @ h for h in hs]
        vs = [w[p + "attention.wv.weight"] @ h for h in hs]
        after = []
        for t, x in enumerate(xs):
            mixed = []
            for h in range(c.n_heads):
                kv = h // (c.n_heads // c.n_kv_heads)
                q = rope(head(qs[t], h), t)
                scores = [q @ rope(head(ks[s], kv), s) / math.sqrt(c.head_dim) for s in range(t + 1)]
                share = torch.softmax(torch.stack(scores), 0)
                mixed.append(sum(share[s] * head(vs[s], kv) for s in range(t + 1)))
            after.append(x + w[p + "attention.wo.weight"] @ torch.cat(mixed))
        xs = []
        for x in after:
            h = norm(x, w[p + "ffn_norm.weight"])
            gate = w[p + "feed_forward.w1.weight"] @ h
            up = w[p + "feed_forward.w3.weight"] @ h
            xs.append(x + w[p + "feed_forward.w2.weight"] @ (gate / (1 + torch.exp(-gate)) * up))
    return torch.stack([w["output.weight"] @ norm(x, w["norm.weight"]) for x in xs])


def run(
    model: Transformer, tokens: list[int], chunks: list[int], kv: torch.dtype = torch.float32
) -> torch.Tensor:
    """Logits [T, V] from a fresh cache, fed in chunks of these lengths."""
    cache = KVCache(model.config, 64, kv, CPU)
    rows, start = [], 0
    for length in chunks:
        part = tokens[start : start + length]
        rows.append(model(torch.tensor(part), cache, keep=length))
        cache.commit(part)
        start += length
    return torch.cat(rows)


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.double() - want).norm() / want.norm())


@pytest.mark.parametrize("heads", [(4, 4), (4, 1), (8, 2)], ids=["1:1", "4:1", "4:1 twice"])
@pytest.mark.parametrize("chunks", [[13], [1] * 13, [5, 8], [1, 11, 1], [7, 1, 1, 4]], ids=str)
def test_agrees_with_the_oracle_however_it_is_fed(heads: tuple[int, int], chunks: list[int]) -> None:
    sizes = config(*heads)
    model = build(sizes)
    tokens = [int(t) for t in torch.randint(0, 101, (13,), generator=torch.Generator().manual_seed(1))]
    want = naive(dict(model.state_dict()), sizes, tokens)
    assert relative_error(run(model, tokens, chunks), want) < 1e-4


def test_float16_and_bfloat16_stay_close_to_the_oracle() -> None:
    sizes = config(4, 2)
    tokens = list(range(10))
    for dtype, bound in ((torch.float16, 5e-3), (torch.bfloat16, 5e-2)):
        model = build(sizes).to(dtype)
        want = naive(dict(model.state_dict()), sizes, tokens)
        cache = KVCache(sizes, 64, dtype, CPU)
        assert relative_error(model(torch.tensor(tokens), cache, keep=10), want) < bound


def test_a_tied_head_is_the_embedding() -> None:
    sizes = config(4, 2)
    model = build(sizes)
    model.output.weight = model.tok_embeddings.weight
    weights = dict(model.state_dict())
    assert torch.equal(weights["output.weight"], weights["tok_embeddings.weight"])
    assert relative_error(run(model, [3, 1, 4], [3]), naive(weights, sizes, [3, 1, 4])) < 1e-4


def test_names_and_shapes_are_those_of_the_config() -> None:
    sizes = config(8, 2)
    with torch.device("meta"):
        state = Transformer(sizes).state_dict()
    assert {name: tuple(t.shape) for name, t in state.items()} == sizes.shapes()


def test_units_are_two_a_block_and_hold_every_block_weight() -> None:
    model = build(config(4, 4))
    units = list(model.units)
    assert [unit.name for unit in units[:3]] == [
        "layers.0.attention",
        "layers.0.feed_forward",
        "layers.1.attention",
    ]
    held = {id(p) for unit in units for module in unit.modules for p in module.parameters()}
    assert held == {id(p) for p in model.layers.parameters()}


def test_an_abandoned_pass_leaves_no_trace() -> None:
    model = build(config(4, 2))
    cache = KVCache(model.config, 64, torch.float32, CPU)
    model(torch.tensor([1, 2, 3]), cache)
    cache.commit([1, 2, 3])
    model.hidden(torch.tensor([50, 51]), cache, list(model.units)[:3])  # never committed
    got = model(torch.tensor([4]), cache)
    assert torch.equal(got, run(model, [1, 2, 3, 4], [3, 1])[-1:])


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=6))
@settings(max_examples=60, deadline=None)
def test_rewind_keeps_the_longest_common_prefix(prompts: list[list[int]]) -> None:
    cache = KVCache(config(4, 4), 64, torch.float32, CPU)
    held: list[int] = []
    for prompt in prompts:
        todo = cache.rewind(prompt)
        same = 0
        while same < min(len(held), len(prompt)) and held[same] == prompt[same]:
            same += 1
        kept = min(same, len(prompt) - 1)
        assert todo == prompt[kept:]
        assert cache.tokens == prompt[:kept]
        cache.commit(todo)
        held = list(prompt)


def test_a_rewound_cache_gives_the_logits_of_a_fresh_one() -> None:
    model = build(config(4, 2))
    cache = KVCache(model.config, 64, torch.float32, CPU)
    for prompt in ([1, 2, 3, 4, 5], [1, 2, 9, 9], [1, 2, 9, 9, 7, 7], [8]):
        todo = cache.rewind(prompt)
        got = model(torch.tensor(todo), cache)
        cache.commit(todo)
        want = naive(dict(model.state_dict()), model.config, prompt)[-1:]
        assert relative_error(got, want) < 1e-4


def test_a_full_cache_refuses() -> None:
    model = build(config(4, 2))
    cache = KVCache(model.config, 4, torch.float32, CPU)
    with pytest.raises(ValueError, match="5 tokens do not fit in a cache of 4"):
        model(torch.tensor([1, 2, 3, 4, 5]), cache)


@pytest.mark.parametrize("rows", [(0, 50, 101), (0, 1, 2, 101), (0, 33, 66, 99, 101)])
def test_a_head_in_tiles_gives_the_logits_of_the_whole(rows: tuple[int, ...]) -> None:
    sizes = config(4, 2)
    whole, tiled = build(sizes), Transformer(sizes, rows)
    weights = dict(whole.state_dict())
    output = weights.pop("output.weight")
    for i, (start, stop) in enumerate(pairwise(rows)):
        weights[f"output.{i}.weight"] = output[start:stop]
    tiled.load_state_dict(weights)
    tiled.requires_grad_(False).prepare(64, CPU)
    assert relative_error(run(tiled, [3, 1, 4], [3]), run(whole, [3, 1, 4], [3]).double()) < 1e-6
    assert [unit.name for unit in tiled.tiles] == [f"output.{i}" for i in range(len(rows) - 1)]
