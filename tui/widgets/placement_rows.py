"""The rows of the placement: who chooses, what stays on the GPU, the VRAM budget, the CPU's share."""

from __future__ import annotations

from textual import events
from textual.content import Content
from textual.message import Message
from textual.style import Style

from tui.figures import gigabytes
from tui.groups import MARKS, Group, Mark
from tui.keys import key_word
from tui.placement import Placement
from tui.widgets.bars import level
from tui.widgets.plain import plain
from tui.widgets.setting_row import LABEL
from tui.widgets.sidebar_row import SidebarRow
from tui.wish import Mode

_FIRST_LINE = 4  # toggles; those of attention


def _how() -> str:
    return f"{key_word('apply')} applies, {key_word('default')} forgets."


class PlacementRow(SidebarRow):
    """A row that shows a part of the placement; only to be painted where there is one."""

    COMPONENT_CLASSES = {"setting--value", "setting--mark", "setting--bar", "setting--typed"}

    def __init__(self, placement: Placement, id: str) -> None:
        super().__init__(id)
        self._placement = placement

    def on_key(self, event: events.Key) -> None:
        """Keys that come when the model has been unloaded change nothing."""
        if not self._placement.available:
            event.stop()
            event.prevent_default()

    def _labelled(self, label: str, changed: bool) -> list[str | tuple[str, Style]]:
        return [label.ljust(LABEL - 1), ("*" if changed else " ", self.get_visual_style("setting--mark"))]


class ModeRow(PlacementRow):
    """Who says what stays on the GPU."""

    KEYS = (("field_up", "field_down"), ("less", "more"))

    @property
    def takes_text(self) -> bool:
        """A choice is stepped through."""
        return False

    @property
    def explanation(self) -> str:
        """What the three words mean."""
        return (
            "auto: the planner fills the VRAM budget as well as it can. all streamed: nothing stays on the "
            f"GPU. chosen: what is marked below, and nothing else. {_how()}"
        )

    def render(self) -> Content:
        """The three words, the present one in brackets."""
        if not self._placement.available:
            return Content("")
        style, wanted = self.get_visual_style, self._placement.wanted
        parts: list[str | tuple[str, Style]] = []
        for mode in Mode:
            chosen = mode is wanted.mode
            parts.append((f"[{mode}]", style("setting--value")) if chosen else f" {mode} ")
        mark = "*" if self._placement.mode_changed else " "
        return Content.assemble(*parts, (mark, style("setting--mark")))


