"""What `llama-tui` alone begins with: a path, recent models, the demo, and the chat that comes of it."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from textual import events, on
from textual.message import Message
from textual.widgets import Input, OptionList

from core.errors import Cancelled, UserError
from tui.aside import aside
from tui.keys import key_word
from tui.path_completion import common, given_path
from tui.screens.start_view import StartView
from tui.talk import Talk
from tui.widgets.start_list import StartRow

if TYPE_CHECKING:
    from core.history.store import History
    from tui.app import LlamaApp

OpenChosen = Callable[[Mapping[str, Any], Callable[[int, int | None], None]], Talk]
"""Makes a chat of what is chosen, by the names of the command line; the other is told how far a fetch is."""

_ENDING_S = 1.5
"""How long leaving waits for a fetch to clean up."""


class StartScreen(StartView):
    """Chooses a model. `open_chosen` may take long, and is called on another thread."""

    class Fetching(Message, bubble=False):
        """The demo model is on its way: bytes so far, and in all."""

        def __init__(self, done: int, total: int | None) -> None:
            super().__init__()
            self.done, self.total = done, total

        def can_replace(self, message: Message) -> bool:
            """Only the newest is worth showing."""
            return isinstance(message, StartScreen.Fetching)

    def __init__(self, open_chosen: OpenChosen, *, history: History | None, typed: Sequence[str]) -> None:
        super().__init__(history, shlex.join(typed))
        self._open_chosen = open_chosen
        self._stop = threading.Event()
        self._opened = threading.Event()  # nothing is being opened
        self._opened.set()

    def on_unmount(self) -> None:
        """End a fetch: what it has begun must be cleaned up by itself."""
        self._stop.set()
        self._opened.wait(_ENDING_S)

    # --- keys -----------------------------------------------------------------------------------

    def action_perform(self, id: str) -> None:
        """One of the screen's keys, behind the characters that wait in the field's queue."""
        self.path.call_later(getattr(self, f"action_{id}"))

    def action_start_up(self) -> None:
        """The row above."""
        self.rows.move(-1)

    def action_start_down(self) -> None:
        """The row below."""
        self.rows.move(1)

    def action_start_page_up(self) -> None:
        """A page up."""
        self.rows.move(-self.rows.page)

    def action_start_page_down(self) -> None:
        """A page down."""
        self.rows.move(self.rows.page)

    def action_complete_path(self) -> None:
        """The path as far as there is no choice; where it is that far, with what is under the cursor."""
        typed = given_path(self.path.value)
        if not typed:
            return
        found = self.candidates_now()
        longer = common(typed, found)
        if longer != typed and longer.startswith(typed):
            self.type_path(longer)
        elif self.rows.row is not None:
            self.type_path(self.rows.row.path)
        elif found:
            self.rows.move(1)

    def action_leave_start(self) -> None:
        """The first that applies: stop what is being fetched, clear the path, leave."""
        if not self._opened.is_set():
            self._stop.set()
        elif self.path.value:
            self.path.clear()
        else:
            self.app.run_worker(self.app.action_quit())

    def on_key(self, event: events.Key) -> None:
        """Wherever the mouse has left the focus, what is typed is a path."""
        if event.is_printable and event.character is not None:
            event.stop()
            self.path.focus()
            self.path.insert_text_at_cursor(event.character)

    # --- choosing -------------------------------------------------------------------------------

    @on(OptionList.OptionSelected)
    def action_open_model(self) -> None:
        """What is under the cursor, or what is typed."""
        self.candidates_now()
        row = self.rows.row
        if row is not None:
            self._take(row)
        elif self.path.value.strip():
            self._open({"checkpoint": given_path(self.path.value)})

    def _take(self, row: StartRow) -> None:
        if row.path and not row.opens:
            self.type_path(row.path)
        else:
            self._open({"checkpoint": row.path} if row.path else row.given)

    def _open(self, given: Mapping[str, Any]) -> None:
        if not self._opened.is_set():
            return
        self._opened.clear()
        self._stop.clear()
        self.say("opening …")
        self.run_worker(self._wait_for(given), group="open")

    async def _wait_for(self, given: Mapping[str, Any]) -> None:
        try:
            talk = await aside(partial(self._made, given))
        except UserError as error:
            self.say(str(error), "error")
        except Cancelled:
            self.say("stopped; nothing was kept of it", "warning")
        else:
            self.say("")
            cast("LlamaApp", self.app).open_talk(talk)

    def _made(self, given: Mapping[str, Any]) -> Talk:
        """On a thread of its own: the chat of what was chosen. Raises UserError and Cancelled."""
        try:
            return self._open_chosen(given, self._progress)
        finally:
            self._opened.set()

    def _progress(self, done: int, total: int | None) -> None:
        if self._stop.is_set():
            raise Cancelled
        self.post_message(self.Fetching(done, total))

    @on(Fetching)
    def _fetching(self, message: Fetching) -> None:
        if not self._opened.is_set():
            total = f" of {message.total / 1e6:.0f}" if message.total else ""
            share = f"{message.done / 1e6:.0f}{total} MB"
            self.say(f"fetching the demo model, once: {share} · {key_word('leave_start')} stops")

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()  # Enter is an action of this screen
