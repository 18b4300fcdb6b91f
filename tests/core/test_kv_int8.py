"""The KV cache in int8: what is kept of a row, what a model loses by it, and that nothing else changes."""

from __future__ import annotations

import math
import queue
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.engine.commands import Load, Score
from core.engine.events import Event, Failed, Perplexity, Scored
from core.engine.load import Engine as Loaded
from core.engine.worker import LocalBackend
from core.model.cache import KVCache, quantised
from core.model.cache_size import cache_bytes
from core.model.shapes import SHAPES
from core.options import LoadOptions
from core.weights.needs import needs_of
from core.weights.plan import Choice
from tests.core.test_model import build, config, naive, relative_error, run
from tests.streamed import accidents, bits, chosen, dealt, greedy, on_disk, small, start

__all__ = ["small"]

CPU = torch.device("cpu")


# --- rows ---------------------------------------------------------------------------------------


def test_a_row_keeps_what_its_scale_can_tell_apart() -> None:
    """Half a step at most, from the smallest float32 to the largest; the largest number has the code 127."""
    torch.manual_seed(0)
    rows = torch.randn(500, 3, 64) * 10 ** torch.empty(500, 3, 1).uniform_(-28, 37)
    codes, scales = quantised(rows)
    assert (codes.dtype, scales.dtype, scales.shape) == (torch.int8, torch.float32, (500, 3))
    most = rows.double().abs().amax(-1)
    torch.testing.assert_close(scales.double(), most / 127, atol=0, rtol=1e-6)
    error = (codes.double() * scales.double()[..., None] - rows.double()).abs()
    assert (error <= (0.5 + 1e-4) * most[..., None] / 127).all()
    assert (codes.int().abs().amax(-1) == 127).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_row_of_16_bits_is_taken_as_it_is(dtype: torch.dtype) -> None:
    rows = torch.randn(40, 16).to(dtype)
    assert all(map(torch.equal, quantised(rows), quantised(rows.float())))


def test_rows_of_nothing_and_of_no_numbers() -> None:
    rows = torch.zeros(5, 8)
    rows[1], rows[2, 3], rows[3, 1], rows[4, 2] = 1e-42, math.nan, math.inf, -math.inf
    codes, scales = quantised(rows)
    values = codes[:2].float() * scales[:2, None]
    assert torch.equal(values[0], torch.zeros(8))
    assert (values[1] - rows[1]).abs().max() < 1e-30
    assert scales[:2].isfinite().all()
    assert not scales[2:].isfinite().any()


# --- the cache ----------------------------------------------------------------------------------


def row(layer: int, place: int, token: int, value: bool) -> Tensor:
    """Some key or value [K, D] of a token that stands at a place."""
    numbers = torch.arange(4 * 12, dtype=torch.float64).view(4, 12)
    return torch.sin(numbers * (1 + layer) + 37 * place + 1000 * token + 5 * value).float()


def fill(cache: KVCache, tokens: list[int], start: int, layers: int) -> None:
    """Append the rows of tokens from `start` on, and look at all that are there then."""
    tolerance = 1 / 254 + 1e-6 if cache.dtype is torch.int8 else 0.0
    for layer in range(layers):
        keys, values = (
            torch.stack([row(layer, place, token, value) for place, token in enumerate(tokens)], dim=1)
            for value in (False, True)
        )
        there = cache.append(layer, keys[:, start:], values[:, start:])
        for got, wanted in zip(there, (keys, values), strict=True):
            torch.testing.assert_close(got, wanted, atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8], ids=str)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=6), st.data())
@settings(max_examples=40, deadline=None)
def test_a_cache_holds_the_rows_of_its_tokens(
    dtype: torch.dtype, prompts: list[list[int]], data: st.DataObject
) -> None:
    """However it is rewound, filled in chunks and given up half-way, against a plain list of tokens."""
    cache = KVCache(config(4, 4), 16, dtype, CPU)
    held: list[int] = []
    for prompt in prompts:
        todo = cache.rewind(prompt)
        held = held[: len(prompt) - len(todo)]
        assert cache.tokens == held == prompt[: len(held)]
        while todo:
            chunk = todo[: data.draw(st.integers(1, 4))]
            if data.draw(st.booleans()):
                fill(cache, held + [7] * len(chunk), len(held), layers=1)  # and nobody commits it
            fill(cache, held + chunk, len(held), layers=3)
            cache.commit(chunk)
            held, todo = held + chunk, todo[len(chunk) :]
        assert cache.tokens == prompt


def test_one_workspace_serves_all_layers() -> None:
    cache = KVCache(config(4, 4), 16, torch.int8, CPU)
    with torch.inference_mode():  # what is made here must serve outside too
        first = cache.append(0, *torch.randn(2, 4, 3, 12))
    second = cache.append(2, *torch.randn(2, 4, 5, 12))
    assert first[0].data_ptr() == second[0].data_ptr()
    assert first[1].data_ptr() == second[1].data_ptr() != first[0].data_ptr()


@pytest.mark.parametrize("kv_type", ["float32", "float16", "bfloat16", "int8"])
def test_the_memory_is_what_the_needs_say(kv_type: str) -> None:
    """In all layers, and nothing of it twice: every byte belongs to one number of one view."""
    sizes = config(8, 2)
    needs = needs_of(sizes, "float32", 24, 8, kv_type=kv_type)
    memory = torch.zeros(needs.kv, dtype=torch.uint8)
    cache = KVCache(sizes, 24, getattr(torch, kv_type), CPU, memory)
    views = [
        view
        for i in range(sizes.n_layers)
        for layer in [cache.layer(i, 24)]
        for view in (layer.keys, layer.values, layer.key_scales, layer.value_scales)
        if view is not None
    ]
    assert sum(view.nbytes for view in views) == needs.kv == 24 * cache_bytes(sizes, 1, kv_type)
    for view in views:
        assert not view.any()
        view.fill_(1)
    assert cache.dtype is getattr(torch, kv_type)
    with pytest.raises(ValueError, match="25 tokens do not fit in a cache of 24"):
        cache.layer(0, 25)