class KeepRow(PlacementRow):
    """A toggle for every matrix of the layers and for both ends of the model, in two lines."""

    COMPONENT_CLASSES = {"keep--kept", "keep--cursor", "setting--mark"}
    KEYS = (("field_up", "field_down"), ("less", "more"), ("turn",))

    class Toggled(Message):
        """The user turned a toggle."""

        def __init__(self, group: Group) -> None:
            super().__init__()
            self.group = group

    def __init__(self, placement: Placement, id: str) -> None:
        super().__init__(placement, id)
        self._at = 0

    @property
    def takes_text(self) -> bool:
        """Toggles are turned."""
        return False

    @property
    def explanation(self) -> str:
        """What the toggle under the cursor stands for, and where it is."""
        group, mark, changed = self._entries()[self._at]
        where = f"then {MARKS[mark]}" if changed else MARKS[mark]
        return (
            f"{group.title}: {gigabytes(group.nbytes)} GB, {where}. Left and Right choose, Space turns "
            f"(x kept, ~ in some layers, c on the CPU). {_how()}"
        )

    def action_less(self) -> None:
        """To the toggle on the left."""
        self._go(self._at - 1)

    def action_more(self) -> None:
        """To the toggle on the right."""
        self._go(self._at + 1)

    def action_much_less(self) -> None:
        """To the first toggle."""
        self._go(0)

    def action_much_more(self) -> None:
        """To the last toggle."""
        self._go(len(self._entries()) - 1)

    def action_turn(self) -> None:
        """Keep the group under the cursor, or stream it."""
        self.post_message(self.Toggled(self._entries()[self._at][0]))

    def action_type(self) -> None:
        """Enter turns as well."""
        self.action_turn()

    def on_click(self, event: events.Click) -> None:
        """A toggle under the mouse is turned."""
        offset = event.get_content_offset_capture(self)
        for index, (_, line, start, width) in enumerate(self._layout()):
            if line == offset.y and start <= offset.x < start + width:
                self._go(index)
                self.action_turn()

    def render(self) -> Content:
        """Attention in the first line, the rest in the second."""
        if not self._placement.available:
            return Content("")
        style, entries = self.get_visual_style, self._entries()
        lines: list[list[str | tuple[str, Style]]] = [[], []]
        for index, (text, line, _, _) in enumerate(self._layout()):
            _, mark, changed = entries[index]
            if index == self._at and self.has_focus:
                lines[line].append((text, style("keep--cursor")))
            elif mark is Mark.STREAMED:
                lines[line].append(text)
            else:
                lines[line].append((text, style("keep--kept")))
            lines[line].append(("*" if changed else " ", style("setting--mark")))
        return Content("\n").join(Content.assemble(*line) for line in lines)

    def _layout(self) -> list[tuple[str, int, int, int]]:
        """Text, line, first cell and width of every toggle."""
        layout = []
        at = 0
        for index, (group, mark, _) in enumerate(self._entries()):
            text = f"[{mark}]{group.label}"
            at = 0 if index == _FIRST_LINE else at
            layout.append((text, int(index >= _FIRST_LINE), at, len(text)))
            at += len(text) + 1
        return layout

    def _go(self, index: int) -> None:
        self._at = max(0, min(len(self._entries()) - 1, index))
        self.refresh()
        self.post_message(self.Focused(self))

    def _entries(self) -> list[tuple[Group, Mark, bool]]:
        return self._placement.groups()


class BudgetRow(PlacementRow):
    """The most VRAM we may take."""

    KEYS = (("field_up", "field_down"), ("less", "more"), ("type",))

    @property
    def explanation(self) -> str:
        """What the budget counts."""
        return (
            "The most VRAM we may take, CUDA's own share included. Left and Right move it by 0.25 GB, "
            f"Enter types a size such as 6GB. {_how()}"
        )

    def render(self) -> Content:
        """The budget, and how much of the card it is."""
        if not self._placement.available:
            return Content("")
        style, placement = self.get_visual_style, self._placement
        parts = self._labelled("VRAM budget", placement.budget_changed)
        if self.typed is not None:
            return Content.assemble(*parts, (f"{self.typed}▏", style("setting--typed")))
        vram, card = placement.wanted.vram, placement.card
        value = f"{vram / 1e9:>6.2f} GB"
        parts.append((value, style("setting--value")))
        room = self.content_size.width - LABEL - len(value) - 3
        if card and room >= 4:
            left, right = ("◂", "▸") if self.has_focus else (" ", " ")
            parts += [" ", (f"{left}{level(vram / card, room)}{right}", style("setting--bar"))]
        return Content.assemble(*parts)


class CpuRow(PlacementRow):
    """What is computed on the CPU where it lies."""

    KEYS = (("field_up", "field_down"), ("type",))

    @property
    def explanation(self) -> str:
        """Which names there are."""
        return (
            "Computed on the CPU where it lies, instead of being streamed. Enter types names, such as "
            f"layers.0-9, w2 or output; none takes them back. {_how()}"
        )

    def render(self) -> Content:
        """The names."""
        if not self._placement.available:
            return Content("")
        style, placement = self.get_visual_style, self._placement
        parts = self._labelled("CPU layers", placement.cpu_changed)
        if self.typed is not None:
            return Content.assemble(*parts, (f"{self.typed}▏", style("setting--typed")))
        names = plain(",".join(placement.wanted.cpu) or "none")
        line = Content.assemble(*parts, (f" {names.plain}", style("setting--value")))
        return line.truncate(self.content_size.width, ellipsis=True)
