"""What holds of every screen at every size, whatever it shows."""

from __future__ import annotations

import re
from collections.abc import Collection

from textual.geometry import Region
from textual.screen import Screen
from textual.widget import Widget

_NUMBER = r"[\d.,]*\d"
_EDGE = re.compile(rf"({_NUMBER})[ ▁▂▃▄▅▆▇▌▐▎▊]*$")
_BORDERS = re.compile(r"[│╭╮╰╯─▏▔]+")


def shows(text: str, figure: str) -> bool:
    """Whether a figure is in `text` whole: no digit, point or ellipsis goes on with it at either end."""
    return re.search(rf"(?<![\d.,]){re.escape(figure)}(?![\d…]|[.,/]\d)", text) is not None


def clipped_numbers(text: str, whole: Collection[str]) -> list[str]:
    """Where an ellipsis cuts a number, or one that is not among the `whole` ones ends at an edge."""
    found = re.findall(r"\S*\d…|…\d\S*", text)
    for line in text.splitlines():
        for part in _BORDERS.split(line):
            edge = _EDGE.search(part)
            if edge and edge[1] not in whole:
                found.append(part)
    return found


def in_front(screen: Screen[object]) -> str:
    """The text without what a dialog covers partly."""
    region = screen.children[0].region if screen.is_modal else screen.region
    strips = screen._compositor.render_strips()[region.y : region.bottom]
    return "\n".join(strip.crop(region.x, region.right).text for strip in strips)


def outside(screen: Screen[object]) -> list[str]:
    """Widgets that reach over the edge of the screen, or of what they are in unless that scrolls."""
    found = []
    for widget in screen.query(Widget):
        if not widget.display or not widget.region or not _is_shown(widget):
            continue
        if not _frame(widget).contains_region(widget.region):
            found.append(f"{widget} {widget.region}")
    return found


def _is_shown(widget: Widget) -> bool:
    return all(node.display for node in widget.ancestors if isinstance(node, Widget))


def _frame(widget: Widget) -> Region:
    """Where a widget has to stay: no limit in the direction in which something around it scrolls."""
    x, y, width, height = widget.screen.region
    for node in widget.ancestors:
        if isinstance(node, Widget) and node.is_scrollable and node.allow_vertical_scroll:
            y, height = -10_000, 100_000
    return Region(x, y, width, height)
