"""The part of the sidebar where weights are placed: what stays on the GPU, the budget, and what-if."""

from __future__ import annotations

from collections.abc import Callable

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.message import Message

from core.errors import UserError
from tui.figures import gigabytes
from tui.keys import key_word
from tui.placement import Placement
from tui.widgets.placement_rows import BudgetRow, CpuRow, KeepRow, ModeRow, PlacementRow
from tui.widgets.plain import PlainStatic, plain
from tui.widgets.sidebar_row import SidebarRow
from tui.wish import Mode

_TITLE = "KEEP ON GPU (offload exclusions)"
_BETWEEN = " · "


class WhatIf(PlainStatic):
    """Figures in as few lines as the width allows, broken only between them."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._parts: tuple[str, ...] = ()
        self._rows: list[int] = []

    def show_parts(self, parts: tuple[str, ...]) -> None:
        """Replace the figures."""
        if parts != self._parts:
            self._parts = parts
            self._show_lines(self.size.width)

    def on_resize(self, event: events.Resize) -> None:
        """Break the lines anew."""
        self._show_lines(event.size.width)

    def _show_lines(self, width: int) -> None:
        """All is laid out anew only where the lines need more or less room."""
        lines = self._flow(width)
        rows = [-(-len(line) // max(1, width)) for line in lines]
        self.update(plain("\n".join(lines)), layout=rows != self._rows)
        self._rows = rows

    def _flow(self, width: int) -> list[str]:
        lines: list[str] = []
        for part in self._parts:
            if lines and len(lines[-1]) + len(_BETWEEN) + len(part) <= width:
                lines[-1] += _BETWEEN + part
            else:
                lines.append(part)
        return lines


class PlacementSection(Vertical):
    """Shows a Placement and changes what is pending in it; applying it is for the screen."""

    class Changed(Message):
        """Something else is pending now."""

    class Refused(Message):
        """What the user asked for cannot be pending; why, in a line."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, placement: Placement, id: str) -> None:
        super().__init__(id=id, classes="-off")
        self._placement = placement
        self._loaded = False

    def compose(self) -> ComposeResult:
        """Title, rows, figures; where there is nothing to place, why."""
        yield PlainStatic(_TITLE, id="placement-title")
        yield PlainStatic(self._reason(), id="placement-reason")
        yield ModeRow(self._placement, id="placement-mode")
        yield KeepRow(self._placement, id="placement-keep")
        yield BudgetRow(self._placement, id="placement-budget")
        yield CpuRow(self._placement, id="placement-cpu")
        yield WhatIf(id="placement-what-if")

    def loaded(self) -> None:
        """The model is there: where nothing can be placed by now, nothing will be."""
        self._loaded = True
        self.sync()

    def _reason(self) -> str:
        """Why there is nothing to place."""
        plan = self._placement.plan
        if plan is not None and plan.streamed_per_token:
            return f"computed on the CPU; {gigabytes(plan.streamed_per_token)} GB/token come from disk"
        if plan is not None or self._loaded:
            return "computed on the CPU: nothing to stream"
        return "known when the model is loaded"

    def sync(self) -> None:
        """Show what is in force and what is pending."""
        placement = self._placement
        self.set_class(not placement.available, "-off")
        if not placement.available:
            self.query_one("#placement-reason", PlainStatic).update(self._reason())
            return
        for row in self.query(PlacementRow):
            row.sync()
        parts = placement.figures()
        if placement.under_way:
            parts += ("being applied",)
        elif placement.pending:
            parts += (f"{key_word('apply')} apply",) if placement.can_apply else ("Backspace forgets it",)
        figures = self.query_one(WhatIf)
        figures.set_class(placement.pending, "-pending")
        figures.set_class(placement.pending and not placement.can_apply, "-refused")
        figures.show_parts(parts)

    # --- what the rows ask for --------------------------------------------------------------------

    @on(SidebarRow.Stepped)
    def _stepped(self, message: SidebarRow.Stepped) -> None:
        message.stop()
        placement = self._placement
        if isinstance(message.row, ModeRow):
            modes = list(Mode)
            index = modes.index(placement.wanted.mode) + message.steps
            self._try(lambda: placement.set_mode(modes[max(0, min(len(modes) - 1, index))]))
        elif isinstance(message.row, BudgetRow):
            self._try(lambda: placement.step_vram(message.steps))

    @on(SidebarRow.Entered)
    def _entered(self, message: SidebarRow.Entered) -> None:
        message.stop()
        text = message.text
        if isinstance(message.row, BudgetRow):
            bare = text.replace(".", "", 1).isdecimal()  # the row shows GB
            self._try(lambda: self._placement.enter_vram(f"{text}GB" if bare else text))
        else:
            self._try(lambda: self._placement.enter_cpu(text))

    @on(SidebarRow.Cleared)
    def _cleared(self, message: SidebarRow.Cleared) -> None:
        message.stop()
        self._try(self._placement.undo)

    @on(SidebarRow.Opened)
    def _opened(self, message: SidebarRow.Opened) -> None:
        message.stop()

    @on(KeepRow.Toggled)
    def _toggled(self, message: KeepRow.Toggled) -> None:
        message.stop()
        self._try(lambda: self._placement.toggle(message.group))

    def _try(self, change: Callable[[], object]) -> None:
        try:
            change()
        except UserError as error:
            self.post_message(self.Refused(str(error)))
        else:
            self.post_message(self.Changed())
