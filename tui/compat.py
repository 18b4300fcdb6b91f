"""Work-arounds for Textual 8.2.8, in one place: each with its reason and when it can go.

Import this module before anything of Textual: it sets what Textual reads while it is imported.
"""

from __future__ import annotations

import gc
import os
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

from textual.geometry import Offset
from textual.screen import Screen
from textual.widget import Widget


class SafeClicks(Screen[None]):
    """A screen on which a click cannot land in a widget that has just been removed.

    Textual takes the parent of the widget under the mouse as the container of a text selection; one
    that was removed since the last layout has none, and the app ends in an AttributeError
    (Textual #6643). Can go when a click into a widget removed in the same frame is harmless.
    """

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


def paint_now(screen: Screen[Any], *widgets: Widget) -> None:
    """Paint what has changed in `widgets`, without waiting for the next frame.

    After a frame Textual waits for one to two of its periods until the next one, at our rate up to 100 ms:
    what a key brings about in two steps, such as a letter and what it finds, would come late. Can go when a
    frame that comes after a longer pause is painted at once, and the next one after one period.
    """
    for widget in widgets:
        widget._check_refresh()  # tells the screen, which paints when it has heard of all
    screen.call_later(screen._on_timer_update)
