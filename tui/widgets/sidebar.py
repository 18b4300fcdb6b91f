"""The settings at the right, made from the table of parameters."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll

from core.engine.events import ModelInfo
from core.options import Param
from tui.settings import ACTS, FIXED, LIVE, Settings
from tui.widgets.plain import PlainStatic
from tui.widgets.setting_row import SettingRow

_HOW = "ctrl+t comes here. Left and Right change a value, Enter types one, Backspace sets the default."


class SettingsScroll(VerticalScroll, can_focus=False):
    """The rows; scrolled by moving the cursor over them."""


class Sidebar(Vertical):
    """A row for every live parameter, those fixed at load below, and help for the row under the cursor."""

    def __init__(self, settings: Settings, id: str) -> None:
        super().__init__(id=id)
        self._settings = settings
        self._model: ModelInfo | None = None

    def compose(self) -> ComposeResult:
        """Title, rows, fixed values, help."""
        yield PlainStatic("SETTINGS", id="sidebar-title")
        with SettingsScroll(id="sidebar-rows"):
            for param in LIVE:
                yield SettingRow(param, self._settings)
            yield PlainStatic(self._fixed(), id="sidebar-fixed")
        yield PlainStatic(_HOW, id="sidebar-help")

    def enter(self) -> None:
        """Move the cursor here: to the row where it was last, at first the topmost."""
        rows = self.query(SettingRow)
        (rows.filter(".-current").first() if rows.filter(".-current") else rows.first()).focus()

    def sync(self) -> None:
        """Show the present values."""
        for row in self.query(SettingRow):
            row.sync()
            if row.has_class("-current"):
                self._help(row.param)

    def loaded(self, model: ModelInfo) -> None:
        """Show what the model was loaded with."""
        self._model = model
        self.query_one("#sidebar-fixed", PlainStatic).update(self._fixed())

    def _fixed(self) -> str:
        """What was chosen at load; before it is known, what was asked for."""
        known = {} if self._model is None else {
            "device": self._model.device,
            "dtype": self._model.dtype,
            "context": f"{self._model.context} tokens",
            "chat_format": self._model.chat_format,
        }  # fmt: skip
        lines = [f"{param.label:12}{known.get(param.key, self._settings.shown(param))}" for param in FIXED]
        return "\n".join(("chosen at start", *lines))

    @on(SettingRow.Focused)
    def _focused(self, message: SettingRow.Focused) -> None:
        message.stop()
        for row in self.query(SettingRow):
            row.set_class(row is message.row, "-current")
        self._help(message.row.param)

    def _help(self, param: Param) -> None:
        reason = self._settings.inert_reason(param)
        effect = reason or ACTS[param.acts]
        accepts = "" if param.kind in ("choice", "text") else f" Takes {param.range_text()}."
        text = f"{effect[0].upper()}{effect[1:]}. {param.help}{accepts}"
        self.query_one("#sidebar-help", PlainStatic).update(text)
