"""The top line: which model, where it is computed, which chat this is, how much of the context is used."""

from __future__ import annotations

from textual.content import Content
from textual.style import Style
from textual.widget import Widget

from core.engine.events import ModelInfo
from core.text.sanitize import one_line
from core.weights.plan import Plan
from tui.figures import gigabytes
from tui.widgets.bars import level
from tui.widgets.plain import plain

_BAR = 10
_GAP = 3  # cells on either side of the chat's title
_TITLE = 12  # with less room than this it is left out


class Header(Widget):
    """SIMULATED, name · type · chat format · device · what is streamed; the chat's title; the context."""

    COMPONENT_CLASSES = {"header--name", "header--bar", "header--simulated", "header--title"}

    def __init__(self, name: str, *, simulated: bool, id: str) -> None:
        super().__init__(id=id)
        self._name_shown, self._simulated = name, simulated
        self._model: ModelInfo | None = None
        self._streamed = ""
        self._used = 0
        self._title = ""

    def loaded(self, model: ModelInfo) -> None:
        """Show what was loaded."""
        self._model = model
        self.refresh()

    def unloaded(self) -> None:
        """Show that the model is not in memory."""
        self._model, self._streamed = None, " · unloaded"
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

    def talk(self, title: str) -> None:
        """Show what the chat is called; "" for one without a title."""
        if title != self._title:
            self._title = title
            self.refresh()

    def render(self) -> Content:
        """One line; where it is narrow, first the title gives way, then details from the end."""
        style, model, width = self.get_visual_style, self._model, self.content_size.width
        name = plain(self._name_shown if model is None else model.name).plain
        title: list[str | tuple[str, Style]] = [(name, style("header--name"))]
        if self._simulated:  # first, since the end may be cut off
            title = [("SIMULATED", style("header--simulated")), " ", *title]
        if model is None:
            left = Content.assemble(*title, self._streamed)
            return (left + self._middle(width - left.cell_length)).truncate(width, ellipsis=True)
        figures = f"ctx {self._used}/{model.context}"
        left, right = Content.assemble(*title), Content(figures)
        format = "raw text" if model.chat_format == "none" else model.chat_format
        for word in (f" · {model.weights}", f" · {format}", f" · {model.device}", self._streamed):
            detail = plain(word)
            if left.cell_length + detail.cell_length + len(figures) >= width:
                break
            left += detail
        if width >= left.cell_length + len(figures) + _BAR + 3:
            bar = (level(self._used / model.context, _BAR), style("header--bar"))
            right = Content.assemble("ctx ", bar, f" {self._used}/{model.context}")
        room = max(0, width - right.cell_length - 1)
        left += self._middle(room - left.cell_length)
        return left.truncate(room, ellipsis=True, pad=True) + " " + right

    def _middle(self, room: int) -> Content:
        """The title in the middle of `room` cells, as much of it as fits."""
        room -= 2 * _GAP
        if not self._title or room < _TITLE:
            return Content("")
        title = Content(one_line(self._title)).truncate(room, ellipsis=True)
        return Content(" " * (_GAP + (room - title.cell_length) // 2)) + title.stylize(".header--title")
