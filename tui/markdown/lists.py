"""Where a line stands in nested lists, and which number its item has."""

from __future__ import annotations

import re
from typing import NamedTuple

BULLETS = "•◦▪"
"""Markers of unordered items by depth; the last one serves all deeper levels."""

ITEM = re.compile(r"(?:[-*+]|(\d{1,9})([.)]))(?:[ \t]+|$)")
"""The start of a list item: its number and delimiter, if it is ordered."""


class _Item(NamedTuple):
    """An item that may go on: columns of its marker and content in the source, `inner` cells on screen."""

    column: int
    content: int
    inner: int
    kind: str
    first: int
    number: int


class ListNesting:
    """The list items around the present line.

    Two columns of indentation are enough to nest, whatever the width of the marker: models write
    "  - " below "1. " and mean it.
    """

    def __init__(self) -> None:
        self._items: list[_Item] = []

    def __bool__(self) -> bool:
        return bool(self._items)

    @property
    def indent(self) -> int:
        """Cells by which the content of the innermost item is indented on screen."""
        return self._items[-1].inner if self._items else 0

    @property
    def content(self) -> int:
        """Column of the source at which the content of the innermost item starts."""
        return self._items[-1].content if self._items else 0

    def holds(self, column: int) -> bool:
        """Whether a block that starts at this column of the source belongs to the innermost item, if any."""
        return not self._items or column >= self._items[-1].column + 2

    def leave(self, column: int) -> _Item | None:
        """Leaves the items that a block at this column is not in; returns the outermost of them."""
        left = None
        while not self.holds(column):
            left = self._items.pop()
        return left

    def enter(self, match: re.Match[str], column: int) -> tuple[int, str]:
        """Enters the item that `ITEM` matched; its indentation in cells and its marker."""
        sibling = self.leave(column)
        kind, first = match.group(2) or "", int(match.group(1) or 0)
        number = first
        if sibling is not None and (sibling.kind, sibling.first) == (kind, first):
            number = sibling.number + 1  # a list numbered 1. 1. 1. counts; one numbered 1. 3. means it
        bullet = BULLETS[min(len(self._items), len(BULLETS) - 1)]
        marker = f"{number}{kind} " if kind else f"{bullet} "
        mark = len(match.group().rstrip(" \t"))
        spaces = match.end() - mark
        content = column + mark + (spaces if 1 <= spaces <= 4 else 1)
        indent = self.indent
        self._items.append(_Item(column, content, indent + len(marker), kind, first, number))
        return indent, marker
