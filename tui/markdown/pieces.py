"""Pieces: blocks in their place, laid out one by one when they are needed, or hidden."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from tui.markdown.blocks import Block
from tui.markdown.lines import Element, Line, Prefix, Row, lay_out
from tui.markdown.lists import ITEM
from tui.markdown.render import render

_EMPTY = Line("")
_OWN_ROW = re.compile(rf"[ \t]*(?:{ITEM.pattern}|>|\||```|~~~)")
"""Plain text that looks wrong behind a label because its other lines would not be aligned with it."""


class Frame(NamedTuple):
    """What the layout depends on, in cells: the view, the indentation of texts, the inner margin of code."""

    width: int
    indent: int = 2
    code_padding: int = 1


class Piece:
    """A block in its place. `rows` is None until it is laid out; until then `height` is an estimate.

    One that is `hidden` keeps what it is laid out to, but shows none of it.
    """

    __slots__ = ("_elements", "block", "gap", "height", "hidden", "label", "rows")

    def __init__(self, block: Block, frame: Frame, label: Prefix, gap: bool) -> None:
        self.block = block
        self.label = label
        self.gap = gap
        self.hidden = False
        self.rows: list[Row] | None = None
        self._elements: list[Element] | None = None
        self.height = self._estimate(frame)

    @property
    def shown(self) -> int:
        """Height of what is shown, in rows."""
        return 0 if self.hidden else self.height

    def lines(self, frame: Frame) -> list[Line]:
        """The lines of the block with the label and the empty line that belong before it."""
        if self._elements is None:
            self._elements = self._render(frame)
        lines = [line for element in self._elements for line in element.lines(frame.width)]
        if self.label:
            lines = self._labelled(lines)
        return [_EMPTY, *lines] if self.gap else lines

    def lay_out(self, frame: Frame, reuse: Sequence[Row] = ()) -> None:
        """Makes the rows; of `reuse`, those of a plain text when it was shorter, the unchanged ones stay."""
        lines = enumerate(self.lines(frame))
        rows = [row for number, line in lines for row in lay_out(line, number, frame.width)]
        for index, (old, new) in enumerate(zip(reuse, rows, strict=False)):
            if not old.same(new):
                break
            rows[index] = old
        self.rows = rows
        self.height = len(rows)

    def forget(self) -> None:
        """Drops the rows but not what is known of their number."""
        self.rows = None
        self._elements = None

    def reframe(self, frame: Frame, same_indents: bool) -> None:
        """Drops the rows because the frame changed."""
        self.rows = None
        if not same_indents:
            self._elements = None
        self.height = self._estimate(frame)

    def _render(self, frame: Frame) -> list[Element]:
        return render(self.block, frame.indent, frame.code_padding)

    def _labelled(self, lines: list[Line]) -> list[Line]:
        first = lines[0] if lines else _EMPTY
        own_row = not first.inline or (self.block.kind == "plain" and _OWN_ROW.match(self.block.source))
        if own_row:
            return [Line("", first=self.label), *lines]
        return [first.labelled(self.label), *lines[1:]]

    def _estimate(self, frame: Frame) -> int:
        source, width = self.block.source, frame.width - frame.indent - self.block.indent
        return self.gap + rows_about(len(source), source.count("\n"), width)


class Fold(Piece):
    """One row that says what is folded, or could be; no part of the text."""

    __slots__ = ()

    def lines(self, frame: Frame) -> list[Line]:
        """The row, cut to the width there is."""
        margin: Prefix = ((" " * frame.indent, ""),)
        label = self.label or margin
        room = frame.width - sum(cell_len(text) for text, _ in label)
        text = self.block.source
        if cell_len(text) > room:
            text = set_cell_size(text, max(1, room - 1)).rstrip() + "…"
        line = Line(text, first=label, rest=margin, style="fold")
        return [_EMPTY, line] if self.gap else [line]

    def say(self, text: str) -> bool:
        """Changes what it says; False if it said so already."""
        if text == self.block.source:
            return False
        self.block = Block("plain", text)
        self.rows = None
        return True

    def _estimate(self, frame: Frame) -> int:
        return self.gap + 1


def rows_about(characters: int, newlines: int, width: int) -> int:
    """About how many rows a text takes in a view of this width in cells."""
    return newlines + 1 + characters // max(8, width)
