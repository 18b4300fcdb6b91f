"""What can be chosen on the start screen: models and conversations, or paths as they are typed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from textual.content import Content
from textual.css.styles import RulesMap
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, Visual
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from core.text.sanitize import one_line

_INDENT = 2
_LONGEST = 300  # characters of a text that are looked at


@dataclass(frozen=True, slots=True)
class StartRow:
    """A line of the list, and where there is more to say one below it.

    `short` is the detail where there is no room for all of it. `given` is what choosing it stands for, by the
    names of the command line; `path` what the field becomes instead, which `opens` a model or is a folder on
    the way to one. Of a long `below` the end is shown.
    """

    title: str
    detail: str = ""
    short: str = ""
    below: str = ""
    flags: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    path: str = ""
    opens: bool = False


class StartLine(Visual):
    """One row: title and detail; below, muted, a path of which the end matters, and flags."""

    def __init__(self, row: StartRow) -> None:
        self._row = row

    def render_strips(
        self, width: int, height: int | None, style: Style, options: RenderOptions
    ) -> list[Strip]:
        """One line or two."""
        lines = [self._line(width)]
        if self.get_height({}, width) == 2:
            lines.append(self._below(width))
        return [strip for line in lines for strip in line.render_strips(width, 1, style, options)]

    def get_optimal_width(self, rules: RulesMap, container_width: int) -> int:
        """All the width there is."""
        return container_width

    def get_height(self, rules: RulesMap, width: int) -> int:
        """One row or two."""
        return 2 if self._row.below or self._row.flags else 1

    def _line(self, width: int) -> Content:
        row, most = self._row, max(0, width // 2)
        detail = Content(one_line(row.detail, _LONGEST))
        if detail.cell_length > most and row.short:
            detail = Content(one_line(row.short, _LONGEST))
        detail = detail.truncate(most, ellipsis=True)
        room = max(0, width - detail.cell_length - 2)
        title = Content(one_line(row.title, _LONGEST)).truncate(room, ellipsis=True, pad=True)
        return Content.assemble(title, "  ", detail.stylize(".start--muted")).truncate(width)

    def _below(self, width: int) -> Content:
        room = max(0, width - _INDENT)
        flags = Content(one_line(self._row.flags, _LONGEST)).truncate(room, ellipsis=True)
        text = one_line(self._row.below, 10 * _LONGEST)
        left = room - flags.cell_length - (2 if self._row.flags and text else 0)
        path = Content(text)
        if path.cell_length > left:
            path = Content("…" + path.plain[-max(0, left - 1) :] if left > 1 else "").truncate(max(0, left))
        between = "  " if path.cell_length and flags.cell_length else ""
        line = Content.assemble(" " * _INDENT, path, between, flags)
        return line.stylize(".start--muted").truncate(width)


class StartList(OptionList, can_focus=False):
    """Rows with a cursor. The keyboard belongs to the path field, so the screen's keys move it."""

    COMPONENT_CLASSES = {"start--muted"}

    def __init__(self, id: str) -> None:
        super().__init__(id=id, markup=False, compact=True)
        self._rows: tuple[StartRow, ...] = ()

    @property
    def rows(self) -> tuple[StartRow, ...]:
        """What is in the list, from top to bottom."""
        return self._rows

    @property
    def row(self) -> StartRow | None:
        """The one under the cursor, None where that is nowhere."""
        return None if self.highlighted is None else self._rows[self.highlighted]

    def show(self, rows: Iterable[StartRow], *, cursor: int | None) -> None:
        """Show these in place of what was there."""
        self._rows = tuple(rows)
        self.set_options(Option(StartLine(row)) for row in self._rows)
        self.highlighted = cursor if self._rows else None
        self.scroll_to(y=0, animate=False, immediate=True)

    def move(self, rows: int) -> None:
        """Move the cursor by so many rows; it stops at both ends. From nowhere, to the first or last one."""
        if not self._rows:
            return
        at = self.highlighted
        if at is None:
            at = 0 if rows > 0 else len(self._rows) - 1
        else:
            at = max(0, min(len(self._rows) - 1, at + rows))
        self.highlighted = at

    @property
    def page(self) -> int:
        """How many rows a page is."""
        tall = any(row.below or row.flags for row in self._rows)
        return max(1, self.scrollable_content_region.height // (2 if tall else 1))
