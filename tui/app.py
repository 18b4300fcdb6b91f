"""The full-screen app, and the one function that the command line calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import tui.compat  # noqa: F401  first: it sets what Textual reads while it is imported

# isort: split
from textual.app import App, SystemCommand
from textual.screen import Screen

import styles
from core.engine.backend import Backend
from core.engine.events import Shutdown
from core.options import LoadOptions, Value
from tui.chat_session import ChatSession
from tui.commands import ACTIONS, bindings
from tui.outcome import Outcome
from tui.screens.chat import ChatScreen
from tui.screens.help import HelpScreen
from tui.settings import Settings
from tui.stdio_guard import guarded, log_path

_STYLES = Path(styles.__file__).parent


class LlamaApp(App[Outcome], inherit_bindings=False):
    """llama-tui. `session` talks to the engine; the chat screen shows it."""

    TITLE = "llama-tui"
    CSS_PATH = sorted(_STYLES.glob("*.tcss"))
    BINDINGS = bindings("app", priority=True)

    def __init__(self, session: ChatSession, model_name: str, notes: Iterable[str] = ()) -> None:
        super().__init__()
        self._chat = ChatScreen(session, model_name, tuple(notes))

    def get_default_screen(self) -> Screen[None]:
        """The chat is there from the first frame."""
        return self._chat

    async def action_quit(self) -> None:
        """Leave; the engine is stopped once the terminal is the user's again."""
        self.exit(Outcome())

    def action_help(self) -> None:
        """Keys, commands, settings; again, and they are gone."""
        if isinstance(self.screen, HelpScreen):
            self.screen.dismiss()
        else:
            self.push_screen(HelpScreen())

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: every action that has a slash command and what it needs."""
        for action in ACTIONS:
            if action.slash and (action.enabled is None or self._chat.has(action.enabled)):
                yield SystemCommand(action.title, action.help, partial(self._chat.perform, action))


def run(
    backend: Backend,
    options: LoadOptions,
    values: Mapping[str, Value],
    *,
    changed: frozenset[str] = frozenset(),
    model_name: str,
    notes: Iterable[str] = (),
) -> Outcome:
    """Run the app until the user leaves or the load fails for good; then the terminal is as before.

    `changed` are the keys that the user set himself. The engine is told to end but not waited for:
    closing the backend is for whoever made it.
    """
    session = ChatSession(backend, options, Settings(values, changed))
    app = LlamaApp(session, model_name, notes)
    with guarded():
        try:
            outcome = app.run()
        finally:
            backend.submit(Shutdown())
    if app.return_code:
        return Outcome(1, f"the interface failed; what it said is in {log_path()}")
    return outcome or Outcome()
