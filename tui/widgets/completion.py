"""What the command that is being typed could become: a short list above the prompt."""

from __future__ import annotations

from collections.abc import Callable

from textual import events
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from tui.slash_completion import NOTHING, Candidate, Completions

_MOST = 8  # rows that are shown at once
_NAME = 30  # cells for the command and its argument
_NARROW = 60  # below this width they get half


class CompletionList(Widget):
    """Follows the prompt's text. Nothing is under the cursor where what is typed can be done as it is."""

    COMPONENT_CLASSES = {"completion--name", "completion--cursor", "completion--hint"}

    class Taken(Message):
        """A row was clicked: what the prompt is to hold."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, complete: Callable[[str], Completions], id: str) -> None:
        super().__init__(id=id)
        self._complete = complete
        self._text = ""
        self._found = NOTHING
        self._cursor: int | None = None
        self._moved = False  # the user chose the row under the cursor
        self._dismissed: str | None = None
        self.display = False

    # --- what is typed ----------------------------------------------------------------------------

    def look(self, text: str) -> None:
        """Follow the prompt, which holds `text` now."""
        if text == self._text:
            return
        self._text = text
        if text != self._dismissed:
            self._dismissed = None
        self._found = NOTHING if self._dismissed is not None else self._complete(text)
        self._moved = False
        self._cursor = 0 if self._found.candidates and not self._found.whole else None
        self._paint()

    def dismiss(self, text: str) -> None:
        """Close, and stay closed while the prompt holds `text`."""
        self._dismissed, self._text = text, ""
        self.look(text)

    @property
    def is_open(self) -> bool:
        """True where there is something to choose."""
        return bool(self._found.candidates)

    # --- choosing ---------------------------------------------------------------------------------

    def move(self, rows: int) -> None:
        """Move the cursor, around the ends."""
        count = len(self._found.candidates)
        if count:
            start = self._cursor if self._cursor is not None else (-1 if rows > 0 else count)
            self._cursor, self._moved = (start + rows) % count, True
            self._paint()

    def taken(self) -> str:
        """The text with the row under the cursor, the first where there is none under it."""
        return self._found.candidates[self._cursor or 0].text

    def instead_of_sending(self) -> str | None:
        """What Enter puts in the prompt; None where it sends what is there."""
        if not self.is_open or (self._found.whole and not self._moved):
            return None
        text = self.taken()
        return text if text.rstrip() != self._text.rstrip() else None

    def on_click(self, event: events.Click) -> None:
        """Take the row under the mouse."""
        candidates, row = self._found.candidates, event.get_content_offset_capture(self).y + self._first
        if 0 <= row < len(candidates):
            self.post_message(self.Taken(candidates[row].text))

    # --- painting ---------------------------------------------------------------------------------

    def _paint(self) -> None:
        rows = min(_MOST, len(self._found.candidates)) or bool(self._found.hint)
        self.display = bool(rows)
        if rows:
            self.styles.height = int(rows)
            self.refresh()

    @property
    def _first(self) -> int:
        """The row at the top."""
        height = max(1, self.size.height)
        at = self._cursor or 0
        last = max(0, len(self._found.candidates) - height)
        return min(last, max(0, at - height + 1))

    def render(self) -> Content:
        """The rows around the cursor, or a hint."""
        width = self.size.width
        if not self.is_open:
            hint = Content(self._found.hint).truncate(width, ellipsis=True)
            return hint.stylize(self.get_visual_style("completion--hint"))
        shown = self._found.candidates[self._first : self._first + self.size.height]
        return Content("\n").join(
            self._row(candidate, width, under_cursor=self._first + i == self._cursor)
            for i, candidate in enumerate(shown)
        )

    def _row(self, candidate: Candidate, width: int, *, under_cursor: bool) -> Content:
        cells = _NAME if width >= _NARROW else width // 2
        name = Content(candidate.shown).truncate(cells, ellipsis=True, pad=True)
        help = Content(candidate.help).truncate(max(0, width - cells - 1), ellipsis=True, pad=True)
        if under_cursor:
            return (name + " " + help).stylize(self.get_visual_style("completion--cursor"))
        return name.stylize(self.get_visual_style("completion--name")) + " " + help
