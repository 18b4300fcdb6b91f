"""F12: the end of the log, where errors are told in full and what libraries print is kept."""

from __future__ import annotations

from pathlib import Path

from textual import events
from textual.app import ComposeResult

from tui import clipboard
from tui.commands import BY_ID
from tui.compat import SafeClicks
from tui.keys import key_word, keys_of
from tui.log_tail import LogTail
from tui.widgets.log_view import LogView
from tui.widgets.plain_line import PlainLine

_PERIOD_S = 0.5
_NOTHING = "nothing has been logged yet"


class LogScreen(SafeClicks):
    """Shows the end of a file and follows it, unless the user has scrolled away from the end."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._tail = LogTail(path)

    def compose(self) -> ComposeResult:
        """Where the file is, its lines, how to leave."""
        yield PlainLine(f"LOG  {self._tail.path}", id="log-title")
        yield LogView(id="log-lines")
        keys = f"{key_word('back')} back  arrows scroll  {key_word('interrupt')} copy"
        yield PlainLine(keys, id="log-keys")

    def on_mount(self) -> None:
        """Show what is there, and look again from time to time."""
        view = self.query_one(LogView)
        view.focus()
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        self._read()
        view = self.query_one(LogView)
        if not view.lines:
            view.add([_NOTHING])
        self.set_interval(_PERIOD_S, self._read)

    def on_key(self, event: events.Key) -> None:
        """Copy what is selected; back to where one came from."""
        if event.key in keys_of(BY_ID["interrupt"]) and (selected := self.get_selected_text()):
            event.stop()
            self.clear_selection()
            self.run_worker(self._copy(selected), group="clipboard", exclusive=True)
        elif event.key in (*keys_of(BY_ID["back"]), *keys_of(BY_ID["interrupt"]), "q"):
            event.stop()
            self.dismiss(None)

    async def _copy(self, text: str) -> None:
        way = await clipboard.copy(self.app, text)
        self.query_one("#log-keys", PlainLine).show(f"copied {len(text)} characters {way}")

    def _read(self) -> None:
        view, lines = self.query_one(LogView), self._tail.read()
        if not lines:
            return
        if list(view.lines) == [_NOTHING]:
            view.lines.clear()
        view.add(lines)
