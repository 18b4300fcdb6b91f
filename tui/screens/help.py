"""F1: keys, commands and settings, from the tables that make them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen

from core.presets import PURPOSES
from tui.commands import Scope
from tui.key_tables import PLACES, rows
from tui.keys import key_word, keys_of
from tui.settings import LIVE, PLACEMENT
from tui.widgets.plain import PlainStatic

_KEYS, _LEFT = 18, 34  # cells for the keys, and for keys and command
_STACKED = 70  # below this width the explanation goes under them


def _entries(here: Scope | None) -> Iterator[tuple[str, str]]:
    """What to press or type, and what it does, first `here`; a heading has nothing to press."""
    if here is not None:
        yield "", PLACES[here]
        for keys, slash, text in rows(keys_of, here):
            yield f"{keys:{_KEYS}}{slash}", text
    yield "", "Keys and commands" if here is None else "All keys and commands"
    for keys, slash, text in rows(keys_of):
        yield f"{keys:{_KEYS}}{slash}", text
    yield "", f"Presets of sampling settings ({key_word('preset')} takes the next, /preset NAME one of them)"
    for name, purpose in PURPOSES.items():
        yield f"{'':{_KEYS}}{name}", purpose
    yield "", f"Settings, as commands or in the sidebar ({key_word('settings')}); * is a changed one"
    for param in LIVE + PLACEMENT:
        yield f"{'':{_KEYS}}/{param.key}", f"{param.help} Default: {param.format(param.default)}."


class HelpText(PlainStatic):
    """The help in the width there is."""

    COMPONENT_CLASSES = {"help--key", "help--heading"}

    def __init__(self, here: Scope | None) -> None:
        super().__init__()
        self._here = here

    def on_resize(self, event: events.Resize) -> None:
        """Wrap anew."""
        self.update(Content("\n").join(self._lines(event.size.width)))

    def _lines(self, width: int) -> Iterator[Content]:
        key, heading = self.get_visual_style("help--key"), self.get_visual_style("help--heading")
        stacked = width < _STACKED
        indent = 2 if stacked else _LEFT
        for number, (left, text) in enumerate(_entries(self._here)):
            if not left:
                yield Content.styled(f"\n{text}\n" if number else f"{text}\n", heading)
                continue
            wrapped = textwrap.wrap(text, max(20, width - indent))
            if stacked:
                yield Content.styled(" ".join(left.split()), key)
            else:
                yield Content.assemble((f"{left:{_LEFT}}", key), wrapped.pop(0))
            for line in wrapped:
                yield Content(" " * indent + line)


class HelpScreen(ModalScreen[None]):
    """Scrolls with the arrows; Esc, F1 or q closes. What is pressed at the place `here` comes first."""

    def __init__(self, here: Scope | None = None) -> None:
        super().__init__()
        self._here = here

    def compose(self) -> ComposeResult:
        """The text and how to leave it."""
        with Vertical(id="help"):
            with VerticalScroll(id="help-rows"):
                yield HelpText(self._here)
            yield PlainStatic("Esc closes · PgUp PgDn scroll", id="help-keys")

    def on_mount(self) -> None:
        """The arrows scroll at once."""
        self.query_one("#help-rows").focus()

    def on_key(self, event: events.Key) -> None:
        """Close."""
        if event.key in ("escape", "q"):
            event.stop()
            self.dismiss(None)
