"""One message or note of a conversation: its text as pieces, laid out one by one when they are needed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from tui.markdown.blocks import Block, BlockSource, printable
from tui.markdown.lines import Element, Line, Prefix, Row, lay_out
from tui.markdown.lists import ITEM
from tui.markdown.offsets import Offsets
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
    """A block in its place. `rows` is None until it is laid out; until then `height` is an estimate."""

    __slots__ = ("_elements", "block", "gap", "height", "label", "rows")

    def __init__(self, block: Block, frame: Frame, label: Prefix, gap: bool) -> None:
        self.block = block
        self.label = label
        self.gap = gap
        self.rows: list[Row] | None = None
        self._elements: list[Element] | None = None
        self.height = self._estimate(frame)

    def lines(self, frame: Frame) -> list[Line]:
        """The lines of the block with the label and the empty line that belong before it."""
        if self._elements is None:
            self._elements = render(self.block, frame.indent, frame.code_padding)
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

    def _labelled(self, lines: list[Line]) -> list[Line]:
        first = lines[0] if lines else _EMPTY
        own_row = not first.inline or (self.block.kind == "plain" and _OWN_ROW.match(self.block.source))
        if own_row:
            return [Line("", first=self.label), *lines]
        return [first.labelled(self.label), *lines[1:]]

    def _estimate(self, frame: Frame) -> int:
        source, width = self.block.source, frame.width - frame.indent - self.block.indent
        return self.gap + _rows(len(source), source.count("\n"), width)


class Section:
    """A message or a note.

    Text is kept as it came and divided into blocks when the section is first looked at, so adding a
    long history costs little. `serial` orders the sections of a conversation; it is never used twice.
    """

    def __init__(self, serial: int, source: BlockSource, label: Prefix = (), gap: bool = True) -> None:
        self.serial = serial
        self.gap = gap
        self.pieces: list[Piece] = []
        self._source = source
        self.label = label
        self._texts: list[str] = []
        self._fed = 0  # how many of `_texts` the source has
        self._waiting = 0  # characters that it does not have
        self._waiting_lines = 0
        self._ends: Sequence[Block] | None = None  # what follows the text, once that is complete
        self._open = True
        self._tail = False  # the last piece is the open end
        self._offsets = Offsets()

    @property
    def text(self) -> str:
        """The whole text as it was given."""
        return "".join(self._texts)

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._ends is not None

    def append(self, text: str) -> None:
        """Adds text; it shows up with the next `flush`. Raises ValueError if the text is complete."""
        if self.ended:
            raise ValueError(f"the message is complete, no place for {text!r}")
        self._texts.append(text)
        self._waiting += len(text)
        self._waiting_lines += text.count("\n")

    def end(self, *blocks: Block) -> None:
        """Completes the text, to be followed by `blocks`."""
        self._ends = blocks

    def height(self, frame: Frame) -> int:
        """Height in rows, estimated where nothing is laid out yet."""
        if not self._waiting:
            return self._offsets.total
        return self._offsets.total + _rows(self._waiting, self._waiting_lines, frame.width - frame.indent)

    def flush(self, frame: Frame) -> bool:
        """Divides the text that was added into pieces. False if there was none."""
        if not self._open or (self._fed == len(self._texts) and not self.ended and self.pieces):
            return False
        blocks = self._source.feed(printable("".join(self._texts[self._fed :])))
        self._fed, self._waiting, self._waiting_lines = len(self._texts), 0, 0
        if self.ended:
            blocks += self._source.close()
            self._open = False
        old = self._pop_tail()
        for block in blocks:
            self._add(block, frame)
        tail = Block("plain", "") if self.ended else self._source.tail
        if tail.source.strip() or (self.label and not self.pieces):
            self._add(tail, frame)
            self._tail = not self.ended
            if self._tail and old is not None and old.rows is not None and not blocks:
                self._lay_out(len(self.pieces) - 1, frame, old.rows)
        for block in self._ends or ():
            self._add(block, frame)
        return True

    def measure(self, first: int, last: int, frame: Frame, near: set[Piece]) -> bool:
        """Lays out the pieces in rows `first` to `last` and adds them to `near`. False if all were."""
        changed = self.flush(frame)
        index = self._offsets.find(first)
        top = self._offsets.start(index)
        while index < len(self.pieces) and top < last:
            piece = self.pieces[index]
            if piece.rows is None:
                self._lay_out(index, frame)
                changed = True
            near.add(piece)
            top += piece.height
            index += 1
        return changed

    def reframe(self, frame: Frame, same_indents: bool) -> None:
        """Drops all rows because the frame changed."""
        for piece in self.pieces:
            piece.reframe(frame, same_indents)
        self._offsets = Offsets(piece.height for piece in self.pieces)

    def find(self, row: int) -> tuple[int, int]:
        """Index of the piece at this row of the section, and the row inside it."""
        index = self._offsets.find(row)
        return index, row - self._offsets.start(index)

    def start(self, index: int) -> int:
        """The row of the section at which a piece begins."""
        return self._offsets.start(index)

    def _add(self, block: Block, frame: Frame) -> None:
        first = not self.pieces
        piece = Piece(block, frame, self.label if first else (), self.gap if first else block.gap)
        self.pieces.append(piece)
        self._offsets.append(piece.height)

    def _pop_tail(self) -> Piece | None:
        if not self._tail:
            return None
        self._tail = False
        self._offsets.truncate(len(self.pieces) - 1)
        return self.pieces.pop()

    def _lay_out(self, index: int, frame: Frame, reuse: Sequence[Row] = ()) -> None:
        piece = self.pieces[index]
        piece.lay_out(frame, reuse)
        self._offsets.set(index, piece.height)


def _rows(characters: int, newlines: int, width: int) -> int:
    """About how many rows a text takes in a view of this width in cells."""
    return newlines + 1 + characters // max(8, width)
