"""A row of the sidebar: the keys that all rows take, and a value that is typed."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.message import Message
from textual.widget import Widget

from tui.commands import Scope, bindings
from tui.keys import action_of


class SidebarRow(Widget, can_focus=True):
    """One line that the cursor can be on. What a key does to what it shows, others decide.

    While a value is typed, `typed` holds what is there so far. `KEYS` are the actions worth showing in the
    key bar, in groups that share a word.
    """

    PLACE: ClassVar[Scope] = "settings"
    BINDINGS = bindings(PLACE)
    KEYS: ClassVar[tuple[tuple[str, ...], ...]]

    class Stepped(Message):
        """The user asked for so many steps up or down."""

        def __init__(self, row: SidebarRow, steps: int) -> None:
            super().__init__()
            self.row, self.steps = row, steps

    class Entered(Message):
        """The user typed a value."""

        def __init__(self, row: SidebarRow, text: str) -> None:
            super().__init__()
            self.row, self.text = row, text

    class Cleared(Message):
        """The user asked for the default."""

        def __init__(self, row: SidebarRow) -> None:
            super().__init__()
            self.row = row

    class Opened(Message):
        """The user wants to edit a text that has no room in a row."""

        def __init__(self, row: SidebarRow) -> None:
            super().__init__()
            self.row = row

    class Focused(Message):
        """The cursor came to this row, or moved within it."""

        def __init__(self, row: SidebarRow) -> None:
            super().__init__()
            self.row = row

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.typed: str | None = None

    @property
    def explanation(self) -> str:
        """What the row is for, shown while the cursor is on it."""
        raise NotImplementedError

    @property
    def takes_text(self) -> bool:
        """True where a value can be typed into the row."""
        return True

    def sync(self) -> None:
        """Show the present value."""
        self.refresh()

    # --- keys -----------------------------------------------------------------------------------

    def action_perform(self, id: str) -> None:
        """One of the settings' keys."""
        getattr(self, f"action_{id}")()

    def action_field_up(self) -> None:
        """To the row above."""
        self.cancel()
        self.screen.focus_previous(SidebarRow)

    def action_field_down(self) -> None:
        """To the row below."""
        self.cancel()
        self.screen.focus_next(SidebarRow)

    def action_less(self) -> None:
        """One step down."""
        self._step(-1)

    def action_more(self) -> None:
        """One step up."""
        self._step(1)

    def action_much_less(self) -> None:
        """Ten steps down."""
        self._step(-10)

    def action_much_more(self) -> None:
        """Ten steps up."""
        self._step(10)

    def action_turn(self) -> None:
        """Turn what is under the cursor; most rows have nothing to turn."""

    def action_type(self) -> None:
        """Begin to type a value, or take what was typed."""
        if not self.takes_text:
            self.post_message(self.Opened(self))
        elif self.typed is None:
            self._type("")
        else:
            text = self.typed
            self.cancel()
            if text:
                self.post_message(self.Entered(self, text))

    def action_default(self) -> None:
        """The default; while typing, the last character goes."""
        if self.typed is None:
            self.post_message(self.Cleared(self))
        else:
            self._type(self.typed[:-1])

    def cancel(self) -> None:
        """Forget what was typed."""
        if self.typed is not None:
            self.typed = None
            self.refresh()

    def _step(self, steps: int) -> None:
        self.cancel()
        self.post_message(self.Stepped(self, steps))

    def _type(self, text: str) -> None:
        self.typed = text
        self.refresh()

    def on_key(self, event: events.Key) -> None:
        """The settings' keys, in the order in which they were pressed; all else goes into the value.

        As bindings they would mean what they mean to whoever has the focus by the time they are looked up:
        an Enter here, with Ctrl+T right behind it, would send an empty message.
        """
        action = action_of("settings", event.key)
        if action is not None:
            event.stop()
            event.prevent_default()
            self.action_perform(action.id)
            return
        character = event.character
        if character is None or not event.is_printable or not self.takes_text:
            return
        if self.typed is not None or character.isdigit() or character in ".-":
            event.stop()
            self._type((self.typed or "") + character)

    def on_focus(self) -> None:
        """Tell the sidebar which help to show."""
        self.post_message(self.Focused(self))

    def on_blur(self) -> None:
        """Whoever leaves in the middle of a number did not mean it."""
        self.cancel()
