"""Work-arounds for Textual 8.2.8, in one place: each with its reason and when it can go.

Import this module before anything of Textual: it sets what Textual reads while it is imported.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

# Repaints compete with decoding for the interpreter and, without a GPU, for the cores: 60 frames a
# second and animations cost tokens. A user who sets these variables keeps what he set.
os.environ.setdefault("TEXTUAL_FPS", "20")
os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")

# With NO_COLOR, Textual turns its RGB themes into shades of grey, which are colour codes still; only an
# ANSI theme that is there from the first moment comes out without any. Consoles with few colours show
# RGB themes as mud.
if "NO_COLOR" in os.environ or os.environ.get("TERM") in ("linux", "vt100", "vt220", "ansi"):
    os.environ.setdefault("TEXTUAL_THEME", "ansi-dark")

from textual.app import App
from textual.geometry import Offset
from textual.message_pump import MessagePump
from textual.screen import Screen
from textual.timer import Timer
from textual.widget import Widget


class SafeClicks(Screen[None]):
    """A screen on which a click cannot land in a widget that has just been removed.

    Textual takes the parent of the widget under the mouse as the container of a text selection; one
    that was removed since the last layout has none, and the app ends in an AttributeError
    (Textual #6643). Can go when a click into a widget removed in the same frame is harmless.

    And one that is not painted while another covers it. Textual takes the screen right below the top as seen
    in any case, lays it out, and repaints on the top what has changed below: a reply that grows behind a page
    cost a fifth of the speed. Can go when `App._background_screens` ends with the first opaque screen.
    """

    @property
    def is_current(self) -> bool:
        """Whether anybody sees it: pages have the whole terminal, dialogs show what is below them."""
        stack = self.app.screen_stack
        if self not in stack:
            return False
        return all(screen.is_modal for screen in stack[stack.index(self) + 1 :])

    def get_widget_and_offset_at(self, x: int, y: int) -> tuple[Widget | None, Offset | None]:
        """As Textual's, but nothing where the widget has left the tree."""
        widget, offset = super().get_widget_and_offset_at(x, y)
        if widget is None or not widget.is_attached:
            return None, None
        return widget, offset


def freeze_garbage() -> None:
    """Take what lives by now out of the cyclic collector's sight.

    Importing torch leaves hundreds of thousands of objects; a full collection walks them all with the
    interpreter locked, which the reader sees as a stutter and the engine as lost tokens.
    """
    gc.freeze()


def write_sequence(app: App[Any], sequence: str) -> None:
    """Send an escape sequence to the terminal, between two frames; nothing without a terminal.

    As Textual's own bell and clipboard do it. Can go when there is a way to set the terminal's title.
    """
    if not app.is_headless and app._driver is not None:
        app._driver.write(sequence)


def later(owner: MessagePump, seconds: float, action: Callable[[], None]) -> Timer:
    """A timer that goes off once, for certain.

    Textual's leaves out every tick that it finds too late when it begins to wait for it, the only one too:
    what waits for a timer of a few milliseconds on a busy machine may wait for ever. Can go when a timer
    without repetition is never left out.
    """
    timer = owner.set_timer(seconds, action)
    timer._skip = False
    return timer


def paint_now(screen: Screen[Any], *widgets: Widget) -> None:
    """Paint what has changed in `widgets`, without waiting for the next frame.

    After a frame Textual waits for one to two of its periods until the next one, at our rate up to 100 ms:
    what a key brings about in two steps, such as a letter and what it finds, would come late. Can go when a
    frame that comes after a longer pause is painted at once, and the next one after one period.
    """
    for widget in widgets:
        widget._check_refresh()  # tells the screen, which paints when it has heard of all
    screen.call_later(screen._on_timer_update)
