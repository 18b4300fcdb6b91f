"""Words that are searched for in a transcript."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tui.markdown.document import Anchor, line_number
from tui.markdown.lines import Row
from tui.markdown.search import Match, Search, Words, drawn_in, locate, offset_of
from tui.markdown.section import Section
from tui.markdown.strips import Overlay
from tui.widgets.transcript_marks import TranscriptMarks


class Finds(NamedTuple):
    """Which find is shown, counted from 1, and how many there are; zeros where there is none."""

    at: int
    total: int


class TranscriptFind(TranscriptMarks):
    """A transcript that can be searched. Its text is, not its rows: folded messages have finds too."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._words = Words("")
        self._match: Match | None = None
        self._shown: tuple[int, range] | None = None  # the line and the characters of the find that is shown
        self._opened: Callable[[], None] | None = None  # folds again what was opened for it
        self._origin: tuple[bool, Anchor] | None = None  # where one was: whether it followed, and the top

    @property
    def found_in(self) -> int | None:
        """The key of the message with the find that is shown."""
        return None if self._match is None or not self._document.has(self._match.key) else self._match.key

    def find(self, text: str) -> Finds:
        """Searches for a literal text and shows the first find from where the search began, if any."""
        document = self._document
        if self._origin is None:
            self._origin = self.following, document.anchor(self.scroll_offset.y)
        self._words = Words(text)
        search = Search(document, self._words)
        return self._show_find(search, min(search.number_at(*self._origin_place()), search.count - 1))

    def step_find(self, steps: int) -> Finds:
        """Shows the find so many further on; after the last comes the first."""
        search, match = Search(self._document, self._words), self._match
        if not search.count:
            return self._show_find(search, -1)
        at = 0
        if match is not None and self.found_in is not None:
            at = search.number_at(self._document.index(match.key), match.offset)
        return self._show_find(search, (at + steps) % search.count)

    def end_find(self, *, back: bool) -> None:
        """Shows no finds any more; with `back`, what was in view before is again."""
        origin, self._origin = self._origin, None
        if back:
            self._close_opened()
            if origin is not None:
                self._set_following(origin[0])
                self._settle(origin[1])
        self._words, self._match, self._shown, self._opened = Words(""), None, None, None
        self.refresh()

    def _origin_place(self) -> tuple[int, int]:
        assert self._origin is not None
        anchor, sections = self._origin[1], self._document.sections
        if anchor.section >= len(sections) or sections[anchor.section].folded:
            return anchor.section, 0
        return anchor.section, offset_of(sections[anchor.section], anchor.piece)

    def _show_find(self, search: Search, number: int) -> Finds:
        self._close_opened()
        self._match, self._shown = (search.match(number) if search.count else None), None
        if self._match is not None:
            self._go(self._match)
        self.refresh()
        return Finds(number + 1, search.count)

    def _go(self, match: Match) -> None:
        """Shows a find, for which what is folded is opened."""
        document = self._document
        index, frame = document.index(match.key), document.frame
        section = document.sections[index]
        place = locate(section, frame, self._words, match.offset)
        document.changed(index)
        if section.folded:
            self._fold(section, lambda: section.fold(frame, folded=False))
            self._opened = lambda: section.fold(document.frame, folded=True)
        if section.pieces[place.piece].block.aside and section.reasoning_open is False:
            folded = self._opened
            self._fold(section, lambda: section.open_reasoning(frame, shown=True))
            self._opened = lambda: self._fold_again(section, folded)
        self._bring(Anchor(index, place.piece, 0, place.line, place.character))
        number = line_number(section.serial, place.piece, place.line)
        self._shown = number, range(place.character, place.character + place.length)

    def _fold_again(self, section: Section, folded: Callable[[], None] | None) -> None:
        section.open_reasoning(self._document.frame, shown=None)
        if folded is not None:
            folded()

    def _close_opened(self) -> None:
        """Folds again what was opened for the find before."""
        opened, self._opened = self._opened, None
        section = None if self._match is None else self._section_of(self._match.key)
        if opened is not None and section is not None:
            self._fold(section, opened)

    def _section_of(self, key: int) -> Section | None:
        return self._document.sections[self._document.index(key)] if self._document.has(key) else None

    def _overlays(self, row: Row, number: int) -> Sequence[Overlay]:
        """What is selected, and what is found."""
        overlays = super()._overlays(row, number)
        found = drawn_in(row.line.text, row.line.style, self._words) if self._words.text else ()
        if not found:
            return overlays
        here, now = self.get_component_rich_style("transcript--found"), self._shown
        length = len(self._words.text)
        over = [Overlay(at, at + length, here) for at in found if at < row.end and at + length > row.start]
        if now is not None and now[0] == number:
            style = self.get_component_rich_style("transcript--found-now")
            over.append(Overlay(now[1].start, now[1].stop, style))
        return (*over, *overlays)
