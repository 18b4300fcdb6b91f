"""One line that says what is going on, and for a moment what just happened."""

from __future__ import annotations

from typing import Literal

from textual.timer import Timer

from tui.widgets.plain_line import PlainLine

Level = Literal["info", "warning", "error"]

_FLASH_S = 5.0


class StatusLine(PlainLine):
    """Shows a state; a flash covers it for a few seconds."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._state = ""
        self._flashing: Timer | None = None

    def state(self, text: str, *, busy: bool) -> None:
        """What is going on from now on. `busy` marks it as something that runs."""
        self._state = f"● {text}" if busy else f"○ {text}"
        self.set_class(busy and self._flashing is None, "-busy")
        if self._flashing is None:
            self.show(self._state)

    def flash(self, text: str, level: Level = "info") -> None:
        """Show `text` for a few seconds."""
        if self._flashing is not None:
            self._flashing.stop()
        self._flashing = self.set_timer(_FLASH_S, self.end_flash)
        self.set_class(level == "info", "-info")
        self.set_class(level == "warning", "-warning")
        self.set_class(level == "error", "-error")
        self.show(f"  {text}")

    def end_flash(self) -> None:
        """Show the state again: the user did something that changes it."""
        if self._flashing is not None:
            self._flashing.stop()
        self._flashing = None
        self.remove_class("-info", "-warning", "-error")
        self.set_class(self._state.startswith("●"), "-busy")
        self.show(self._state)
