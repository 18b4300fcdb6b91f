"""The full-screen app, and the one function that the command line calls."""

from __future__ import annotations

import difflib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tui.compat  # noqa: F401  first: it sets what Textual reads while it is imported

# isort: split
from textual import events
from textual.app import App, SystemCommand
from textual.command import CommandPalette
from textual.screen import Screen
from textual.theme import Theme

import styles
from core.config.read import Config
from core.config.values import shown
from core.config.write import save_ui
from core.engine.commands import Shutdown
from core.errors import UserError
from core.folders import config_file
from core.text.sanitize import sanitize
from tui.aside import written
from tui.commands import ACTIONS, BY_ID, Scope, bindings, key_name
from tui.glyphs import AsciiFilter
from tui.keys import keys_of, read_keys
from tui.keys import use as use_keys
from tui.outcome import Outcome, resume_command
from tui.screens.chat import ChatScreen
from tui.screens.gauges import GaugesScreen
from tui.screens.help import HelpScreen
from tui.screens.log import LogScreen
from tui.screens.map import MapScreen
from tui.screens.start import OpenChosen, StartScreen
from tui.stdio_guard import guarded, log_path
from tui.talk import Talk
from tui.window_title import kept

if TYPE_CHECKING:
    from core.history.store import History

log = logging.getLogger(__name__)

_THEME = "TEXTUAL_THEME"  # a variable that names the theme, and wins over any other choice; see tui.compat
_STYLES = Path(styles.__file__).parent
_WITHOUT_CHAT = ("command_palette", "help", "change_theme", "log", "quit")
"""Actions of scope "app" that make sense before there is a chat."""


