"""A graph of the last readings, two to a cell, in a range that stays put."""

from __future__ import annotations

from collections import deque

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

# Braille dots of a cell's left and right column, filled from the bottom to height 0..4.
_LEFT = (0x00, 0x40, 0x44, 0x46, 0x47)
_RIGHT = (0x00, 0x80, 0xA0, 0xB0, 0xB8)


class HistoryGraph(Widget):
    """Readings from left to right, the newest at the right edge; a gap where one is None.

    Unlike Textual's Sparkline it keeps the range given by `top`: a constant load must not look like
    no load. Any reading above nothing shows at least one dot.
    """

    def __init__(self, top: float = 1.0, id: str | None = None) -> None:
        super().__init__(id=id)
        self.top = top
        self._readings: deque[float | None] = deque(maxlen=512)

    def push(self, reading: float | None) -> None:
        """Add the newest reading and repaint."""
        self._readings.append(reading)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Line `y` of the graph from the top."""
        width, floor = self.size.width, 4 * (self.size.height - 1 - y)
        missing: list[float | None] = [None] * max(0, 2 * width - len(self._readings))
        readings = missing + list(self._readings)[-2 * width :]
        pairs = zip(readings[::2], readings[1::2], strict=True)
        line = "".join(self._cell(left, right, floor) for left, right in pairs)
        return Strip([Segment(line, self.rich_style)], width)

    def _cell(self, left: float | None, right: float | None, floor: int) -> str:
        dots = _LEFT[self._dots(left, floor)] + _RIGHT[self._dots(right, floor)]
        return chr(0x2800 + dots) if dots else " "  # fonts may lack the empty pattern

    def _dots(self, reading: float | None, floor: int) -> int:
        if reading is None or reading <= 0 or self.top <= 0:
            return 0
        dots = max(1, round(4 * self.size.height * reading / self.top))
        return max(0, min(4, dots - floor))


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 5, 10, 20 … at or above `value`: the end of a scale that people can read."""
    if value <= 0:
        return 1.0
    scale = 1.0
    while scale < value:
        scale *= 10
    while scale / 10 >= value:
        scale /= 10
    return next(top for top in (scale / 5, scale / 2, scale) if top >= value)
