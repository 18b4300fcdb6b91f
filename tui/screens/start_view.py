"""The start screen's looks: a path that is completed as one types, and a list of what else there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input
from textual.worker import Worker

from core.errors import UserError
from tui.aside import aside
from tui.commands import Scope, bindings
from tui.compat import SafeClicks
from tui.history_thread import HistoryThread
from tui.keys import key_word
from tui.path_completion import PathCandidate, candidates, verdict
from tui.screens.sizes import TooSmall
from tui.start_rows import Past, read_past, rows_of
from tui.widgets.key_bar import KeyBar
from tui.widgets.plain import PlainStatic, plain
from tui.widgets.start_list import StartList, StartRow
from tui.widgets.status_line import Level

if TYPE_CHECKING:
    from core.history.store import History

_TITLE = "llama-tui · which model?"
_KEYS = ("open_model", "complete_path", "leave_start", "command_palette", "help", "quit")
_CLOSING_S = 0.2


class StartView(SafeClicks):
    """A field and a list: of what there is while the field is empty, of paths while something is typed."""

    # Before the keys of the field, which has the focus.
    BINDINGS = bindings("start", priority=True)
    PLACE: ClassVar[Scope] = "start"
    AUTO_FOCUS = "#start-path"

    def __init__(self, history: History | None, typed: str) -> None:
        super().__init__()
        self._history = None if history is None else HistoryThread(history)
        if history is not None:
            history.tell(self._history_said)
        self._typed = typed
        self._past: Past | None = None if history is not None else Past()
        self._found: list[PathCandidate] = []
        self._found_for: str | None = None
        self._looking: Worker[None] | None = None

    def compose(self) -> ComposeResult:
        """Title, field, list, a line that says what happened, keys."""
        with Vertical(id="start"):
            yield PlainStatic(_TITLE, id="start-title")
            yield PlainStatic(f"started with {self._typed}", id="start-typed")
            yield Input(
                placeholder="Path of a Llama: folder or .gguf",
                id="start-path",
                compact=True,
                select_on_focus=False,
            )
            yield StartList(id="start-list")
            yield PlainStatic(id="start-said")
        yield KeyBar("start-keys", tuple((id,) for id in _KEYS))
        yield TooSmall()

    def on_mount(self) -> None:
        """The first rows; what was done before comes as soon as it is read."""
        self.path.cursor_blink = False  # it would repaint twice a second for ever
        self.query_one("#start-typed").set_class(bool(self._typed), "-some")
        if self._history is None:
            self._show_choices()
        else:
            self.rows.show((), cursor=None)
            self.run_worker(self._read_past(self._history))

    def on_unmount(self) -> None:
        """Let the history go."""
        if self._history is not None:
            self._history.close(_CLOSING_S)

    # --- parts ----------------------------------------------------------------------------------

    @property
    def path(self) -> Input:
        """Where a path is typed."""
        return self.query_one("#start-path", Input)

    @property
    def rows(self) -> StartList:
        """The list."""
        return self.query_one("#start-list", StartList)

    def say(self, text: str, level: Level = "info") -> None:
        """Say something below the list."""
        if not self.is_mounted:
            return
        line = self.query_one("#start-said", PlainStatic)
        line.set_class(level == "warning", "-warning")
        line.set_class(level == "error", "-error")
        line.update(plain(text))

    def _history_said(self, text: str) -> None:
        """A line of the database's, from its thread."""
        self.call_later(self.say, text, "warning")

    # --- the list -------------------------------------------------------------------------------

    async def _read_past(self, history: HistoryThread) -> None:
        try:
            self._past = await history.read(read_past)
        except UserError as error:
            self._past = Past()
            if self._is_there:
                self.say(f"recent models are not shown: {error}", "warning")
        if self._is_there and not self.path.value:
            self._show_choices()

    def _show_choices(self) -> None:
        self._found, self._found_for = [], None
        if self._past is not None:
            self.rows.show(rows_of(self._past), cursor=0)

    @on(Input.Changed)
    def _path_changed(self) -> None:
        self.say("")
        if self.path.value.strip():
            self._looking = self.run_worker(self._look, group="look", exclusive=True)
        else:
            self._show_choices()

    async def _look(self) -> None:
        """What may follow on what is typed, and what is wrong with it where nothing may."""
        typed = self.path.value
        found = await aside(lambda: candidates(typed))
        if not self._is_there:
            return
        self._offer(typed, found)
        said, opens = await aside(lambda: verdict(typed))
        if self._is_there and self.path.value == typed and (opens or not found):
            self.say(said, "info" if opens else "error")

    @property
    def _is_there(self) -> bool:
        """False once the app has begun to close, which goes on while the disk is looked at."""
        return bool(self.query("#start-list"))

    def _offer(self, typed: str, found: list[PathCandidate]) -> None:
        if self.path.value != typed:
            return
        self._found, self._found_for = found, typed
        rows = (StartRow(one.name, one.detail, path=one.text, opens=one.opens) for one in found)
        self.rows.show(rows, cursor=None)

    def candidates_now(self) -> list[PathCandidate]:
        """What may follow on what is typed at this moment, for a key that comes fast behind the last one.

        The list is what that key is about.
        """
        typed = self.path.value
        if not typed.strip():
            if self._found_for is not None:
                self._show_choices()
        elif self._found_for != typed:
            self._offer(typed, candidates(typed))
        return self._found

    def type_path(self, text: str) -> None:
        """Put a path in the field."""
        self.path.value = text
        self.path.cursor_position = len(text)

    def on_resize(self, event: events.Resize) -> None:
        """Where room is scarce, the list has all of it."""
        width, height = event.size
        self.set_class(height < 20 or width < 60, "-low")
        self.set_class(height < 16 or width < 50, "-tiny")
        hint = f" · {key_word('help')} help" if self.has_class("-tiny") else ""
        self.query_one("#start-title", PlainStatic).show(f"{_TITLE}{hint}")
        self.query_one(TooSmall).check(self, event.size)
