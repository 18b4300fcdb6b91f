"""A line that is cut where there is no room, but never within a number."""

from __future__ import annotations

import re
from itertools import accumulate, takewhile

from rich.cells import cell_len
from textual.content import Content

from tui.widgets.plain import PlainStatic

_NUMBERS = re.compile(r"[A-Z]?\d[\d.,/]*")  # F12 is one too
_BETWEEN = " · "


def cut(content: Content, width: int) -> Content:
    """`content` in `width` cells: an ellipsis for what has no room, and for words whose number has none."""
    if content.cell_length <= width:
        return content
    text = content.plain
    cells = accumulate(map(cell_len, text))
    end = sum(1 for _ in takewhile(lambda used: used < width, cells))
    for number in _NUMBERS.finditer(text):
        if number.start() <= end <= number.end():
            end, part = number.start(), text.rfind(_BETWEEN, 0, number.start())
            if part >= 0 and not _NUMBERS.search(text, part, end):
                end = part + 1  # its words say nothing without it
    kept = text[:end].rstrip(_BETWEEN)
    return (content[: len(kept)] + (" …" if len(kept) < end else "…")).truncate(width)


class PlainLine(PlainStatic):
    """A text in one line, replaced by `show`."""

    @property
    def text(self) -> str:
        """All of it, whatever is seen."""
        return self._shown.plain

    def render(self) -> Content:
        """As much as fits."""
        return cut(self._shown, self.content_size.width)
