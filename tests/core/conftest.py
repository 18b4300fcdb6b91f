"""What tests of core share."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.engine.commands import Configure, Load
from core.engine.events import Event
from core.engine.worker import LocalBackend
from core.options import LoadOptions, Sampling
from tests.core.engine import GREEDY, Engine


@pytest.fixture
def start(stories: Path) -> Iterator[Callable[..., Engine]]:
    started: list[Engine] = []

    def begin(sampling: Sampling = GREEDY, **options: object) -> Engine:
        events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        backend = LocalBackend()
        backend.start(events.put)
        engine = Engine(backend, events)
        started.append(engine)
        chosen = {"dtype": "float32", "device": "cpu"} | options
        engine.send(Configure(sampling), Load(LoadOptions(str(stories), **chosen)))  # type: ignore[arg-type]
        return engine

    yield begin
    assert all(engine.backend.close(5) for engine in started)
