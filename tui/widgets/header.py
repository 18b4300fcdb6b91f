"""The top line: which model, where it is computed, and how much of its context is used."""

from __future__ import annotations

from textual.content import Content
from textual.style import Style
from textual.widget import Widget

from core.engine.events import ModelInfo
from core.weights.plan import Plan
from tui.figures import gigabytes
from tui.widgets.bars import level
from tui.widgets.plain import plain

_BAR = 10


class Header(Widget):
    """SIMULATED, name · type · chat format · device · what is streamed, and the context at the right."""

    COMPONENT_CLASSES = {"header--name", "header--bar", "header--simulated"}

    def __init__(self, name: str, *, simulated: bool, id: str) -> None:
        super().__init__(id=id)
        self._name_shown, self._simulated = name, simulated
        self._model: ModelInfo | None = None
        self._streamed = ""
        self._used = 0

    def loaded(self, model: ModelInfo) -> None:
        """Show what was loaded."""
        self._model = model
        self.refresh()

    def placed(self, plan: Plan) -> None:
        """Show what is streamed."""
        streamed = f" · {gigabytes(plan.streamed_per_token)} GB/token" if plan.streamed_per_token else ""
        simulated = self._simulated or plan.budget.simulated
        if (streamed, simulated) != (self._streamed, self._simulated):
            self._streamed, self._simulated = streamed, simulated
            self.refresh()

    def used(self, tokens: int) -> None:
        """Show how many tokens are in the context."""
        if tokens != self._used:
            self._used = tokens
            self.refresh()

    def render(self) -> Content:
        """One line; the details give way to the context where it is narrow."""
        style, model, width = self.get_visual_style, self._model, self.content_size.width
        name = plain(self._name_shown if model is None else model.name).plain
        title: list[str | tuple[str, Style]] = [(name, style("header--name"))]
        if self._simulated:  # first, since the end may be cut off
            title = [("SIMULATED", style("header--simulated")), " ", *title]
        if model is None:
            return Content.assemble(*title).truncate(width, ellipsis=True)
        details = f" · {model.weights} · {model.chat_format} · {model.device}{self._streamed}"
        left = Content.assemble(*title) + plain(details)
        figures = f"ctx {self._used}/{model.context}"
        right = Content(figures)
        if width >= left.cell_length + len(figures) + _BAR + 3:
            bar = (level(self._used / model.context, _BAR), style("header--bar"))
            right = Content.assemble("ctx ", bar, f" {self._used}/{model.context}")
        room = max(0, width - right.cell_length - 1)
        return left.truncate(room, ellipsis=True, pad=True) + " " + right
