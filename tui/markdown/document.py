"""A conversation as one column of rows, of which only those near the view are laid out."""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from tui.markdown.blocks import Block, BlockSource, PlainSplitter, printable
from tui.markdown.lines import Prefix, Row
from tui.markdown.offsets import Offsets
from tui.markdown.pieces import Frame, Piece
from tui.markdown.section import Section

_LINE_BITS = 16
_PIECE_BITS = 24
_SPARE_PIECES = 200
"""Pieces away from the view that may stay laid out before they are dropped."""


class Anchor(NamedTuple):
    """A place in the text that stays what it is when heights change: a character of a line of a piece.

    Where the piece is not laid out, `line` is -1 and `row` counts from its top.
    """

    section: int
    piece: int
    row: int
    line: int = -1
    character: int = 0


class Document:
    """The sections of a conversation, from top to bottom."""

    def __init__(self) -> None:
        self.frame = Frame(80)
        self.sections: list[Section] = []
        self._by_key: dict[int, int] = {}
        self._serial = 0
        self._offsets = Offsets()
        self._laid_out: set[Piece] = set()
        self._near: set[Piece] = set()

    # What it consists of.

    def add(self, key: int | None, source: BlockSource, label: Prefix = (), gap: bool = True) -> Section:
        """Adds an empty section at the end. Raises KeyError if one with this key is there."""
        if key in self._by_key:
            raise KeyError(f"there is a message {key} already")
        if key is not None:
            self._by_key[key] = len(self.sections)
        self._serial += 1
        section = Section(self._serial, source, label, gap and bool(self.sections), key)
        self.sections.append(section)
        self._offsets.append(0)
        return section

    def add_note(self, text: str, style: str) -> None:
        """Adds a section of plain text in one style; notes that follow each other are not set apart."""
        gap = bool(self.sections and self.sections[-1].label)
        self.add(None, PlainSplitter(), gap=gap).end(Block("plain", printable(text), style=style))
        self.flush(len(self.sections) - 1)

    def has(self, key: int) -> bool:
        """Whether there is a section with this key."""
        return key in self._by_key

    def index(self, key: int) -> int:
        """The place of the section with this key. Raises KeyError if there is none."""
        return self._by_key[key]

    def changed(self, index: int) -> None:
        """Takes note that the text of a section changed."""
        self._offsets.set(index, self.sections[index].height(self.frame))

    def flush(self, index: int) -> None:
        """Divides the text of a section into pieces."""
        if self.sections[index].flush(self.frame):
            self.changed(index)

    def truncate(self, length: int) -> None:
        """Removes the sections from index `length` on."""
        for section in self.sections[length:]:
            self._laid_out.difference_update(section.pieces)
        del self.sections[length:]
        self._offsets.truncate(length)
        self._by_key = {key: index for key, index in self._by_key.items() if index < length}

    # How it is laid out.

    @property
    def end(self) -> Anchor:
        """The place after the last row."""
        return Anchor(len(self.sections), 0, 0)

    @property
    def height(self) -> int:
        """Height in rows, estimated where nothing is laid out yet."""
        return self._offsets.total

    def reframe(self, frame: Frame) -> None:
        """Changes what the layout depends on; all rows are dropped if that is a change."""
        if frame == self.frame:
            return
        same_indents = frame[1:] == self.frame[1:]
        self.frame = frame
        for section in self.sections:
            section.reframe(frame, same_indents)
        self._offsets = Offsets(section.height(frame) for section in self.sections)
        self._laid_out.clear()

    def measure(self, first: int, last: int) -> bool:
        """Lays out what lies in rows `first` to `last`. Call it until False: heights may have changed."""
        changed = False
        self._near = set()
        index = self._offsets.find(first)
        top = self._offsets.start(index)
        while index < len(self.sections) and top < last:
            section = self.sections[index]
            if section.measure(first - top, last - top, self.frame, self._near):
                changed = True
                self.changed(index)
            top += section.height(self.frame)
            index += 1
        self._laid_out |= self._near
        return changed

    def drop_far(self) -> None:
        """Drops the rows of pieces that the last call of `measure` did not find near, if they are many."""
        if len(self._laid_out) > len(self._near) + _SPARE_PIECES:
            for piece in self._laid_out - self._near:
                piece.forget()
            self._laid_out = set(self._near)

    # Where things are.

    def rows(self, top: int, count: int) -> list[tuple[Row, int]]:
        """The `count` rows from `top` on, fewer at the end, each with the number of its line.

        They must have been measured. The numbers are those of `line_number`.
        """
        found: list[tuple[Row, int]] = []
        for index in range(self._offsets.find(top), len(self.sections)):
            section = self.sections[index]
            for number, row in section.rows(max(0, top - self._offsets.start(index))):
                found.append((row, line_number(section.serial, number, row.number)))
                if len(found) >= count:
                    return found
        return found

    def anchor(self, row: int) -> Anchor:
        """The place in the text that is shown at a row."""
        if not self.sections:
            return Anchor(0, 0, 0)
        index = self._offsets.find(row)
        section = self.sections[index]
        self.flush(index)
        piece, inside = section.find(row - self._offsets.start(index))
        rows = section.pieces[piece].rows
        if rows is None or not 0 <= inside < len(rows):
            return Anchor(index, piece, inside)
        return Anchor(index, piece, inside, rows[inside].number, rows[inside].start)

    def row_of(self, anchor: Anchor) -> int:
        """The row at which a place in the text is shown now, or the end if the text is gone."""
        if anchor.section >= len(self.sections):
            return self.height
        section = self.sections[anchor.section]
        if anchor.piece >= len(section.pieces):
            return self._offsets.start(anchor.section)
        first, start = self._offsets.start(anchor.section), section.start(anchor.piece)
        top, piece = first + start, section.pieces[anchor.piece]
        if piece.hidden:
            return first + max(0, start - 1)  # where it is folded
        if anchor.line < 0 or piece.rows is None:
            return top + max(0, min(anchor.row, piece.height - 1))
        place = (anchor.line, anchor.character)
        return top + max(0, sum((row.number, row.start) <= place for row in piece.rows) - 1)

    def start_of(self, key: int) -> Anchor:
        """The first place of the section with this key, below its gap. Raises KeyError if there is none."""
        index = self.index(key)
        section = self.sections[index]
        return Anchor(index, section.first_shown, int(section.gap))

    def end_row(self, key: int) -> int:
        """The row after the last one of the section with this key. Raises KeyError if there is none."""
        return self._offsets.start(self.index(key) + 1)

    def section_at(self, number: int) -> Section | None:
        """The section that a line with this number is in, or was."""
        serial = number >> (_PIECE_BITS + _LINE_BITS)
        index = bisect_left(self.sections, serial, key=lambda section: section.serial)
        found = index < len(self.sections) and self.sections[index].serial == serial
        return self.sections[index] if found else None


def line_number(serial: int, piece: int, line: int) -> int:
    """A number for a line that grows towards the end and does not change when others are laid out."""
    return (serial << _PIECE_BITS | piece) << _LINE_BITS | line
