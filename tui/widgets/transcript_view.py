"""The view of a transcript: one scrolling column, cheap enough to grow while the model computes.

Textual's Markdown mounts a widget per block; this draws rows from a model of wrapped lines (Textual's
line API), so that new text costs the rows it changes, whatever came before it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import Any, ClassVar

from rich.style import Style
from textual.filter import LineFilter
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.selection import Selection
from textual.strip import Strip
from textual.timer import Timer

from tui.compat import later
from tui.glyphs import drawn, literal
from tui.markdown.document import Anchor, Document
from tui.markdown.lines import Row
from tui.markdown.pacer import Pacer
from tui.markdown.pieces import Frame
from tui.markdown.render import warm_up
from tui.markdown.selection import selected_text
from tui.markdown.strips import Overlay, Painter

NEAR = 3
"""Screens above and below the view that are kept laid out."""
MIN_WAIT = 0.001
"""Seconds; Textual's timers cannot be shorter."""

_STYLES = (
    *("body", "user-label", "assistant-label", "footer", "note", "warning", "error"),
    *("fold", "aside", "aside-bar", "mark", "found", "found-now"),
    *("heading", "heading-1", "strong", "em", "strike", "link", "url", "bullet", "rule", "table-head"),
    *("quote", "quote-bar", "inline-code", "code", "code-keyword", "code-string", "code-comment"),
    *("code-number", "code-function", "code-operator"),
)


