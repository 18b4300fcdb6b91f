"""The message of a transcript that the keyboard is at: marked, walked over, folded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from textual import events
from textual.geometry import Region

from tui.markdown.code_blocks import CodeBlock, code_blocks
from tui.markdown.document import Anchor, line_number
from tui.markdown.lines import Row
from tui.markdown.section import Section
from tui.widgets.transcript_view import TranscriptView

_NOTHING = range(0)


class TranscriptMarks(TranscriptView):
    """A transcript with a current message, or none, and in that message a current block of code, or none."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._current: int | None = None
        self._code: int | None = None  # which of the blocks of code
        self._marked = _NOTHING  # numbers of lines

    # --- the current message ----------------------------------------------------------------------

    @property
    def current(self) -> int | None:
        """The key of the message that is marked."""
        return self._current if self._current is not None and self._document.has(self._current) else None

    def mark(self, key: int) -> None:
        """Marks a message and scrolls to it. Raises KeyError if there is none with this key."""
        self._current, self._code = key, None
        self._reveal(key)
        self._mark()

    def mark_last_in_view(self) -> bool:
        """Marks the last message in view, without scrolling; False where there is no message."""
        document = self._document
        seen = (document.section_at(number) for _, number in reversed(self._view))
        sections = (section for section in (*seen, *reversed(document.sections)) if section is not None)
        section = next((section for section in sections if section.key is not None), None)
        if section is None:
            return False
        self._current, self._code = section.key, None
        self._mark()
        return True

    def unmark(self) -> None:
        """Marks nothing; at the end of the conversation, that is followed again."""
        if self._current is not None:
            self._current = self._code = None
            self._mark()
            self._settle_at_end()

    def step(self, steps: int) -> None:
        """Marks the message so many further on; from the last one goes on to the end and follows that."""
        section = self._section()
        if section is None:
            return
        keys = [one.key for one in self._document.sections if one.key is not None]
        at = keys.index(self._current or 0)
        to = max(0, min(len(keys) - 1, at + steps))
        if to == at and steps > 0:
            self.follow()
        else:
            self.mark(keys[to])

    def _section(self) -> Section | None:
        return None if self.current is None else self._document.sections[self._document.index(self.current)]

    def _reveal(self, key: int) -> None:
        """Brings a message into view, from its beginning where there is no room for all of it."""
        document, height = self._document, self.scrollable_content_region.height
        document.flush(document.index(key))
        top, start, end = self.scroll_offset.y, document.row_of(document.start_of(key)), document.end_row(key)
        if start >= top and end <= top + height:
            return
        self._set_following(False)
        fits_below = start >= top and end - start < height
        self._settle(document.start_of(key), above=height - (end - start) if fits_below else 0)
        if self.scroll_offset.y >= self.max_scroll_y and end >= document.height:
            self._set_following(True)

    # --- its blocks of code -----------------------------------------------------------------------

    @property
    def code(self) -> str | None:
        """The block of code that is marked, as it was written."""
        block = self._block()
        return None if block is None else block.text

    def step_code(self) -> tuple[int, int] | None:
        """Marks the next block of code of the current message; its number and theirs. None: there is none."""
        section = self._section()
        if section is None:
            return None
        self._fold(section, lambda: section.fold(self._document.frame, folded=False))
        blocks = code_blocks(section)
        if not blocks:
            return None
        self._code = 0 if self._code is None else (self._code + 1) % len(blocks)
        first, last, _ = blocks[self._code]
        rows = sum(piece.height for piece in section.pieces[first : last + 1])
        at = self._document.index(self._current or 0)
        self._bring(Anchor(at, first, int(section.pieces[first].gap)), rows)
        self._mark()
        return self._code + 1, len(blocks)

    def _block(self) -> CodeBlock | None:
        section = self._section()
        if section is None or self._code is None:
            return None
        blocks = code_blocks(section)
        return blocks[self._code] if self._code < len(blocks) else None

    # --- marks ------------------------------------------------------------------------------------

    def _mark(self) -> None:
        """Repaints the rows whose mark comes or goes."""
        before, self._marked = self._marked, self._numbers()
        changed = [
            y for y, (_, number) in enumerate(self._view) if (number in before) != (number in self._marked)
        ]
        if changed:
            self._refresh_rows(changed[0], changed[-1])

    def _refresh_rows(self, first: int, last: int) -> None:
        self.refresh(Region(0, first, self.size.width, last - first + 1))

    def _numbers(self) -> range:
        """The numbers of the lines that are marked."""
        section, block = self._section(), self._block()
        if section is None:
            return _NOTHING
        if block is None:
            return range(line_number(section.serial, 0, 0), line_number(section.serial + 1, 0, 0))
        start = line_number(section.serial, block.first, int(section.pieces[block.first].gap))
        return range(start, line_number(section.serial, block.last + 1, 0))

    def _is_marked(self, row: Row, number: int) -> bool:
        """Whether a row of line `number` belongs to the current message; the gap above does not."""
        if number not in self._marked:
            return False
        section = self._section()
        if section is None or row.prefix or not section.gap:
            return section is not None
        return number != line_number(section.serial, section.first_shown, 0)

    # --- folding ----------------------------------------------------------------------------------

    def toggle(self) -> None:
        """Folds the current message, or shows more of it: folded, without its reasoning, all of it."""
        section = self._section()
        if section is None:
            return
        frame = self._document.frame
        self._document.flush(self._document.index(self._current or 0))
        if section.folded:
            self._fold(section, lambda: section.fold(frame, folded=False))
        elif section.reasoning_open is False:
            self._fold(section, lambda: section.open_reasoning(frame, shown=True))
        else:
            self._fold(section, lambda: self._fold_up(section))
        self._reveal(self._current or 0)
        self._code = None
        self._mark()

    def _fold_up(self, section: Section) -> None:
        section.open_reasoning(self._document.frame, shown=None)
        section.fold(self._document.frame, folded=True)

    def _fold(self, section: Section, change: Callable[[], None]) -> None:
        """Folds or unfolds something; what is at the top of the view stays there as far as it can."""
        document = self._document
        anchor = None if self.following else document.anchor(self.scroll_offset.y)
        change()
        if section.key is not None:
            document.changed(document.index(section.key))
        self._settle(anchor)

    def on_click(self, event: events.Click) -> None:
        """A row that says what is folded opens that, or folds it again."""
        if event.y >= len(self._view) or self._selection is not None:
            return
        row, number = self._view[event.y]
        section = self._document.section_at(number)
        if row.line.style != "fold" or section is None:
            return
        frame = self._document.frame
        if section.folded:
            self._fold(section, lambda: section.fold(frame, folded=False))
        else:
            self._fold(section, lambda: section.open_reasoning(frame, shown=not section.reasoning_open))
