"""Breaks a line of text into rows of a width in terminal cells."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from unicodedata import category

from rich.cells import split_graphemes

_CLOSING = frozenset(("Pe", "Pf", "Po"))
"""Categories of characters that do not start a row: closing brackets and quotes, full stops."""


def wrap(text: str, first: int, rest: int, words: bool = True) -> list[tuple[int, int]]:
    """Start and end of each row of `text`, in characters.

    The first row is `first` cells wide, the others `rest`. With `words`, rows end at a space if they
    can, the spaces there belong to no row, and wide characters may be parted from each other. A word
    longer than a row is cut between two characters, never inside one that is made of several.
    Appending to `text` changes no row but the last.
    """
    return (_wrap_ascii if text.isascii() else _wrap_wide)(text, max(1, first), max(1, rest), words)


def _wrap_ascii(text: str, width: int, rest: int, words: bool) -> list[tuple[int, int]]:
    rows: list[tuple[int, int]] = []
    start, length = 0, len(text)
    while length - start > width:
        end = text.rfind(" ", start + 1, start + width + 1) if words else -1
        if end < 0 or text[start:end].isspace():
            end = start + width
        rows.append((start, end))
        start = end
        while words and start < length and text[start] == " ":
            start += 1
        width = rest
    if start < length or not rows:
        rows.append((start, length))
    return rows


def _wrap_wide(text: str, width: int, rest: int, words: bool) -> list[tuple[int, int]]:
    spans, _ = split_graphemes(text)
    starts = [*(start for start, _, _ in spans), len(text)]
    graphemes = [text[start:end] for start, end, _ in spans]
    sizes = [size for _, _, size in spans]
    cells = [0, *accumulate(sizes)]
    count = len(spans)
    rows: list[tuple[int, int]] = []
    first = 0
    while cells[count] - cells[first] > width:
        # `beyond` is the first that does not fit; at the end of a row those without width always do.
        beyond = max(first + 1, bisect_right(cells, cells[first] + width, first, count + 1) - 1)
        last = beyond
        if words and beyond < count:
            breaks = (at for at in range(beyond, first, -1) if _may_break(graphemes, sizes, first, at))
            last = next(breaks, beyond)
        rows.append((starts[first], starts[last]))
        first = last
        while words and first < count and graphemes[first] == " ":
            first += 1
        width = rest
    if first < count or not rows:
        rows.append((starts[first], len(text)))
    return rows


def _may_break(graphemes: list[str], sizes: list[int], first: int, at: int) -> bool:
    """Whether a row that starts with the grapheme `first` may end before the one `at`."""
    if graphemes[at] == " ":
        return any(grapheme != " " for grapheme in graphemes[first:at])
    wide = sizes[at - 1] == 2 or sizes[at] == 2
    return wide and category(graphemes[at][0]) not in _CLOSING
