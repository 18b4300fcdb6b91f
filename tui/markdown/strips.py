"""Rows to strips: what Textual paints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from rich.cells import cell_len, split_graphemes
from rich.segment import Segment
from rich.style import Style
from textual.cache import LRUCache
from textual.strip import Strip

from tui.markdown.lines import Prefix, Row, Span, cut_spans

MARK = "▌"
"""Stands at the left of the rows that are marked."""

_REVERSE = Style(reverse=True)
_OURS = frozenset(("footer", "fold", "note", "warning", "error"))
"""Styles of lines whose text is ours."""
_RULE = "rule"
"""The style of what is drawn between the cells of a table."""


class Overlay(NamedTuple):
    """Characters of a line that have another style on top of their own."""

    start: int
    end: int
    style: Style


class Painter:
    """Draws rows and keeps what it drew.

    `resolve` gives the style that several names make together, each applied to the result of those
    before it.
    """

    def __init__(self, resolve: Callable[[tuple[str, ...]], Style]) -> None:
        self.drawn: Callable[[str], str] = str
        """What stands in for text of ours: labels, bullets, lines, figures. As many cells."""
        self._resolve = resolve
        self._styles: dict[tuple[str, ...], Style] = {}
        self._strips: LRUCache[Row, Strip] = LRUCache(1024)

    def forget(self) -> None:
        """Drops everything, because the styles changed."""
        self._styles.clear()
        self._strips.clear()

    def blank(self, width: int) -> Strip:
        """A row without text."""
        return Strip.blank(width, self._style())

    def draw(self, row: Row, number: int, width: int) -> Strip:
        """The row, filled up to `width` cells, which must be the same for as long as the row lives.

        The strip says which character of line `number` each cell shows, as Textual's text selection
        asks for. What stands before the text counts as its first character.
        """
        strip = self._strips.get(row)
        if strip is None:
            strip = self._strips[row] = self.draw_over(row, number, width)
        return strip

    def draw_over(
        self, row: Row, number: int, width: int, overlays: Sequence[Overlay] = (), *, marked: bool = False
    ) -> Strip:
        """The same with some characters of the line in other styles, or with a mark at the left."""
        segments: list[Segment] = []
        offset = _offset(row.start, number)
        for before, name in self._marked(row.prefix) if marked else row.prefix:
            style = self._style(name) + offset
            if marked and name.endswith("label"):
                style += _REVERSE
            before = self.drawn(before)
            segments += [Segment(before[start:end], style) for start, end, _ in split_graphemes(before)[0]]
        for start, text, styles in _runs(row, overlays):
            style = self._style(row.line.style, *styles)
            for overlay in overlays:
                if overlay.start <= start < overlay.end:
                    style += overlay.style
            if row.line.style in _OURS or _RULE in styles:
                text = self.drawn(text)
            segments.append(Segment(text, style + _offset(start, number)))
        used = sum(cell_len(segment.text) for segment in segments)
        if used < width:
            style = self._style(row.line.style if row.line.fill else "")
            if row.start == row.end:  # nothing else says where an empty line is
                style += offset
            segments.append(Segment(self.drawn(row.line.fill or " ") * (width - used), style))
        return Strip(segments, max(used, width))

    @staticmethod
    def _marked(prefix: Prefix) -> Prefix:
        """What stands before a row with the mark in place of its first blank, if it has one."""
        if not prefix:
            return ((MARK, "mark"),)
        (first, style), *others = prefix
        return ((MARK, "mark"), (first[1:], style), *others) if first[:1] == " " else prefix

    def _style(self, *names: str) -> Style:
        style = self._styles.get(names)
        if style is None:
            style = self._styles[names] = self._resolve(tuple(name for name in names if name))
        return style


def _runs(row: Row, overlays: Sequence[Overlay]) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """The text of the row in parts of one style: position in the line, text, names of styles."""
    spans = cut_spans(row.line.spans, row.start, row.end, row.start)
    edges = {row.start, row.end, *(edge for span in spans for edge in span[:2])}
    edges |= {edge for overlay in overlays for edge in overlay[:2] if row.start < edge < row.end}
    for start, end in pairwise(sorted(edges)):
        yield start, row.line.text[start:end], _styles_at(spans, start)


def _styles_at(spans: Sequence[Span], position: int) -> tuple[str, ...]:
    return next((span.styles for span in spans if span.start <= position < span.end), ())


def _offset(character: int, number: int) -> Style:
    return Style.from_meta({"offset": (character, number)})
