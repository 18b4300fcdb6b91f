"""Words in a conversation: found in its text, and brought together with what is drawn of it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from tui.markdown.document import Document
from tui.markdown.pieces import Fold, Frame
from tui.markdown.section import Section

_NO_TEXT = frozenset(("footer", "note", "warning", "error", "fold"))
"""Styles of lines that are no part of a message."""


class Words:
    """What is searched for: literal text, of either case unless it has a capital."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._exact = text != _lowered(text)

    def count(self, text: str) -> int:
        """How often the words stand in a text; matches do not overlap."""
        return self._folded(text).count(self.text) if self.text else 0

    def find(self, text: str) -> list[int]:
        """Where they do."""
        if not self.text:
            return []
        text, found = self._folded(text), []
        at = text.find(self.text)
        while at >= 0:
            found.append(at)
            at = text.find(self.text, at + len(self.text))
        return found

    def _folded(self, text: str) -> str:
        return text if self._exact else _lowered(text)


class Match(NamedTuple):
    """A find: the key of the message and the place in its text."""

    key: int
    offset: int


class Place(NamedTuple):
    """Where a find is drawn: a piece of the message, a line of that, a character of that.

    `length` is 0 where it is in no line, such as a find in the marks of Markdown.
    """

    piece: int
    line: int
    character: int
    length: int


class Search:
    """All finds in the messages of a conversation, folded or not, counted from top to bottom.

    Where they are is looked up for one message at a time: a single letter has hundreds of thousands.
    """

    def __init__(self, document: Document, words: Words) -> None:
        self._words = words
        self._sections = document.sections
        counts = (0 if one.key is None else words.count(one.text) for one in document.sections)
        self._before = list(accumulate(counts, initial=0))

    @property
    def count(self) -> int:
        """How many there are."""
        return self._before[-1]

    def match(self, number: int) -> Match:
        """The find with this number, counted from 0. IndexError where there is none."""
        if not 0 <= number < self.count:
            raise IndexError(number)
        index = bisect_right(self._before, number) - 1
        section = self._sections[index]
        assert section.key is not None
        return Match(section.key, self._words.find(section.text)[number - self._before[index]])

    def number_at(self, section: int, offset: int) -> int:
        """The number of the first find from an offset in the text of a section on."""
        if section >= len(self._sections):
            return self.count
        if self._before[section] == self._before[section + 1]:
            return self._before[section]
        return self._before[section] + bisect_left(self._words.find(self._sections[section].text), offset)


def locate(section: Section, frame: Frame, words: Words, offset: int) -> Place:
    """Where the find at `offset` in the text of a message is drawn, or would be if it were not folded."""
    section.flush(frame)
    piece, start = _piece_at(section, offset)
    before = sum(start <= at < offset for at in words.find(section.text))
    found = list(_drawn(section, frame, piece, words))
    if not found:
        return Place(piece, 0, 0, 0)
    return found[min(before, len(found) - 1)]


def drawn_in(line: str, style: str, words: Words) -> list[int]:
    """Where the words begin in a line that is drawn, if that is part of a message."""
    return [] if style in _NO_TEXT else words.find(line)


def _drawn(section: Section, frame: Frame, piece: int, words: Words) -> Iterator[Place]:
    for number, line in enumerate(section.pieces[piece].lines(frame)):
        for character in drawn_in(line.text, line.style, words):
            yield Place(piece, number, character, len(words.text))


def offset_of(section: Section, piece: int) -> int:
    """About where in the text of a message a piece of it begins."""
    return max((start for index, start in _starts(section) if index <= piece), default=0)


def _piece_at(section: Section, offset: int) -> tuple[int, int]:
    """Index of the piece that shows a place in the text, and where in the text that begins."""
    found = (0, 0)
    for index, start in _starts(section):
        if start > offset:
            break
        found = index, start
    return found


def _starts(section: Section) -> Iterator[tuple[int, int]]:
    """The pieces that show text, with where in that they begin.

    A block has lost its marks and indentation, but the words of its first line stand in the text as
    they are, in the same order.
    """
    text, at = section.text, 0
    for index, piece in enumerate(section.pieces):
        source = piece.block.source.strip()
        first = source.partition("\n")[0]
        if isinstance(piece, Fold) or not first or piece.block.style in _NO_TEXT:
            continue
        start = text.find(first, at)
        if start >= 0:
            yield index, start
            at = start + len(first if "|" in first else source)  # a table may repeat its head


def _lowered(text: str) -> str:
    """`text` in small letters, each in its place."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a few capitals become two characters
        lowered = "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)
    return lowered
