"""The saved conversations as a list with a cursor, of which only what is asked for is there."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import datetime

from rich.cells import cell_len
from textual.content import Content
from textual.css.styles import RulesMap
from textual.message import Message
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from core.history.records import ChatRow, Excerpt
from core.text.sanitize import one_line, sanitize

_MARK = 2  # cells before the title
_WHEN, _COUNT = 11, 8
_LONGEST = 400  # characters of a title that are looked at
_NEAR = 20
"""With fewer rows than this below the cursor or the view, more are asked for."""

_MODEL = ((100, 26), (76, 18))
"""How many cells of the model are shown from which width on; below all of them none."""
_COUNTED = 48  # the width from which on messages are counted


def when(moment: float, now: float) -> str:
    """A time as one thinks of it: "today 14:05", "yesterday", "3 Nov", "2024-11-03". Seconds since 1970."""
    try:
        then, today = datetime.fromtimestamp(moment), datetime.fromtimestamp(now)
    except (OverflowError, ValueError, OSError):  # of a damaged database
        return "no date"
    days = (today.date() - then.date()).days
    if days == 0:
        return f"today {then:%H:%M}"
    if days == 1:
        return "yesterday"
    return f"{then.day} {then:%b}" if then.year == today.year else f"{then:%Y-%m-%d}"


def shown_title(title: str) -> str:
    """A title as part of a line."""
    return one_line(title, _LONGEST) or "untitled"


class ChatLine(Visual):
    """One conversation: its title, when it was changed, its messages, its model; and what a search found."""

    def __init__(self, row: ChatRow, *, opened: bool) -> None:
        self._row, self._opened = row, opened

    def render_strips(
        self, width: int, height: int | None, style: Style, options: RenderOptions
    ) -> list[Strip]:
        """A line, and a second one below it where something was searched for."""
        lines = [self._line(width)]
        if self._row.excerpt:
            lines.append(_found(self._row.excerpt, width))
        return [strip for line in lines for strip in line.render_strips(width, 1, style, options)]

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        """All the width there is."""
        return container_width

    def get_height(self, rules: RulesMap, width: int) -> int:
        """One row or two."""
        return _lines((self._row,))

    def _line(self, width: int) -> Content:
        row = self._row
        details = f"  {when(row.updated, time.time()):>{_WHEN}}"
        if width >= _COUNTED:
            details += f"{f'{row.messages} msg':>{_COUNT + 2}}"
        right = Content(details)
        model = next((cells for least, cells in _MODEL if width >= least), 0)
        if model:
            right += Content("  ") + Content(one_line(row.model)).truncate(model, ellipsis=True, pad=True)
        room = max(0, width - _MARK - right.cell_length)
        title = Content(shown_title(row.title)).truncate(room, ellipsis=True, pad=True)
        mark = ("● ", ".chats--mark") if self._opened else "  "
        return Content.assemble(mark, title, right.stylize(".chats--muted")).truncate(width)


def _found(excerpt: Excerpt, width: int) -> Content:
    """What a search found, so that the first match can be seen in `width` cells."""
    pieces = [(re.sub(r"\s+", " ", sanitize(text)), match) for text, match in excerpt]
    room = width - 2 * _MARK
    first = next((i for i, (_, match) in enumerate(pieces) if match), 0)
    before = "".join(text for text, _ in pieces[:first])
    if first and cell_len(before) + cell_len(pieces[first][0]) > room:
        pieces[:first] = [("…" + before[-max(1, room // 4) :], False)]
    line = Content.assemble(
        *((text, ".chats--match" if match else ".chats--muted") for text, match in pieces)
    )
    return Content(" " * 2 * _MARK) + line.truncate(max(0, room), ellipsis=True)


def _lines(rows: Iterable[ChatRow]) -> int:
    return sum(2 if row.excerpt else 1 for row in rows)


class ChatList(OptionList, can_focus=False):
    """Rows with a cursor. The keyboard belongs to the search box, so the screen's keys move it."""

    COMPONENT_CLASSES = {"chats--match", "chats--muted", "chats--mark"}

    class NearEnd(Message):
        """The cursor or the view came near the last of the rows."""

    def __init__(self, opened: int | None, id: str) -> None:
        super().__init__(id=id, markup=False, compact=True)
        self.opened = opened
        self._rows: list[ChatRow] = []
        self._rows_lines = 0  # that they take

    # --- rows -----------------------------------------------------------------------------------

    @property
    def rows(self) -> tuple[ChatRow, ...]:
        """What is in the list, from top to bottom."""
        return tuple(self._rows)

    @property
    def row(self) -> ChatRow | None:
        """The one under the cursor."""
        return None if self.highlighted is None else self._rows[self.highlighted]

    def show(self, rows: Iterable[ChatRow], cursor: int = 0) -> None:
        """Show these, in place of what was there."""
        top = self.scroll_y
        self._rows = list(rows)
        self._rows_lines = _lines(self._rows)
        self.set_options(self._option(row) for row in self._rows)
        if self._rows:
            self.scroll_to(y=top if cursor else 0, animate=False, immediate=True)
            self.highlighted = min(cursor, len(self._rows) - 1)
        self._check_end()

    def extend(self, rows: Iterable[ChatRow]) -> None:
        """Add rows at the end. One that is there already has moved since; it stays where it is."""
        known = {row.id for row in self._rows}
        new = [row for row in rows if row.id not in known]
        self._rows += new
        self._rows_lines += _lines(new)
        self.add_options(self._option(row) for row in new)
        self._check_end()

    def take_out(self, chat: int) -> int | None:
        """Take a row out: its place, None where it was not there."""
        at = self._place(chat)
        if at is not None:
            cursor = self.highlighted or 0
            self.show((row for row in self._rows if row.id != chat), cursor - (cursor > at))
        return at

    def put_in(self, at: int, row: ChatRow) -> None:
        """Put a row in at a place, unless it is there, and the cursor on it."""
        there = self._place(row.id)
        if there is not None:
            self.highlighted = there
            return
        self.show((*self._rows[:at], row, *self._rows[at:]), at)

    def change(self, row: ChatRow) -> None:
        """Show a row as it is now."""
        at = self._place(row.id)
        if at is not None:
            self._rows[at] = row
            self.replace_option_prompt_at_index(at, self._line(row))

    def _place(self, chat: int) -> int | None:
        return next((at for at, row in enumerate(self._rows) if row.id == chat), None)

    def _option(self, row: ChatRow) -> Option:
        return Option(self._line(row))

    def _line(self, row: ChatRow) -> ChatLine:
        return ChatLine(row, opened=row.id == self.opened)

    # --- where the cursor and the view are --------------------------------------------------------

    @property
    def page(self) -> int:
        """How many rows a page is."""
        tall = any(row.excerpt for row in self._rows)
        return max(1, self.scrollable_content_region.height // (2 if tall else 1))

    def move(self, rows: int) -> None:
        """Move the cursor by so many rows; it stops at both ends."""
        if self._rows:
            self.highlighted = max(0, min(len(self._rows) - 1, (self.highlighted or 0) + rows))

    def watch_highlighted(self, highlighted: int | None) -> None:
        """Keep the cursor in view, and ask for more near the end."""
        super().watch_highlighted(highlighted)
        self._check_end()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Ask for more near the end."""
        super().watch_scroll_y(old_value, new_value)
        if new_value > old_value:
            self._check_end()

    def on_resize(self) -> None:
        """A larger view may have room for more."""
        self._check_end()

    @property
    def is_near_end(self) -> bool:
        """Whether the cursor or the view is near the last of the rows that are there now."""
        height = self.scrollable_content_region.height
        seen = height > 0 and self.scroll_y + height >= self._rows_lines - _NEAR
        return bool(self._rows) and (seen or (self.highlighted or 0) >= len(self._rows) - _NEAR)

    def _check_end(self) -> None:
        if self.is_near_end:
            self.post_message(self.NearEnd())
