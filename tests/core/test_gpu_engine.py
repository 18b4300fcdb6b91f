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
from core.engine.decode_graph import DecodeGraph
from core.engine.events import Event, Notice
from core.engine.load import Engine
from core.errors import Cancelled, UserError
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
    """The engine's graphs, whose work is taken down: how many there were, and how often one was run."""
    counts = [0, 0]

    def take(work: Callable[[], None], device: torch.device, pool: Any) -> Callable[[], None]:
        counts[0] += 1

        def replay() -> None:
            counts[1] += 1
            with torch.inference_mode():
                work()

        return replay

    placement = engine.placement
    assert placement.fast is not None
    graph = DecodeGraph(engine.model, engine.cache, placement.fast, placement, told.append, capture or take)
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
    _, counts = graph_of(engine, [])
    assert greedy(engine, 3) == want
    # Of the layers only attention can be a graph, and with "w2" elsewhere too not that.
    assert counts == ([4, 8] if "feed_forward" in names else [0, 0])


@pytest.mark.usefixtures("fast")
def test_a_graph_runs_tokens_where_all_weights_stay_and_is_made_anew_when_they_have_moved() -> None:
    told: list[Event] = []
    engine = start("sim")
    want = greedy(engine, 4)
    _, counts = graph_of(engine, told)
    assert greedy(engine, 4) == want
    assert counts == [1, 3]  # the first token comes of the prompt's last pass

    engine.placement.apply(chosen(engine, Choice(offload=True)))
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

    def refuse(work: Callable[[], None], device: torch.device, pool: Any) -> Callable[[], None]:
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


RUNS = [
    ("tiny", ("attention", "output"), 4),  # alone between what is streamed, and the head
    ("tiny", ("layers.0-1",), 1),
    ("tiny", ("w1",), 0),
    ("tied", ("layers.1", "output"), 2),
    ("tied", ("layers.2", "output"), 1),  # up to the logits
]


@pytest.mark.parametrize(("shape", "keep", "runs"), RUNS)
@pytest.mark.usefixtures("fast")
def test_what_stays_between_streamed_units_is_a_graph_for_each_run_of_them(
    shape: str, keep: tuple[str, ...], runs: int
) -> None:
    engine = start("sim", shape)
    want = greedy(engine, 3)
    _, counts = graph_of(engine, told := [])
    engine.placement.apply(chosen(engine, Choice(keep=keep)))
    before = engine.placement.arrived
    assert greedy(engine, 3) == want
    assert counts == [runs, 2 * runs]
    passes = engine.placement.plan.streamed_per_token * 4
    assert engine.placement.arrived - before >= passes  # nothing was left out that is streamed
    assert not told


@pytest.mark.usefixtures("fast")
def test_a_stop_between_graphs_leaves_no_trace() -> None:
    engine = start("sim")
    want = greedy(engine, 4)
    graph, counts = graph_of(engine, [])
    engine.placement.apply(chosen(engine, Choice(keep=("attention", "output"))))
    assert greedy(engine, 1) == want[:1]
    for looks in (1, 2, 4):
        left = [looks]

        def cancelled(left: list[int] = left) -> bool:
            left[0] -= 1
            return left[0] < 0

        with torch.inference_mode(), pytest.raises(Cancelled):
            graph(want[0], cancelled)
    assert 0 < counts[0] < 4
    assert greedy(engine, 4) == want
    assert counts[0] == 4


@pytest.mark.usefixtures("fast")
def test_weights_that_came_back_after_a_move_that_failed_are_captured_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = start("sim")
    want = greedy(engine, 4)
    _, counts = graph_of(engine, [])
    assert greedy(engine, 4) == want
    plan, real = engine.placement.plan, engine.placement._store.place

    def place(to: Any, fill: Any) -> None:
        real(to, fill)
        if to is not plan:
            raise UserError("no memory")

    monkeypatch.setattr(engine.placement._store, "place", place)
    with pytest.raises(UserError, match="no memory"):
        engine.placement.apply(chosen(engine, Choice(offload=True)))
    assert engine.placement.plan is plan
    assert greedy(engine, 4) == want
    assert counts == [2, 6]