def test_half_the_memory_of_16_bits() -> None:
    for shape in (SHAPES[name] for name in ("1b", "7b", "13b", "70b")):
        share = cache_bytes(shape, 4096, "int8") / cache_bytes(shape, 4096, "float16")
        assert share == (shape.head_dim + 4) / (2 * shape.head_dim) <= 0.532


# --- what a model makes of it -------------------------------------------------------------------


class Rounded(KVCache):
    """A cache of floats whose rows were in 8 bits before, by the definition, in float64."""

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        kept = []
        for rows in (keys.double(), values.double()):
            step = rows.abs().amax(-1, keepdim=True) / 127
            kept.append((step * (rows / step).round()).float())
        return super().append(layer, *kept)


@pytest.mark.parametrize("heads", [(4, 4), (8, 2)])
@pytest.mark.parametrize("chunks", [[13], [1] * 13, [7, 1, 1, 4]], ids=str)
def test_a_model_sees_the_rounded_rows_and_nothing_else(heads: tuple[int, int], chunks: list[int]) -> None:
    torch.manual_seed(3)
    sizes, tokens = config(*heads), torch.randint(0, 101, (13,)).tolist()
    model = build(sizes)
    got = run(model, tokens, chunks, torch.int8)
    wanted = model(torch.tensor(tokens), Rounded(sizes, 64, torch.float32, CPU), keep=13)
    assert relative_error(got, wanted) < 1e-3
    assert 1e-3 < relative_error(got, naive(dict(model.state_dict()), sizes, tokens)) < 5e-2


def score(path: str, text: str, **options: Any) -> Perplexity:
    """Of a model on the CPU."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    backend = LocalBackend()
    backend.start(events.put)
    backend.submit(Load(LoadOptions(path, device="cpu", **options)))
    backend.submit(Score(0, text, None, None))
    while not isinstance(event := events.get(timeout=120), Scored | Failed):
        pass
    assert backend.close(5)
    assert isinstance(event, Scored)
    assert event.result is not None
    return event.result


@pytest.mark.parametrize("kernels", ["native", "torch"])
def test_perplexity_of_a_small_model_hardly_changes(stories: Path, kernels: str) -> None:
    text = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. " * 5
    floats, int8 = (
        score(str(stories), text, kernels=kernels, dtype="float32", kv=kv) for kv in ("float", "int8")
    )
    assert floats.perplexity != int8.perplexity
    assert int8.perplexity / floats.perplexity == pytest.approx(1, abs=0.005)


def test_perplexity_of_the_demo_hardly_changes(demo_path: Path, shared_data: Path) -> None:
    """Over 700 tokens chance alone is 0.2 %; over 16 thousand the ratio is 1.0006."""
    text = (shared_data / "text" / "wikitext2.test.raw").read_text(encoding="utf-8")[:3000]
    floats, int8 = (score(str(demo_path), text, context=1024, kv=kv) for kv in ("float", "int8"))
    assert floats.tokens == int8.tokens > 600
    assert floats.perplexity != int8.perplexity
    assert int8.perplexity / floats.perplexity == pytest.approx(1, abs=0.01)


# --- beside everything else ---------------------------------------------------------------------


@pytest.mark.parametrize("kernels", ["native", "torch"])
def test_streamed_equals_resident(monkeypatch: pytest.MonkeyPatch, kernels: str) -> None:
    """With every weight resident, streamed and from the disk: the same bits, out of codes."""
    settings = {"kv": "int8", "kernels": kernels, "dtype": "float16", "quant": "int8"}
    resident = start("sim", **settings)
    want, tokens = bits(resident), greedy(resident)
    assert resident.cache.dtype is torch.int8
    other = start("sim", **(settings | {"kv": "float"}))
    assert not torch.equal(bits(other), want)
    accidents(monkeypatch, 5)
    engine = start("sim", offload=True, **settings)
    for choice in (Choice(offload=True), Choice(keep=("w1", "w2", "w3")), Choice(keep=("attention",))):
        plan = dealt(chosen(engine, choice), 2)
        for placed in (plan, on_disk(plan)):
            engine.placement.apply(placed)
            assert torch.equal(bits(engine), want), choice
    assert greedy(engine) == tokens
    assert engine.machine.ledger.device["kv"] == engine.placement.plan.needs.kv
    for each in (resident, other, engine):
        each.placement.close()


def test_a_smaller_plan_keeps_the_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory in the middle of a reply: weights leave the device, the codes stay."""
    resident = start("sim", kv="int8")
    tokens = greedy(resident)
    engine: Loaded = start("sim", kv="int8")
    forward, failures = engine.model.forward, [2]

    def scarce(*arguments: Any, **named: Any) -> Tensor:
        if engine.cache.length > 8 and failures[0]:
            failures[0] -= 1
            raise torch.OutOfMemoryError("another process took it")
        return forward(*arguments, **named)

    monkeypatch.setattr(engine.model, "forward", scarce)
    before = engine.placement.plan
    assert greedy(engine) == tokens
    assert failures == [0]
    less = engine.placement.plan
    assert less.needs.kv == before.needs.kv == cache_bytes(engine.model.config, 128, "int8")
    assert less.vram is not None
    assert before.vram is not None
    assert less.vram < before.vram
    for each in (resident, engine):
        each.placement.close()
