"""How often growing text may be repainted."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pacer:
    """Says when the next repaint may come: after `interval` seconds, and `rest` times what the last one cost.

    The cost is what `work` counts, by default the processor time of this thread: waiting for the next
    frame takes nothing away from the model.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        work: Callable[[], float] = time.thread_time,
        interval: float = 0.1,
        rest: float = 3.0,
    ) -> None:
        self._clock, self._work = clock, work
        self._interval, self._rest = interval, rest
        self._begun = self._worked = self._free = 0.0

    def wait(self) -> float:
        """Seconds until the next repaint may begin; 0 if it may now."""
        return max(0.0, self._free - self._clock())

    def begin(self) -> None:
        """A repaint begins."""
        self._begun, self._worked = self._clock(), self._work()

    def end(self) -> None:
        """A repaint is done; to be called again when more of it was done later."""
        cost = self._work() - self._worked
        self._free = max(self._begun + self._interval, self._clock() + self._rest * cost)
