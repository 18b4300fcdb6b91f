"""The full-screen app, and the one function that the command line calls."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tui.compat  # noqa: F401  first: it sets what Textual reads while it is imported

# isort: split
from textual.app import App, SystemCommand
from textual.screen import Screen
from textual.theme import Theme

import styles
from core.config.read import Config
from core.config.values import shown
from core.config.write import save_ui
from core.engine.backend import Backend
from core.engine.events import Shutdown
from core.folders import config_file
from core.history.records import Chat
from core.options import LoadOptions
from tui.chat_session import ChatSession
from tui.commands import ACTIONS, bindings, key_name
from tui.keys import keys_of, read_keys
from tui.keys import use as use_keys
from tui.outcome import Outcome, resume_command
from tui.screens.chat import ChatScreen
from tui.screens.help import HelpScreen
from tui.settings import Settings
from tui.stdio_guard import guarded, log_path

if TYPE_CHECKING:
    from core.history.store import History

_THEME = "TEXTUAL_THEME"  # a variable that names the theme, and wins over any other choice; see tui.compat
_STYLES = Path(styles.__file__).parent


class LlamaApp(App[Outcome], inherit_bindings=False):
    """llama-tui. `session` talks to the engine; the chat screen shows it."""

    TITLE = "llama-tui"
    CSS_PATH = sorted(_STYLES.glob("*.tcss"))
    BINDINGS = bindings("app", priority=True)

    def __init__(
        self,
        session: ChatSession,
        model_name: str,
        notes: Iterable[str] = (),
        *,
        config: Config | None = None,
        history: History | None = None,
        chat: Chat | None = None,
    ) -> None:
        super().__init__()
        config = config or Config(config_file())
        self._warned = False
        keys, warnings = read_keys(config)
        use_keys(keys)
        self.set_keymap({id: ",".join(own) for id, own in keys.items()})
        notes = (*notes, *warnings, *self._take_theme(config))
        self._chat = ChatScreen(session, model_name, notes, history=history, chat=chat)

    def _take_theme(self, config: Config) -> Iterator[str]:
        """Begin with the configuration's theme, unless the environment names one; a note if it is none."""
        if config.theme is None or _THEME in os.environ:
            return
        if config.theme in self.available_themes:
            self.theme = config.theme
        else:
            known = ", ".join(sorted(self.available_themes))
            said = f"there is no theme {shown(config.theme)}; choose one of {known}"
            yield f"{config.place('ui', 'theme')}: {said}; ignored"

    def on_mount(self) -> None:
        """From now on another theme is the user's choice, and kept for the next time."""
        self._theme_kept = self.theme
        if _THEME not in os.environ:
            self.theme_changed_signal.subscribe(self, self._theme_chosen)

    def _theme_chosen(self, theme: Theme) -> None:
        if theme.name != self._theme_kept:
            self._theme_kept = theme.name
            self.run_worker(self._keep_theme(theme.name))

    async def _keep_theme(self, name: str) -> None:
        error = await self._chat.write(partial(save_ui, config_file(), "theme", name))
        if error is not None and not self._warned:
            self._warned = True
            self._chat.note(f"the theme is not kept: {error}", "warning")

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
                keys = ", ".join(key_name(key) for key in keys_of(action))
                help = f"{keys} · {action.help}" if keys else action.help
                yield SystemCommand(action.title, help, partial(self._chat.action_perform, action.id))


def run(
    backend: Backend,
    options: LoadOptions,
    settings: Settings,
    *,
    model_name: str,
    notes: Iterable[str] = (),
    config: Config | None = None,
    history: History | None = None,
    chat: Chat | None = None,
) -> Outcome:
    """Run the app until the user leaves or the load fails for good; then the terminal is as before.

    `config` is what the user's file says of keys and theme. `history` holds the saved conversations, None
    where nothing is saved; `chat` is the one to go on with. The engine is told to end but not waited for:
    closing the backend is for whoever made it.
    """
    session = ChatSession(backend, options, settings)
    app = LlamaApp(session, model_name, notes, config=config, history=history, chat=chat)
    with guarded():
        try:
            outcome = app.run()
        finally:
            backend.submit(Shutdown())
    if app.return_code:
        return Outcome(1, f"the interface failed; what it said is in {log_path()}")
    outcome = outcome or Outcome()
    if outcome.exit_code or history is None or session.chat is None:
        return outcome
    return replace(outcome, command=resume_command(session.chat, session.title))
