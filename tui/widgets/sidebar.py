"""The settings at the right, made from the table of parameters, and the placement of the weights."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widget import Widget

from core.engine.events import ModelInfo
from core.sizes import format_size
from tui.figures import gigabytes
from tui.keys import key_word
from tui.placement import Placement
from tui.settings import FIXED, LIVE, Settings
from tui.widgets.placement_rows import PlacementRow
from tui.widgets.placement_section import PlacementSection, WhatIf
from tui.widgets.plain import PlainStatic, plain
from tui.widgets.setting_row import SettingRow
from tui.widgets.sidebar_row import SidebarRow


def _how() -> str:
    """What to do here, before the cursor is on anything."""
    less, more, type, default = (key_word(id) for id in ("less", "more", "type", "default"))
    return (
        f"{key_word('settings')} comes here. {less} and {more} change a value, {type} types one, {default} "
        "sets the default."
    )


class SidebarTitle(Widget):
    """What this is, and the preset in force with the key for the next one."""

    def __init__(self, settings: Settings, id: str) -> None:
        super().__init__(id=id)
        self._settings = settings

    def render(self) -> Content:
        """The preset at the right, as much of it as fits."""
        title, width = "SETTINGS", self.content_size.width
        preset, key = plain(f"preset: {self._settings.preset_words}"), f" {key_word('preset')}"
        preset = preset.truncate(max(0, width - len(title) - 1 - len(key)), ellipsis=True)
        gap = " " * (width - len(title) - preset.cell_length - len(key))
        return Content(title) + gap + preset + key


class SettingsScroll(VerticalScroll, can_focus=False):
    """The rows; scrolled by moving the cursor over them."""


class Sidebar(Vertical):
    """A row for every live parameter, the placement, what is fixed at load, and help for the row under the
    cursor.
    """

    def __init__(self, settings: Settings, placement: Placement, id: str) -> None:
        super().__init__(id=id)
        self._settings, self._placement = settings, placement
        self._model: ModelInfo | None = None

    def compose(self) -> ComposeResult:
        """Title, rows, placement, fixed values, help."""
        yield SidebarTitle(self._settings, id="sidebar-title")
        with SettingsScroll(id="sidebar-rows"):
            for param in LIVE:
                yield SettingRow(param, self._settings)
            yield PlacementSection(self._placement, id="placement")
            yield PlainStatic(self._fixed(), id="sidebar-fixed")
        yield PlainStatic(_how(), id="sidebar-help")

    def enter(self) -> None:
        """Move the cursor here: to the row where it was last, at first the topmost."""
        rows = self.query(SidebarRow)
        (rows.filter(".-current").first() if rows.filter(".-current") else rows.first()).focus()

    def sync(self) -> None:
        """Show the present values."""
        self.query_one(SidebarTitle).refresh()
        for row in self.query(SettingRow):
            row.sync()
        self.place()

    def place(self) -> None:
        """Show where the weights are and would be."""
        self.query_one(PlacementSection).sync()
        self.query_one("#sidebar-fixed", PlainStatic).show(self._fixed())
        for row in self.query(SidebarRow).filter(".-current"):
            self._explain(row)
            if row.has_focus:
                self.call_after_refresh(self._reveal, row)

    def loaded(self, model: ModelInfo) -> None:
        """Show what the model was loaded with."""
        self._model = model
        self.query_one(PlacementSection).loaded()
        self.query_one("#sidebar-fixed", PlainStatic).update(self._fixed())

    def _fixed(self) -> str:
        """What was chosen at load; before it is known, what was asked for."""
        known: dict[str, str] = {}
        if self._model is not None:
            known = {
                "device": self._model.device,
                "dtype": self._model.dtype,
                "quant": self._model.weights,
                "kernels": _kernels(self._model),
                "context": _context(self._model),
                "chat_format": self._model.chat_format,
            }
        plan = self._placement.plan
        if plan is not None:
            known["kv"] = plan.needs.kv_type
            known["ram"] = f"{gigabytes(plan.ram)} of {gigabytes(plan.budget.ram)} GB"
        lines = ["chosen at start"]
        for param in FIXED:
            mark = "*" if self._settings.is_changed(param) else " "
            lines.append(f"{param.label:11}{mark}{known.get(param.key, self._settings.shown(param))}")
        return "\n".join(lines)

    @on(SidebarRow.Focused)
    def _focused(self, message: SidebarRow.Focused) -> None:
        message.stop()
        for row in self.query(SidebarRow):
            row.set_class(row is message.row, "-current")
        self._explain(message.row)
        self._reveal(message.row)

    def on_resize(self) -> None:
        """Keep the cursor in sight."""
        for row in self.query(SidebarRow):
            if row.has_focus:
                self.call_after_refresh(self._reveal, row)

    def _reveal(self, row: SidebarRow) -> None:
        """Bring what belongs to a row into view with it; the row itself goes before."""
        rows = [other for other in self.query(SidebarRow) if other.focusable and other.display]
        if not rows:  # the app is being closed
            return
        if row is rows[-1]:
            self.query_one("#sidebar-rows").scroll_end(animate=False, immediate=True)
        if isinstance(row, PlacementRow):
            self.query_one(WhatIf).scroll_visible(animate=False, immediate=True)
        row.scroll_visible(animate=False, immediate=True)

    def _explain(self, row: SidebarRow) -> None:
        there = self._placement.available or not isinstance(row, PlacementRow)
        self.query_one("#sidebar-help", PlainStatic).update(row.explanation if there else _how())


def _context(model: ModelInfo) -> str:
    """How long it is and could be, and what the KV cache takes for it, or would take."""
    now, most = (format_size(tokens * model.kv_bytes) for tokens in (model.context, model.max_context))
    if model.context == model.max_context:
        return f"{model.context} tokens, the limit\n{'':12}KV {now}"
    return f"{model.context} of {model.max_context} tokens\n{'':12}KV {now} of {most}"


def _kernels(model: ModelInfo) -> str:
    """What multiplies on the CPU, by format where there are several."""
    if len(model.kernels) == 1:
        return model.kernels[0][1]
    return "; ".join(f"{format}: {words}" for format, words in model.kernels) or "none"