class TranscriptView(ScrollView, can_focus=True):
    """Rows of a document, and where the view of them is.

    While it *follows*, its end stays in view; scrolling away from the end stops that, coming back to
    it starts it again. Text is drawn as text: nothing in it is markup, a link or an escape sequence.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"transcript--{name}" for name in _STYLES}

    @dataclass
    class FollowChanged(Message, namespace="transcript"):
        """The transcript started or stopped to follow its end."""

        following: bool

    def __init__(
        self,
        *,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
        pacer: Pacer | None = None,
    ) -> None:
        super().__init__(name=name, id=id, classes=classes)
        self._document = Document()
        self._following = True
        self._placing = False
        self._pacer = pacer or Pacer()
        self._timer: Timer | None = None
        self._settling = False
        self._selection: Selection | None = None
        self._view: list[tuple[Row, int]] = []  # the rows in view and the numbers of their lines
        self._thumb = (0, 0)  # start and length of the scroll bar's thumb in eighths of a cell
        self._painter = Painter(self._resolve)

    # Where the view is.

    @property
    def following(self) -> bool:
        """Whether the end stays in view when text is added."""
        return self._following

    def follow(self) -> None:
        """Goes to the end and stays there."""
        self._set_following(True)
        self._settle()

    def _set_following(self, following: bool) -> None:
        if following != self._following:
            self._following = following
            if not following and self._document.sections:
                self._document.sections[-1].keep_reasoning()
            self.post_message(self.FollowChanged(following))

    def _settle(self, anchor: Anchor | None = None, above: int = 0) -> None:
        """Brings the view up to date: lays out what is near, keeps what is shown in its place, repaints.

        The view shows the end if it follows, else what it shows now, or `anchor` if there is one, with
        so many rows `above` it.
        """
        self._settling = False
        width, height = self.scrollable_content_region.size
        if not width or not height:
            return
        document, margin = self._document, NEAR * height
        if self._following:
            anchor = document.end
        elif anchor is None:
            anchor = document.anchor(self.scroll_offset.y)
        document.reframe(self._frame(width))
        while True:
            top = max(0, min(document.height - height, document.row_of(anchor) - above))
            if not document.measure(top - margin, top + height + margin):
                break
        document.drop_far()
        self._place(Size(width, document.height), top)
        self._show(document.rows(top, height), width)

    def _bring(self, anchor: Anchor, rows: int = 1) -> None:
        """Brings so many rows from a place in the text into view, a third down, unless they are there."""
        height = self.scrollable_content_region.height
        row, top = self._document.row_of(anchor), self.scroll_offset.y
        if not top <= row <= top + height - min(rows, height):
            self._set_following(False)
            self._settle(anchor, above=min(height // 3, max(0, height - rows)))

    def _settle_at_end(self) -> None:
        """Settles, and follows the end if what was above it is now in view."""
        self._settle()
        if self.scroll_offset.y >= self.max_scroll_y:
            self._set_following(True)

    def _settle_soon(self) -> None:
        """Settles once after a burst of changes."""
        if not self._settling and self.is_running:
            self._settling = True
            self.call_later(self._settle)

    def _place(self, size: Size, top: int) -> None:
        """Sets the height of the whole and the row at the top of the view."""
        self._placing = True
        if size != self.virtual_size:
            shown = size.height > self.scrollable_content_region.height
            if shown == self.show_vertical_scrollbar:
                # A plain assignment would lay out the whole screen anew each time a row is added.
                self.set_reactive(TranscriptView.virtual_size, size)
            else:
                self.virtual_size = size
        if (self.scroll_y, self.scroll_target_y) != (top, top):
            self.scroll_to(y=top, force=True)
        if self.show_vertical_scrollbar and size.height:
            self._move_thumb(top, size.height)
        self._placing = False

    def _move_thumb(self, top: int, total: int) -> None:
        """Updates the scroll bar if that shows: repainting it costs twice as much as a tick without it."""
        height = self.scrollable_content_region.height
        unit = total / (8 * height)  # rows for an eighth of a cell, which is the finest it can show
        thumb = round(top / unit), round(height / unit)
        if thumb != self._thumb:
            self._thumb = thumb
            self.vertical_scrollbar.window_virtual_size = total
            self.vertical_scrollbar.position = top

    def _show(self, view: list[tuple[Row, int]], width: int) -> None:
        """Repaints the lines of the view whose rows are others than before."""
        old, self._view = self._view, view
        changed = [y for y, (a, b) in enumerate(zip_longest(old, view)) if a != b]
        if changed:
            self.refresh(Region(0, changed[0], width, changed[-1] - changed[0] + 1))

    # Ticks.

    def _schedule_tick(self) -> None:
        if self._timer is None and self.is_running and self.screen.is_current:
            self._timer = later(self, max(MIN_WAIT, self._pacer.wait()), self._tick)

    def _tick(self) -> None:
        """Paints the text that came since the last tick, unless that is too short ago."""
        self._timer = None
        if self._pacer.wait() > 0:
            self._schedule_tick()
            return
        self._pacer.begin()
        self._settle()
        self._pacer.end()
        self.call_after_refresh(self._pacer.end)

    def catch_up(self) -> None:
        """Paints what came while another screen was to be seen."""
        self._settle()

    # What Textual asks for.

    def on_mount(self) -> None:
        """Prepares what the first reply needs, where it does not delay the first paint."""
        self._painter.drawn = partial(drawn, self.app.get_line_filters())
        self.call_after_refresh(threading.Thread(target=warm_up, daemon=True).start)

    def on_resize(self) -> None:
        """Wraps anew for the new width."""
        self._settle_at_end()

    def watch_scroll_target_y(self, _old: float, new: float) -> None:
        """Follows the end only if the user scrolled there."""
        if not self._placing:
            self._set_following(new >= self.max_scroll_y)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Shows what comes into view; unlike in other scroll views, only lines that change are repainted."""
        if not self._placing and round(old_value) != round(new_value):
            self._settle()

    def watch_show_vertical_scrollbar(self) -> None:
        """Sets up the scroll bar once it is there."""
        self._thumb = (0, 0)
        self._settle_soon()

    def scroll_to(self, *args: Any, **kwargs: Any) -> None:
        """Scrolls at once: each step of an animation would cost as much as a tick."""
        super().scroll_to(*args, **{**kwargs, "animate": False})

    def action_scroll_end(self) -> None:
        """Goes to the end and follows it."""
        self.follow()

    def notify_style_update(self) -> None:
        """Draws everything anew in the new styles."""
        super().notify_style_update()
        self._painter.forget()
        self._settle_soon()

    def selection_updated(self, selection: Selection | None) -> None:
        """Marks what is selected."""
        self._selection = selection
        self.refresh()

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The selected text and what ends it."""
        return selected_text(self._document, selection), "\n"

    def get_line_filters(self) -> Sequence[LineFilter]:
        """What others wrote is drawn as it is, whatever becomes of our own characters."""
        return literal(super().get_line_filters())

    def render_lines(self, crop: Region) -> list[Strip]:
        """The lines of the view in `crop`.

        Textual's own way makes three strips of each line whenever the view moves, which costs more
        than all the rest; strips that stay the same keep their escape sequences too.
        """
        if any(self.styles.gutter) or self.styles.tint.a or self.opacity != 1:
            return super().render_lines(crop)
        filters, background = self.get_line_filters(), self.background_colors[1]
        strips = []
        for y in crop.line_range:
            strip = self.render_line(y)
            for line_filter in filters:
                strip = strip.apply_filter(line_filter, background)
            strips.append(strip if crop.width == strip.cell_length else strip.crop(*crop.column_span))
        return strips

    def render_line(self, y: int) -> Strip:
        """Line `y` of the view."""
        width = self.size.width
        if y >= len(self._view):
            return self._painter.blank(width)
        row, number = self._view[y]
        overlays, marked = self._overlays(row, number), self._is_marked(row, number)
        if overlays or marked:
            return self._painter.draw_over(row, number, width, overlays, marked=marked)
        return self._painter.draw(row, number, width)

    def _overlays(self, row: Row, number: int) -> Sequence[Overlay]:
        """What is drawn on top of a row of line `number`: what is selected of it."""
        span = None if self._selection is None else self._selection.get_span(number)
        if span is None:
            return ()
        highlight = self.screen.get_component_rich_style("screen--selection")
        return (Overlay(span[0], row.end if span[1] < 0 else span[1], highlight),)

    def _is_marked(self, row: Row, number: int) -> bool:
        """Whether there is a mark before a row of line `number`."""
        return False

    def _frame(self, width: int) -> Frame:
        indent = self.get_component_styles("transcript--body").padding.left
        return Frame(width, indent, self.get_component_styles("transcript--code").padding.left)

    def _resolve(self, names: tuple[str, ...]) -> Style:
        return self.get_visual_style(*(f"transcript--{name}" for name in names)).rich_style
