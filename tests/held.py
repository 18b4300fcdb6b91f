"""An engine that is held at one unit, in the middle of its copy or of its computing, and looked at."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from core.engine.load import Engine
from core.weights.lane import Source


class Gate:
    """Whoever comes to it waits until it opens."""

    def __init__(self) -> None:
        self.reached, self._opened = threading.Event(), threading.Event()

    def hold(self) -> None:
        """Wait here."""
        self.reached.set()
        self._opened.wait(20)

    def open(self) -> None:
        """Let everybody through from now on."""
        self._opened.set()


@contextmanager
def gate_at_copy(lane: Any, unit: str) -> Iterator[Gate]:
    """The simulated link waits before it carries `unit`, all units being of one piece."""
    gate, sent, turn = Gate(), list[str](), count()
    send, delay = lane.send, lane._link._delay

    def recorded(name: str, source: Source, home: Any) -> Any:
        sent.append(name)
        return send(name, source, home)

    def hold() -> float:
        if sent[next(turn)] == unit:
            gate.hold()
        return 0.0

    lane.send, lane._link._delay = recorded, hold
    try:
        yield gate
    finally:
        gate.open()
        lane.drain()
        lane.send, lane._link._delay = send, delay


@contextmanager
def gate_at_computing(engine: Engine, unit: str) -> Iterator[Gate]:
    """The model waits when it begins to compute `unit`."""
    gate = Gate()
    hook = engine.model.get_submodule(unit).register_forward_pre_hook(lambda *_: gate.hold())
    try:
        yield gate
    finally:
        gate.open()
        hook.remove()


@contextmanager
def held(gate: Gate, deed: Callable[[], object]) -> Iterator[None]:
    """`deed` is done on another thread, has come to the gate, and is over afterwards."""
    thread = threading.Thread(target=deed, daemon=True)
    thread.start()
    try:
        assert gate.reached.wait(20)
        yield
    finally:
        gate.open()
        thread.join(20)
    assert not thread.is_alive()


def until(condition: Callable[[], object]) -> None:
    """Wait for what happens on other threads."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)
