"""The top line: which model, and how much of its context is used."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget

from core.engine.events import ModelInfo
from tui.widgets.bars import level
from tui.widgets.plain import plain

_BAR = 10


class Header(Widget):
    """Name · type · chat format · device, and the context at the right."""

    COMPONENT_CLASSES = {"header--name", "header--bar"}

    def __init__(self, name: str, id: str) -> None:
        super().__init__(id=id)
        self._name_shown = name
        self._model: ModelInfo | None = None
        self._used = 0

    def loaded(self, model: ModelInfo) -> None:
        """Show what was loaded."""
        self._model = model
        self.refresh()

    def used(self, tokens: int) -> None:
        """Show how many tokens are in the context."""
        if tokens != self._used:
            self._used = tokens
            self.refresh()

    def render(self) -> Content:
        """One line; the details give way to the context where it is narrow."""
        style, model, width = self.get_visual_style, self._model, self.content_size.width
        if model is None:
            return Content.assemble((plain(self._name_shown).plain, style("header--name"))).truncate(
                width, ellipsis=True
            )
        details = f" · {model.dtype} · {model.chat_format} · {model.device}"
        left = Content.assemble((plain(model.name).plain, style("header--name")), plain(details))
        figures = f"ctx {self._used}/{model.context}"
        right = Content(figures)
        if width >= left.cell_length + len(figures) + _BAR + 3:
            bar = (level(self._used / model.context, _BAR), style("header--bar"))
            right = Content.assemble("ctx ", bar, f" {self._used}/{model.context}")
        room = max(0, width - right.cell_length - 1)
        return left.truncate(room, ellipsis=True, pad=True) + " " + right
