"""How far a load is, how fast, and how long it still takes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from core.engine.events import Loading

_EVENT_SECONDS = 0.05
_RATE_SECONDS = 3.0  # a page cache that runs out halves the speed: the rate must follow
_LEAST_SECONDS = 0.2  # a rate over less than this means nothing


class LoadMeter:
    """Counts bytes and emits Loading events, at most 20 a second and one at the end."""

    def __init__(
        self,
        total: int,
        emit: Callable[[Loading], None],
        clock: Callable[[], float] = time.perf_counter,
        stage: str = "reading weights",
    ) -> None:
        self._total, self._emit, self._clock, self._stage = total, emit, clock, stage
        self._done = 0
        self._history = deque([(clock(), 0)])  # (time, bytes done), of the last seconds
        self._reported = float("-inf")

    def add(self, count: int) -> None:
        """`count` more bytes have arrived."""
        self._done += count
        now = self._clock()
        if now - self._reported < _EVENT_SECONDS and self._done < self._total:
            return
        self._reported = now
        self._history.append((now, self._done))
        while now - self._history[0][0] > _RATE_SECONDS and len(self._history) > 2:
            self._history.popleft()
        then, done = self._history[0]
        rate = left = None
        if now - then >= _LEAST_SECONDS and self._done > done:
            rate = (self._done - done) / (now - then)
            left = (self._total - self._done) / rate
        self._emit(Loading(self._stage, self._done, self._total, rate, left))
