"""Work-arounds for Textual 8.2.8, in one place: each with its reason and when it can go.

Import this module before anything of Textual: it sets what Textual reads while it is imported.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
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

from textual import events
from textual._compositor import ChopsUpdate, Compositor
from textual._xterm_parser import BRACKETED_PASTE_END, BRACKETED_PASTE_START, XTermParser
from textual.app import App
from textual.await_complete import AwaitComplete
from textual.geometry import Offset, Region
from textual.message import Message
from textual.message_pump import MessagePump
from textual.screen import Screen
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import OptionList


class NarrowCompositor(Compositor):
    """A compositor that renders what has changed, and no more.

    Textual renders every widget within the smallest rectangle around all changes of a frame, from top to
    bottom: where a reply grows below gauges that move, that is the whole screen, and half of the interface's
    time. Can go when `Compositor.render_partial_update` leaves out what no change touches.
    """

    _changed: tuple[Region, ...] = ()

    def render_partial_update(self) -> ChopsUpdate | None:
        """As Textual's, but only what touches a change is rendered for it."""
        self._changed = tuple(self._dirty_regions)
        try:
            return super().render_partial_update()
        finally:
            self._changed = ()

    def _get_renders(self, crop: Region | None = None) -> Iterable[tuple[Region, Region, list[Strip]]]:
        if not self._changed:
            yield from super()._get_renders(crop)
            return
        for widget, (region, clip) in self.visible_widgets.items():
            shown = region.intersection(clip)
            changes = [change for change in self._changed if change.overlaps(shown)]
            if changes:
                top = max(shown.y, min(change.y for change in changes))
                bottom = min(shown.bottom, max(change.bottom for change in changes))
                part = Region(shown.x, top, shown.width, bottom - top)
                yield region, part, widget.render_lines(part.translate(-region.offset))


class SafeClicks(Screen[None]):
    """A screen on which a click cannot land in a widget that has just been removed.

    Textual takes the parent of the widget under the mouse as the container of a text selection; one
    that was removed since the last layout has none, and the app ends in an AttributeError
    (Textual #6643). Can go when a click into a widget removed in the same frame is harmless.

    And one that is not painted while another covers it. Textual takes the screen right below the top as seen
    in any case, lays it out, and repaints on the top what has changed below: a reply that grows behind a page
    cost a fifth of the speed. Can go when `App._background_screens` ends with the first opaque screen.
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._compositor = NarrowCompositor()

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


class SafePastes(XTermParser):
    """A reader of the terminal's input for which a paste is text, whatever is in it.

    Textual takes what follows an escape character in a paste as keys: who pastes a text with one sends it,
    or quits. Terminals that leave such characters in are few. Can go when Textual reads up to the mark that
    ends a paste.
    """

    _pasting = False
    _rest = ""  # of what came last: the beginning of a mark, perhaps

    def feed(self, data: str) -> Iterable[Message]:
        """As Textual's, without escape characters in pastes."""
        harmless = self._harmless(data)
        return super().feed(harmless) if harmless or not data else ()

    def _harmless(self, data: str) -> str:
        passed, seen = "", 0 if self._pasting else len(self._rest)  # of which keys are passed on at once
        data, self._rest = self._rest + data, ""
        while data:
            mark = BRACKETED_PASTE_END if self._pasting else BRACKETED_PASTE_START
            text, found, after = data.partition(mark)
            if not found:
                self._rest = text[len(text) - _overlap(text, mark) :]
                if self._pasting:
                    text = text.removesuffix(self._rest)
            passed += text.replace("\x1b", "") + found if self._pasting else (text + found)[seen:]
            if found:
                self._pasting = not self._pasting
            data, seen = after, 0
        return passed


def _overlap(text: str, mark: str) -> int:
    """How many characters at the end of `text` may be the beginning of `mark`."""
    return next((count for count in range(len(mark) - 1, 0, -1) if text.endswith(mark[:count])), 0)


if sys.platform != "win32":
    from textual.drivers import linux_driver

    linux_driver.XTermParser = SafePastes  # type: ignore[attr-defined]


_dismiss, _clicked, _paged = Screen.dismiss, OptionList._on_click, OptionList._move_page


def _dismiss_once(screen: Screen[Any], result: Any = None) -> AwaitComplete:
    """Close a screen that is there and on top.

    Textual closes whatever is on top: a second Esc, pressed before the first one has closed a dialog, would
    close what is below too, or end the app; and one that comes before the dialog is mounted leaves it to
    look for widgets that are gone. Can go when `Screen.dismiss` closes its own screen only.
    """
    if screen.app.screen is not screen:
        return AwaitComplete()
    if not screen.is_mounted:
        screen.call_later(screen.dismiss, result)
        return AwaitComplete()
    return _dismiss(screen, result)


async def _click_option(options: OptionList, event: events.Click) -> None:
    """As Textual's, but for an option that has left the list since it was painted (an IndexError)."""
    option = event.style.meta.get("option")
    if option is None or option < options.option_count:
        await _clicked(options, event)


def _refresh_styles(app: App[Any], animate: bool = True) -> None:
    """New colours in two steps, between which the app can do something else.

    Textual takes them in one, which is more than a tenth of a second. Can go when that is much less.
    """
    app.stylesheet.set_variables(app.get_css_variables())
    app.stylesheet.reparse()
    later(app, 0.001, partial(_apply_styles, app, animate))


def _apply_styles(app: App[Any], animate: bool) -> None:
    screens = app.screen_stack
    app.stylesheet.update(app, animate=animate)
    if screens and app.screen.is_mounted:
        app.screen._refresh_layout(app.size)
    for screen in screens:
        if screen is not app.screen:
            app.stylesheet.update(screen, animate=animate)
        screen._css_update_count = app._css_update_count


def _page_options(options: OptionList, direction: Any) -> None:
    """As Textual's, but for a list that has no room (a KeyError). Both can go when Textual looks first."""
    if options._index_to_line:
        _paged(options, direction)


Screen.dismiss = _dismiss_once  # type: ignore[assignment, method-assign]
App.refresh_css = _refresh_styles  # type: ignore[assignment, method-assign]
OptionList._on_click = _click_option  # type: ignore[assignment, method-assign]
OptionList._move_page = _page_options  # type: ignore[assignment, method-assign]


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
