"""A graph of the last readings, two to a cell, in a range that stays put."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

from tui.glyphs import cell, column, dot


class HistoryGraph(Widget):
    """Readings from left to right, the newest at the right edge; a gap where one is None.

    Unlike Textual's Sparkline it keeps the range given by `top`: a constant load must not look like
    no load. Any reading above nothing shows at least one dot. With `line` there is a dot for each reading
    instead of a column, and `mark` a dotted line at what the readings are measured against.
    `readings` may be shared with whoever adds to them, and calls `moved` then.
    """

    def __init__(
        self,
        top: float = 1.0,
        id: str | None = None,
        *,
        readings: deque[float | None] | None = None,
        line: bool = False,
    ) -> None:
        super().__init__(id=id)
        self.top = top
        self.mark: float | None = None
        self.readings: deque[float | None] = deque(maxlen=512) if readings is None else readings
        self._line = line
        self._rows: list[str] = []

    def push(self, reading: float | None) -> None:
        """Add the newest reading."""
        self.readings.append(reading)
        self.moved()

    def show(self, readings: Iterable[float | None]) -> None:
        """Show these readings in the place of all others."""
        self.readings = deque(readings, maxlen=512)
        self.moved()

    def moved(self) -> None:
        """Readings or range are others: repaint, if that can be seen."""
        rows = self._draw()
        if rows != self._rows:
            self._rows = rows
            self.refresh()

    def render_line(self, y: int) -> Strip:
        """Line `y` of the graph from the top."""
        width, height = self.size
        if len(self._rows) != height or any(len(row) != width for row in self._rows):
            self._rows = self._draw()
        return Strip([Segment(self._rows[y], self.rich_style)], width)

    def _draw(self) -> list[str]:
        width, height = self.size
        shown = list(self.readings)[-2 * width :] if width else []
        heights = [self._height(reading) for reading in [None] * (2 * width - len(shown)) + shown]
        mark = 0 if self.mark is None else self._height(self.mark)
        return [self._row(heights, mark, 4 * (height - 1 - y)) for y in range(height)]

    def _height(self, reading: float | None) -> int:
        """How many dots high a reading is, of four a row."""
        if reading is None or self.top <= 0 or (reading <= 0 and not self._line):
            return 0
        return max(1, min(4 * self.size.height, round(4 * self.size.height * reading / self.top)))

    def _row(self, heights: list[int], mark: int, floor: int) -> str:
        """The row whose lowest dots are the next above `floor`."""
        draw = dot if self._line else column
        cells = []
        for x in range(0, len(heights), 2):
            dots = draw(heights[x] - floor, 0) | draw(heights[x + 1] - floor, 1)
            if x % 4 == 0:
                dots |= dot(mark - floor, 1)
            cells.append(cell(dots))
        return "".join(cells)


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
