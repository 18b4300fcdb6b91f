"""Lines as the text has them and rows as the screen has them, with the names of their styles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from rich.cells import cell_len

from tui.markdown.wrap import wrap

MIN_TEXT = 8
"""Cells that a row keeps for its text, at the cost of its indentation."""

Prefix = tuple[tuple[str, str], ...]
"""What stands before a row and is no part of the text: (text, style) each."""


class Span(NamedTuple):
    """A range of characters and the names of its styles, the outermost first. Spans do not overlap."""

    start: int
    end: int
    styles: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One line of text, not yet wrapped.

    `first` stands before its first row, `rest` before the others. `style` applies to all of its text,
    and to the rest of the row if there is a character to `fill` that with. `words` lets it break at
    spaces only, where it can. An `inline` line may follow a label on its row. `copied` is put before
    the line where it is copied.
    """

    text: str
    spans: tuple[Span, ...] = ()
    first: Prefix = ()
    rest: Prefix = ()
    style: str = ""
    fill: str = ""
    words: bool = True
    inline: bool = False
    copied: str = ""

    def lines(self, width: int) -> Sequence[Line]:
        """Itself: what `Element` asks for."""
        return (self,)

    def labelled(self, label: Prefix) -> Line:
        """The line with a label instead of what stands before its first row."""
        return replace(self, first=label)


class Element(Protocol):
    """What a block is rendered to."""

    def lines(self, width: int) -> Sequence[Line]:
        """Its lines in a view of this width in cells."""


class Row:
    """One row of the screen: characters `start` to `end` of a line, which has `number` in its piece."""

    __slots__ = ("end", "line", "number", "prefix", "start")

    def __init__(self, line: Line, number: int, start: int, end: int, prefix: Prefix) -> None:
        self.line = line
        self.number = number
        self.start = start
        self.end = end
        self.prefix = prefix

    @property
    def text(self) -> str:
        """The text of the row without what stands before it."""
        return self.line.text[self.start : self.end]

    def same(self, other: Row) -> bool:
        """Whether both are the same place of a text, and look the same if they have no spans."""
        place = (self.number, self.start, self.text) == (other.number, other.start, other.text)
        return place and self.prefix == other.prefix and self.line.style == other.line.style


def lay_out(line: Line, number: int, width: int) -> list[Row]:
    """The rows of a line in a view of this width in cells."""
    first, first_size = _fit(line.first, width)
    rest, rest_size = _fit(line.rest, width)
    ranges = wrap(line.text, width - first_size, width - rest_size, line.words)
    return [
        Row(line, number, start, end, rest if index else first) for index, (start, end) in enumerate(ranges)
    ]


def cut_spans(spans: Sequence[Span], start: int, end: int, shift: int = 0) -> list[Span]:
    """The parts of `spans` between two characters, counted from `start`, then moved by `shift`."""
    return [
        Span(max(span.start, start) - start + shift, min(span.end, end) - start + shift, span.styles)
        for span in spans
        if span.start < end and span.end > start
    ]


def _fit(prefix: Prefix, width: int) -> tuple[Prefix, int]:
    """`prefix`, at the left without what would leave no room for text, and its size in cells."""
    fitted: list[tuple[str, str]] = []
    size = 0
    for text, style in reversed(prefix):
        while size + cell_len(text) > max(0, width - MIN_TEXT):
            text = text[1:]
            if not text:
                break
        fitted.append((text, style))
        size += cell_len(text)
    return tuple(reversed(fitted)), size
