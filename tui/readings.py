"""The meters over time: what the graphs draw, and the highest that was seen. No Textual."""

from __future__ import annotations

from collections import deque

from core.engine.events import Snapshot
from tui import meters

KEPT = 600
"""Readings of each kind, one a second: ten minutes."""


class Series:
    """Readings of one kind, None where nothing could be read; `peak` is the highest ever."""

    def __init__(self) -> None:
        self.values: deque[float | None] = deque(maxlen=KEPT)
        self.peak: float | None = None

    def push(self, value: float | None) -> None:
        """Add the newest reading."""
        self.values.append(value)
        if value is not None:
            self.peak = value if self.peak is None else max(self.peak, value)

    @property
    def last(self) -> float | None:
        """The newest reading."""
        return self.values[-1] if self.values else None


class Readings:
    """Memory in bytes, the bus and the disk in bytes per second, the reply in tokens per second.

    `link` is what the bus can carry at most: where only the card says that, the highest it ever said, since
    one that rests slows its link down.
    """

    def __init__(self) -> None:
        self.vram, self.ram = Series(), Series()
        self.to_gpu, self.from_gpu, self.counter = Series(), Series(), Series()
        self.disk, self.speed = Series(), Series()
        self.link: float | None = None
        self._said = 0.0  # by the card, at most
        self.snapshot = Snapshot()

    def take(self, snapshot: Snapshot, speed: float | None) -> None:
        """Add a reading of the meters and the speed of the reply that runs, None where none does."""
        self.snapshot = snapshot
        bus = meters.bus(snapshot)
        for series, memory in ((self.vram, meters.vram(snapshot)), (self.ram, meters.ram(snapshot))):
            series.push(None if memory is None else memory.used)
        self.to_gpu.push(bus.to_gpu)
        self.from_gpu.push(bus.from_gpu)
        self.counter.push(bus.counter)
        self.disk.push(meters.disk(snapshot))
        self.speed.push(speed)
        if bus.exact or bus.link is None:
            self.link = bus.link
        else:
            self._said = max(self._said, bus.link)
            self.link = self._said

    @property
    def bus_peak(self) -> float | None:
        """The most the bus has carried either way."""
        peaks = [series.peak for series in (self.to_gpu, self.from_gpu) if series.peak is not None]
        return max(peaks, default=None)
