"""The numbers of the layers above the memory map. No Textual."""

from __future__ import annotations

from dataclasses import dataclass

_APART = 10  # cells from one number to the next, at least


@dataclass(frozen=True, slots=True)
class Axis:
    """Layers from `first` on, `shown` of all `layers`, each of so many cells."""

    first: int
    shown: int
    layers: int
    cell: int

    def line(self, cursor: int | None) -> tuple[str, range]:
        """Numbers above their layers, that of the `cursor` in any case, and where that stands in the line.

        An ellipsis at an end says that more layers follow.
        """
        line = [" "] * (self.shown * self.cell)
        step = next(step for step in (1, 2, 4, 5, 10) if step * self.cell >= _APART)
        for layer in range(self.first, self.first + self.shown):
            if layer % step == 0:
                self._write(line, layer)
        for more, at in ((self.first > 0, 0), (self.first + self.shown < self.layers, len(line) - 1)):
            if more:
                self._put(line, at, "…")
        place = range(len(line), len(line)) if cursor is None else self._write(line, cursor)
        return "".join(line), place

    def _write(self, line: list[str], layer: int) -> range:
        """Put the number of a layer above it; numbers that it touches go."""
        number = str(layer)
        middle = (layer - self.first) * self.cell + (self.cell == 3)
        start = max(0, min(middle, len(line) - len(number)))
        self._put(line, start, number)
        return range(start, start + len(number))

    @staticmethod
    def _put(line: list[str], start: int, text: str) -> None:
        end = start + len(text)
        line[start:end] = text
        for at, towards in ((start - 1, -1), (end, 1)):
            while 0 <= at < len(line) and line[at].isdigit():
                line[at] = " "
                at += towards
