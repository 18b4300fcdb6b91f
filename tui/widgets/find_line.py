"""The line in which the chat is searched."""

from __future__ import annotations

from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input

from tui.commands import Scope
from tui.keys import action_of
from tui.widgets.plain import PlainStatic


class FindLine(Horizontal):
    """Words to find, and how many of them there are. Its keys go from find to find."""

    PLACE: ClassVar[Scope] = "find"

    class Typed(Message):
        """Other words are in the line."""

    def compose(self) -> ComposeResult:
        """What this is, the words, the finds."""
        yield PlainStatic("find ", id="find-sign")
        words = Input(id="find-words", compact=True)
        words.cursor_blink = False  # a blinking cursor repaints twice a second for ever
        yield words
        yield PlainStatic(id="find-count")

    @property
    def input(self) -> Input:
        """Where the words are typed."""
        return self.query_one("#find-words", Input)

    def show(self, at: int, count: int) -> None:
        """Say which find is shown, counted from 1, and how many there are."""
        label = self.query_one("#find-count", PlainStatic)
        nothing = bool(self.input.value) and not count
        label.set_class(nothing, "-none")
        label.show("nothing found" if nothing else f"{at} of {count}" if count else "")

    async def on_key(self, event: events.Key) -> None:
        """Do what a key says, after the letters that were typed before it."""
        action = action_of("find", event.key)
        if action is not None:
            event.stop()
            await self.screen.run_action(f"perform('{action.id}')")

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Typed())
