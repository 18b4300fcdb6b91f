"""Graphs of what stays on a CUDA device, and the KV cache in 8 bits there. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from core.engine.decode_graph import DecodeGraph
from core.engine.load import Engine
from core.weights.plan import Choice
from tests.streamed import chosen, greedy, small, start

__all__ = ["small"]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

KEPT = [
    (("attention", "output"), 4),
    (("layers.0-1",), 1),
    (("layers.1", "output"), 2),
    (("w1",), 0),
]


def graph_of(engine: Engine) -> DecodeGraph:
    graph = engine.runner.decode
    assert isinstance(graph, DecodeGraph), "needs Triton, and a compute capability of 7.0"
    return graph


def made(engine: Engine) -> int:
    """How many graphs there are, all of them captured."""
    graph = graph_of(engine)
    runs = {*graph._runs.values(), *([graph._head] if graph._head else ())}
    assert all(run.replay is not None for run in runs)
    return len(runs)


@pytest.mark.parametrize(("keep", "count"), KEPT)
def test_what_stays_between_streamed_units_is_captured_and_gives_the_same_tokens(
    keep: tuple[str, ...], count: int
) -> None:
    engine = start("cuda:0", offload=True, keep=keep)
    graph = graph_of(engine)
    engine.runner.decode = lambda token, cancelled: None
    want = greedy(engine)
    engine.runner.decode = graph
    assert greedy(engine) == want
    assert made(engine) == count


def test_graphs_follow_weights_that_move_in_the_middle_of_a_reply() -> None:
    engine = start("cuda:0")
    want = greedy(engine)
    plans = {
        2: Choice(keep=("attention", "output")),
        4: Choice(offload=True),
        5: Choice(cpu=("feed_forward",)),
        6: Choice(),
    }

    def move(i: int) -> None:
        if i in plans:
            engine.placement.apply(chosen(engine, plans[i]))

    assert greedy(engine, before=move) == want
    assert made(engine) == 1


@pytest.mark.parametrize("keep", [None, ("attention", "output")])
def test_the_cache_in_8_bits_gives_the_tokens_of_the_cpu(keep: tuple[str, ...] | None) -> None:
    """Other kernels, so other bits, but in float32 the same greedy tokens."""
    want = greedy(start("cpu", kv="int8"))
    assert greedy(start("cuda:0", kv="int8", offload=keep is not None, keep=keep)) == want
