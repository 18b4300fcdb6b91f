"""An engine that computes with a card's kernels and graph: interpreted, on a simulated card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.core.interpreted import DEVICE, few_programs

# isort: split
import core.engine.load
from core.engine.bind import Binder, Compute
from core.engine.decode_graph import DecodeGraph, stays
from core.engine.events import Event, Notice
from core.engine.load import Engine
from core.gpu.units import FastUnits, TritonKernel
from core.model.ops import Ops
from core.weights.kernels import DeviceKernel, Kernels
from core.weights.layouts import FORMATS
from core.weights.plan import Choice, Place
from tests.streamed import PROMPT, chosen, greedy, small, start

__all__ = ["small"]

pytestmark = pytest.mark.skipif(DEVICE.type != "cpu", reason="tests/gpu has this on a card")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """What computes on a card computes on the simulated one."""
    real = core.engine.load.compute_of

    def compute_of(*given: Any) -> Compute:
        few, many = TritonKernel(), DeviceKernel()
        kernels = Kernels(dict.fromkeys(FORMATS, (few, many, many, many)))
        return replace(real(*given), kernels=kernels, ops=Ops(), fast=FastUnits)

    monkeypatch.setattr(core.engine.load, "compute_of", compute_of)
    few_programs(monkeypatch)


def graph_of(engine: Engine, told: list[Event], capture: Any = None) -> tuple[DecodeGraph, list[int]]:
    """The engine's graph, whose work is taken down; how often that was done, and how often it was run."""
    counts = [0, 0]

    def take(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        counts[0] += 1

        def replay() -> None:
            counts[1] += 1
            with torch.inference_mode():
                work()

        return replay

    placement = engine.placement
    assert placement.fast is not None
    graph = DecodeGraph(
        engine.model,
        engine.cache,
        placement.fast,
        placement,
        engine.machine.ledger,
        told.append,
        capture or take,
    )
    engine.runner.decode = graph
    return graph, counts


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ("tiny", {"offload": True, "kv": "int8"}),
        ("tied", {}),
    ],
)
def test_the_same_tokens_as_by_plain_torch(
    request: pytest.FixtureRequest, shape: str, options: dict[str, Any]
) -> None:
    found = []
    for computing in ("plain", "fast"):
        if computing == "fast":
            request.getfixturevalue("fast")
        engine = start("sim", shape, **options)
        found.append(greedy(engine, 4))
    assert found[0] == found[1]


@pytest.mark.parametrize("names", [("feed_forward",), ("wq", "w2", "output", "embeddings")])
@pytest.mark.usefixtures("fast")
def test_units_that_have_matrices_elsewhere_stay_the_models_own(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]
) -> None:
    """As on a real card, whose memory the CPU does not compute from."""
    want = greedy(start("sim"), 3)
    monkeypatch.setattr(Binder, "_is_foreign", lambda binder, place: place is Place.CPU)
    engine = start("sim", cpu_layers=names)
    assert greedy(engine, 3) == want
    assert not stays(engine.placement.plan)


@pytest.mark.usefixtures("fast")
def test_a_graph_runs_tokens_where_all_weights_stay_and_is_made_anew_when_they_have_moved() -> None:
    told: list[Event] = []
    engine = start("sim")
    want = greedy(engine, 4)
    _, counts = graph_of(engine, told)
    assert greedy(engine, 4) == want
    assert counts == [1, 3]  # the first token comes of the prompt's last pass

    streamed = chosen(engine, Choice(offload=True))
    engine.placement.apply(streamed)
    assert not stays(streamed)
    assert greedy(engine, 4) == want
    assert counts == [1, 3]

    engine.placement.apply(chosen(engine, Choice()))
    assert greedy(engine, 4) == want
    assert counts == [2, 6]
    assert not any(isinstance(event, Notice) for event in told)


@pytest.mark.usefixtures("fast")
def test_what_cannot_be_captured_is_told_once_and_computed_all_the_same() -> None:
    told: list[Event] = []
    engine = start("sim")
    want = greedy(engine, 4)

    def refuse(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
        raise RuntimeError("operation not permitted\nmore of it")

    graph_of(engine, told, refuse)
    assert greedy(engine, 4) == want
    notices = [event for event in told if isinstance(event, Notice)]
    assert [notice.level for notice in notices] == ["warning"]
    assert notices[0].text.endswith("slower: operation not permitted")


@pytest.mark.usefixtures("fast")
def test_the_graph_refuses_a_token_beyond_the_cache() -> None:
    engine = start("sim", context=len(PROMPT) + 2)
    graph, _ = graph_of(engine, [])
    greedy(engine, 2)
    engine.cache.commit([1] * (engine.cache.capacity - engine.cache.length))
    with pytest.raises(ValueError, match="do not fit"):
        graph(5)
