"""Slots and rings under an adversary: copies and kernels happen at any moment that their order allows."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.errors import Cancelled
from core.weights.lane import Source
from core.weights.ledger import Ledger, Passage
from core.weights.streaming import Ride, Slot, Stream


@dataclass(frozen=True)
class Part:
    """What is computed in turn."""

    name: str


@dataclass
class Fetch:
    passage: Passage
    arrived: bool = False

    @property
    def moved(self) -> int:
        return self.passage.moved


@dataclass
class Adversary:
    """Two queues of work, one for copies and one for kernels, drained at random within their order.

    A copy waits for the kernels queued before it; `wait` holds back the kernels that come after it. Memory
    is what was copied there last. The host runs ahead of both, as it does of a GPU.
    """

    random: random.Random
    queues: dict[str, list[tuple[Callable[[], bool], Callable[[], None]]]] = field(
        default_factory=lambda: {"copies": [], "kernels": []}
    )
    memory: dict[int, str] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    device = torch.device("cpu")

    def send(self, name: str, source: Source, home: Tensor) -> Fetch:
        self.sent.append(name)
        fetch, before = Fetch(Passage(name, home.nbytes)), [False]
        self.queues["kernels"].append((lambda: True, lambda: before.__setitem__(0, True)))

        def copy() -> None:
            self.memory[home.data_ptr()] = name
            fetch.arrived, fetch.passage.moved = True, home.nbytes

        self.queues["copies"].append((lambda: before[0], copy))
        return fetch

    def hint(self, source: Source) -> None:
        """Nothing is on a disk."""

    def wait(self, fetch: Fetch, cancelled: Callable[[], bool]) -> None:
        self.queues["kernels"].append((lambda: fetch.arrived, lambda: None))
        while self.random.random() < 0.7 and self._step():
            if cancelled():
                raise Cancelled
        fetch.passage.moved = 4  # as a lane that waits would know it

    def compute(self, slot: Tensor, name: str, seen: list[str]) -> None:
        def kernel() -> None:
            assert self.memory[slot.data_ptr()] == name
            seen.append(name)

        self.queues["kernels"].append((lambda: True, kernel))

    def drain(self) -> None:
        while self._step():
            pass
        assert not any(self.queues.values()), "deadlock"

    def _step(self) -> bool:
        ready = [name for name, queue in self.queues.items() if queue and queue[0][0]()]
        if ready:
            self.queues[self.random.choice(ready)].pop(0)[1]()
        return bool(ready)


def rings_of(streamed: list[str], slots: int, lane: Any) -> tuple[dict[str, Tensor], Stream]:
    homes: dict[str, Tensor] = {}
    rings = []
    for k in range(min(slots, len(streamed))):
        memory = torch.empty(4, dtype=torch.uint8)
        names = streamed[k::slots]
        rings.append((Slot(memory, lane), [Ride(name, cast(Source, name)) for name in names]))
        homes |= dict.fromkeys(names, memory)
    return homes, Stream(lane, Ledger(), rings)


@given(st.integers(1, 9), st.integers(1, 5), st.data())
@settings(max_examples=300, deadline=None)
def test_every_unit_sees_its_own_bytes(units: int, slots: int, data: st.DataObject) -> None:
    """Any units x slots x residents, with passes abandoned anywhere, by an error or the stop flag."""
    names = [f"u{i}" for i in range(units)]
    resident = data.draw(st.sets(st.sampled_from(names)))
    adversary = Adversary(random.Random(data.draw(st.integers(0, 10**6))))
    homes, stream = rings_of([n for n in names if n not in resident], slots, adversary)
    parts = [Part(name) for name in names]
    want: list[str] = []
    seen: list[str] = []
    for _ in range(4):
        stop = data.draw(st.one_of(st.none(), st.integers(0, units - 1)))
        flag = data.draw(st.booleans())
        looks = 0

        def cancelled(stop: int | None = stop, flag: bool = flag) -> bool:
            nonlocal looks
            looks += 1
            return flag and stop is not None and looks > 2 * stop

        stream.prime()
        walk = stream.walk(parts, cancelled)
        try:
            for i, part in enumerate(walk):
                if i == stop and not flag:
                    break
                if part.name in homes:
                    adversary.compute(homes[part.name], part.name, seen)
                    want.append(part.name)
        except Cancelled:
            pass
        walk.close()
    adversary.drain()
    assert seen == want


@pytest.mark.parametrize(
    ("units", "slots", "loads"), [(32, 2, 32), (32, 1, 32), (33, 2, 33), (80, 20, 80), (3, 4, 0), (4, 3, 2)]
)
def test_loads_of_a_pass(units: int, slots: int, loads: int) -> None:
    """Every streamed unit moves once a pass; one with a slot to itself never again."""
    adversary = Adversary(random.Random(1))
    names = [f"u{i}" for i in range(units)]
    homes, stream = rings_of(names, slots, adversary)
    counts, arrived = [], []
    for _ in range(4):
        stream.prime()
        for part in stream.walk([Part(name) for name in names], lambda: False):
            adversary.compute(homes[part.name], part.name, [])
        counts.append(len(adversary.sent))
        arrived.append(stream.arrived)
    adversary.drain()
    assert [b - a for a, b in pairwise(counts)] == [loads] * 3
    assert arrived[-1] - arrived[-2] == 4 * loads


def test_copies_wrap_into_the_next_pass() -> None:
    adversary = Adversary(random.Random(1))
    homes, stream = rings_of(["a", "b", "c", "d"], 2, adversary)
    assert len(homes) == 4
    for _ in stream.walk([Part(name) for name in "abcd"], lambda: False):
        pass
    assert adversary.sent == ["a", "c", "b", "d", "a", "b"]


def test_a_copy_that_failed_is_made_again() -> None:
    class Failing(Adversary):
        def wait(self, fetch: Fetch, cancelled: Callable[[], bool]) -> None:
            if self.sent == ["b", "d", "c"]:
                raise OSError("the disk")

    lane = Failing(random.Random(1))
    _, stream = rings_of(["a", "b", "c", "d"], 2, lane)
    parts = [Part(name) for name in "abcd"]
    with pytest.raises(OSError, match="the disk"):
        for _ in stream.walk(parts[1:], lambda: False):
            pass
    assert lane.sent == ["b", "d", "c"]
    assert [part.name for part in stream.walk(parts, lambda: False)] == list("abcd")
    assert lane.sent[3:] == ["a", "c", "b", "d", "a", "b"]
