"""One parameter in the sidebar: its label, its value, and where it lies in its range."""

from __future__ import annotations

from textual.content import Content
from textual.style import Style

from core.options import Param
from tui.settings import ACTS, Settings
from tui.widgets.bars import level
from tui.widgets.plain import plain
from tui.widgets.sidebar_row import SidebarRow

LABEL = 12  # cells
_VALUE = 6  # cells; the rest of the row is for the bar


class SettingRow(SidebarRow):
    """Shows a parameter."""

    COMPONENT_CLASSES = {"setting--value", "setting--mark", "setting--bar", "setting--typed"}
    KEYS = (("field_up", "field_down"), ("less", "more"), ("type",), ("default",))

    def __init__(self, param: Param, settings: Settings) -> None:
        super().__init__(id=f"set-{param.key}")
        self.param = param
        self._settings = settings
        self.sync()

    def sync(self) -> None:
        """Show the present value."""
        self.set_class(self._settings.inert_reason(self.param) is not None, "-inert")
        self.refresh()

    @property
    def takes_text(self) -> bool:
        """A text has no room here; it is edited in a dialog."""
        return self.param.kind != "text"

    @property
    def explanation(self) -> str:
        """When the parameter acts, or why it does not, what it does, and what it takes."""
        param = self.param
        effect = self._settings.inert_reason(param) or ACTS[param.acts]
        accepts = "" if param.kind in ("choice", "text") else f" Takes {param.range_text()}."
        return f"{effect[0].upper()}{effect[1:]}. {param.help}{accepts}"

    # --- looks ----------------------------------------------------------------------------------

    def render(self) -> Content:
        """The row in the width there is."""
        style, settings, param = self.get_visual_style, self._settings, self.param
        width = self.content_size.width
        label = param.label.ljust(LABEL - 1)
        mark = ("*" if settings.is_changed(param) else " ", style("setting--mark"))
        if self.typed is not None:
            return Content.assemble(label, mark, (f"{self.typed}▏", style("setting--typed")))
        shown = plain(settings.shown(param).replace("\n", " "))
        reason = settings.inert_reason(param)
        if reason is not None:
            room = width - LABEL - len(reason)
            value = f"{shown.plain:>{_VALUE}} " if room > _VALUE else ""
            return Content.assemble(label, mark, value, reason).truncate(width, ellipsis=True)
        if param.kind == "choice":
            return Content.assemble(label, mark, *self._choices(style("setting--value")))
        if param.kind == "text":
            line = Content.assemble(param.label, " ", mark, shown)
            return line.truncate(width, ellipsis=True)
        tail = width - LABEL - _VALUE - 3
        return Content.assemble(
            label,
            mark,
            (f"{shown.plain:>{_VALUE}}", style("setting--value")),
            " ",
            (self._bar(tail), style("setting--bar")),
        )

    def _choices(self, chosen: Style) -> list[str | tuple[str, Style]]:
        value = self._settings.values[self.param.key]
        parts: list[str | tuple[str, Style]] = []
        for choice in self.param.choices:
            text = self.param.format(choice)
            parts.append((f"[{text}]", chosen) if choice == value else f" {text} ")
        return parts

    def _bar(self, width: int) -> str:
        """Where the value lies; only for parameters whose whole range people use."""
        param, value = self.param, self._settings.values[self.param.key]
        bounded = param.kind == "float" and param.min is not None and param.max is not None
        if not bounded or not isinstance(value, (int, float)) or width < 4:
            return ""
        low, high = float(param.min or 0), float(param.max or 1)
        left, right = ("◂", "▸") if self.has_focus else (" ", " ")
        return left + level((value - low) / (high - low), width) + right
