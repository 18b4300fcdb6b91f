"""Lines that come in at the end, as many as are kept; the view follows them or stays where it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from rich.cells import cell_len
from rich.segment import Segment
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip

KEPT = 5000
"""Lines."""


class LogView(ScrollView, can_focus=True):
    """Textual's own Log scrolls behind its end once it has dropped lines, and follows always or never."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.lines: deque[str] = deque(maxlen=KEPT)

    def add(self, lines: Sequence[str]) -> None:
        """Lines at the end. The view goes with them if it shows the end; else the same lines stay in it."""
        follows = self.is_vertical_scroll_end
        dropped = max(0, len(self.lines) + len(lines) - KEPT)
        self.lines.extend(lines)
        self.virtual_size = Size(max(map(cell_len, self.lines), default=0), len(self.lines))
        self.scroll_to(y=self.max_scroll_y if follows else max(0, self.scroll_y - dropped), force=True)
        self.refresh()

    def scroll_to(self, *args: Any, **kwargs: Any) -> None:
        """At once."""
        super().scroll_to(*args, **{**kwargs, "animate": False, "immediate": True})

    def render_line(self, y: int) -> Strip:
        """Line `y` of the view."""
        (x, top), width = self.scroll_offset, self.size.width
        number = top + y
        if number >= len(self.lines):
            return Strip.blank(width, self.rich_style)
        line, style = self.lines[number], self.rich_style
        span = self._selected(number)
        if span is None:
            strip = Strip([Segment(line, style)])
        else:
            highlight = self.screen.get_component_rich_style("screen--selection")
            start, end = span[0], len(line) if span[1] < 0 else span[1]
            parts = ((line[:start], style), (line[start:end], style + highlight), (line[end:], style))
            strip = Strip([Segment(text, look) for text, look in parts if text])
        return strip.crop_extend(x, x + width, style).apply_offsets(x, number)

    def _selected(self, number: int) -> tuple[int, int] | None:
        selection = self.text_selection
        return None if selection is None else selection.get_span(number)

    def get_selection(self, selection: Selection) -> tuple[str, str]:
        """The selected text and what ends it."""
        return selection.extract("\n".join(self.lines)), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        """Mark what is selected."""
        self.refresh()
