"""How fast something goes on, over the last seconds. No Textual."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

WINDOW_S = 3.0
"""The mean is that over this time, so that it can be read; longer where less than two readings came."""


class Pace:
    """Takes readings of an amount that grows."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._readings: deque[tuple[float, float]] = deque()

    def note(self, amount: float) -> None:
        """The amount is this much now. Less than before begins anew."""
        readings = self._readings
        if readings and amount < readings[-1][1]:
            readings.clear()
        readings.append((self._clock(), amount))
        while len(readings) > 2 and readings[0][0] < readings[-1][0] - WINDOW_S:
            readings.popleft()

    def clear(self) -> None:
        """Forget everything: something else begins."""
        self._readings.clear()

    @property
    def rate(self) -> float | None:
        """How much in a second; None before there is any progress."""
        if not self._readings:
            return None
        (then, before), (now, amount) = self._readings[0], self._readings[-1]
        return (amount - before) / (now - then) if now > then and amount > before else None

    def left(self, total: float) -> float | None:
        """Seconds until the amount is `total`, at this rate; None while that is not known."""
        rate = self.rate
        return None if rate is None else max(0.0, total - self._readings[-1][1]) / rate