class LlamaApp(App[Outcome], inherit_bindings=False):
    """llama-tui: the chat of `talk`, or the start screen that comes before there is one."""

    TITLE = "llama-tui"
    CSS_PATH = sorted(_STYLES.glob("*.tcss"))
    BINDINGS = bindings("app", priority=True)

    def __init__(
        self,
        first: Talk | StartScreen,
        *,
        config: Config | None = None,
        ascii: bool = False,
    ) -> None:
        super().__init__()
        if ascii:
            self._filters.append(AsciiFilter())
        config = config or Config(config_file())
        self._rings = config.bell
        self._warned = False
        keys, warnings = read_keys(config)
        use_keys(keys)
        self.set_keymap({id: ",".join(own) for id, own in keys.items()})
        self._notes = (*warnings, *self._take_theme(config))
        self.talk: Talk | None = None
        self._first: Screen[None]
        if isinstance(first, StartScreen):
            self._first = first
        else:
            self._first = self._chat_of(first)

    def _chat_of(self, talk: Talk) -> ChatScreen:
        self.talk = talk
        notes = (*talk.notes, *self._notes)
        self._chat = ChatScreen(talk.session, talk.model_name, notes, history=talk.history, chat=talk.chat)
        return self._chat

    def open_talk(self, talk: Talk) -> None:
        """The chat of `talk`, over the start screen."""
        self.push_screen(self._chat_of(talk))

    def fail(self, outcome: Outcome) -> None:
        """The model cannot be had: back to where another can be chosen, or out."""
        start = self._first
        if self.talk is None or not isinstance(start, StartScreen):
            self.exit(outcome)
            return
        self.talk.session.backend.submit(Shutdown())
        self.talk = None
        start.say(outcome.line, "error")
        while self.screen is not start:
            self.pop_screen()

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
        if not self.is_headless:
            self.begin_capture_print(self)
        self._theme_kept = self.theme
        if _THEME not in os.environ:
            self.theme_changed_signal.subscribe(self, self._theme_chosen)

    async def on_event(self, event: events.Event) -> None:
        """As Textual's; but what is pasted, which anyone may have written, is text and nothing else."""
        if isinstance(event, events.Paste):
            event.text = sanitize(event.text.replace("\r\n", "\n").replace("\r", "\n"))
        await super().on_event(event)

    def on_print(self, event: events.Print) -> None:
        """What Python code prints goes where C code's does, into the log: Textual would drop it."""
        os.write(1, event.text.encode(errors="replace"))

    def _theme_chosen(self, theme: Theme) -> None:
        if theme.name != self._theme_kept:
            self._theme_kept = theme.name
            self.run_worker(self._keep_theme(theme.name))

    async def _keep_theme(self, name: str) -> None:
        change = partial(save_ui, config_file(), "theme", name)
        error = await (written(change) if self.talk is None else self._chat.write(change))
        if error is not None and not self._warned:
            self._warned = True
            said = f"the theme is not kept: {error}"
            if self.talk is None:
                self._notes = (*self._notes, said)  # the chat will say it
            else:
                self._chat.note(said, "warning")

    def get_default_screen(self) -> Screen[None]:
        """The chat, or the start screen, is there from the first frame."""
        return self._first

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Without a chat, what shows one cannot be done."""
        if self.talk is None and action in BY_ID and action not in _WITHOUT_CHAT:
            return False
        return super().check_action(action, parameters)

    def bell(self) -> None:
        """Ring, unless the configuration says no."""
        if self._rings:
            super().bell()

    async def action_quit(self) -> None:
        """Leave; the engine is stopped once the terminal is the user's again."""
        self.exit(Outcome())

    async def action_help(self) -> None:
        """Keys, commands, settings; again, and they are gone."""
        if isinstance(self.screen, HelpScreen):
            self.screen.dismiss()
        else:
            await self._uncover(CommandPalette)
            await self.push_screen(HelpScreen(self._place()))

    def _place(self) -> Scope | None:
        """Where the user is: the innermost widget around the focus that has keys of its own says it."""
        widget = self.screen.focused or self.screen
        places = (getattr(node, "PLACE", None) for node in widget.ancestors_with_self)
        return next((place for place in places if place is not None), None)

    def action_change_theme(self, name: str = "") -> None:
        """The colours of that name, else a list to choose from. Raises UserError for an unknown one."""
        if not name:
            super().action_change_theme()
        elif name in self.available_themes:
            self.theme = name
        else:
            close = difflib.get_close_matches(name, self.available_themes, 1)
            known = f"did you mean {close[0]}?" if close else "/theme alone lists them"
            raise UserError(f"/theme {name}: there is no such theme; {known}")

    async def action_gauges(self) -> None:
        """The full page of gauges; again, and it is gone."""
        await self._toggle(GaugesScreen, self._chat.gauges_page)

    async def action_map(self) -> None:
        """The memory map; again, and it is gone."""
        await self._toggle(MapScreen, self._chat.map_page)

    async def action_log(self) -> None:
        """The end of the log; again, and it is gone."""
        await self._toggle(LogScreen, lambda: LogScreen(log_path()))

    async def _toggle(self, kind: type[Screen[None]], make: Callable[[], Screen[None]]) -> None:
        """Close the page of this kind if it shows; else open it, in the place of another page."""
        await self._uncover(CommandPalette, HelpScreen)
        if isinstance(self.screen, kind):
            self.screen.dismiss(None)
        elif isinstance(self.screen, (GaugesScreen, LogScreen, MapScreen)):
            await self.switch_screen(make())
        elif not any(isinstance(screen, kind) for screen in self.screen_stack):
            await self.push_screen(make())

    async def _uncover(self, *kinds: type[Screen[Any]]) -> None:
        """Close what lies on top and is of these kinds; a second palette below one would end the app."""
        while isinstance(self.screen, kinds):
            await self.pop_screen()

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette: every action that has a slash command and what it needs."""
        if self.talk is None:
            for id in _WITHOUT_CHAT[1:]:
                yield SystemCommand(BY_ID[id].title, BY_ID[id].help, partial(self.run_action, id))
            return
        for action in ACTIONS:
            if action.slash and (action.enabled is None or self._chat.has(action.enabled)):
                keys = ", ".join(key_name(key) for key in keys_of(action))
                help = f"{keys} · {action.help}" if keys else action.help
                yield SystemCommand(action.title, help, partial(self._chat.action_perform, action.id))


def show(talk: Talk, *, config: Config | None = None, ascii: bool = False, mouse: bool = True) -> Outcome:
    """Show a chat until the user leaves or the load fails for good; then the terminal is as before.

    `config` is what the user's file says of keys and theme; `ascii` has everything drawn in ASCII, and
    without `mouse` the terminal keeps that to itself. The engine is told to end but not waited for: closing
    it is for whoever made it.
    """
    return _run(LlamaApp(talk, config=config, ascii=ascii), mouse=mouse)


def choose(
    open_chosen: OpenChosen,
    *,
    history: History | None,
    typed: Sequence[str],
    config: Config,
    ascii: bool,
    mouse: bool,
) -> Outcome:
    """The same, begun with the start screen: `open_chosen` makes a chat of what is chosen there.

    `typed` is what was given on the command line, which stays in force.
    """
    start = StartScreen(open_chosen, history=history, typed=typed)
    return _run(LlamaApp(start, config=config, ascii=ascii), mouse=mouse)


def _run(app: LlamaApp, *, mouse: bool) -> Outcome:
    with guarded(), kept(sys.__stdout__):
        log.info("llama-tui %s", version("llama-tui"))
        try:
            outcome = app.run(mouse=mouse)
        finally:
            if app.talk is not None:
                app.talk.session.backend.submit(Shutdown())
    if app.return_code:
        return Outcome(1, f"the interface failed; what it said is in {log_path()}")
    outcome, talk = outcome or Outcome(), app.talk
    if outcome.exit_code or talk is None or talk.history is None or talk.session.chat is None:
        return outcome
    return replace(outcome, command=resume_command(talk.session.chat, talk.session.title))
