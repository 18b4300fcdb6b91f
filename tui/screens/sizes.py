"""The smallest terminal, and what is shown in a smaller one."""

from __future__ import annotations

from textual.geometry import Size
from textual.screen import Screen

from tui.widgets.plain import PlainStatic

_SMALLEST = Size(40, 12)


class TooSmall(PlainStatic):
    """Covers a screen that has no room: what `who` needs. `check` decides."""

    def __init__(self, who: str = "llama-tui") -> None:
        super().__init__(id="too-small")
        self._who = who

    def check(self, screen: Screen[None], size: Size) -> None:
        """Come up where `size` is too small, and go where it is not; `screen` has the class for it."""
        width, height = size
        screen.set_class(width < _SMALLEST.width or height < _SMALLEST.height, "-too-small")
        least = f"{_SMALLEST.width}x{_SMALLEST.height}"
        self.update(f"{width}x{height} is too small: {self._who} needs {least}")
