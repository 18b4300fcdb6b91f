"""The chat screen's placement: which weights stay on the GPU, from a wish to what is in force."""

from __future__ import annotations

from textual import on

from core.errors import UserError
from core.weights.plan import Plan
from tui import messages
from tui.commands import Assign
from tui.keys import key_word
from tui.placement_words import announcement, kept_words, unpinned_note, value_words
from tui.screens.chat_settings import ChatSettings
from tui.settings import PLACEMENT
from tui.widgets.gauges import Gauges
from tui.widgets.header import Header
from tui.widgets.placement_section import PlacementSection
from tui.widgets.status_line import Level


class ChatPlacement(ChatSettings):
    """Changes what is pending, applies it, and follows what the engine makes of it."""

    # --- what the engine says -------------------------------------------------------------------

    @on(messages.WeightsMoving)
    def _weights_moving(self, message: messages.WeightsMoving) -> None:
        self.session.placement.moved(message.event)
        self._status_soon.request()

    @on(messages.WeightsPlaced)
    def _weights_placed(self, message: messages.WeightsPlaced) -> None:
        placement, placed = self.session.placement, message.event
        before = placement.in_force
        placement.placed(placed)
        self.query_one("#header", Header).placed(placed.plan)
        self.query_one("#gauges", Gauges).disk = placed.plan.disk > 0
        self._placement_changed()
        if placed.ram_unpinned and (before is None or placed.ram_unpinned > before.ram_unpinned):
            self.note(unpinned_note(placed.ram_unpinned), "warning")
        if placed.reason is not None:
            self.note(f"{placed.reason}; {announcement(placed.plan)}", "warning")
        elif before is not None and before.plan != placed.plan:
            self.flash(announcement(placed.plan))

    # --- what the user wants --------------------------------------------------------------------

    @on(PlacementSection.Changed)
    def _placement_changed(self) -> None:
        self.sidebar.place()
        self._paint_status()

    @on(PlacementSection.Refused)
    def _placement_refused(self, message: PlacementSection.Refused) -> None:
        self.flash(message.text, "error")

    def action_apply(self) -> None:
        """Make the pending placement true."""
        if self.session.placement.under_way:
            self.flash("that is being applied already")
            return
        try:
            self.session.apply()
        except UserError as error:
            self.flash(str(error), "error")
        else:
            self.status.end_flash()
            self._placement_changed()

    def action_keep(self, argument: str) -> None:
        """`/keep NAMES`; alone it says what is kept. Raises UserError for an unknown name."""
        plan, placement = self._require_plan(), self.session.placement
        if argument:
            placement.enter_kept(argument)
            self._say_pending()
        else:
            self.flash(f"on the GPU: {kept_words(plan)}")

    def _assign(self, assign: Assign) -> None:
        """A change of the placement becomes pending; everything else acts as it does."""
        if assign.param not in PLACEMENT:
            super()._assign(assign)
            return
        plan, placement, value = self._require_plan(), self.session.placement, assign.value
        if not value:
            self.flash(f"{assign.param.label} is {value_words(plan, assign.param.key)}")
            return
        match assign.param.key:
            case "vram":
                placement.enter_vram(value)
            case "cpu_layers":
                placement.enter_cpu(value)
            case _:
                placement.enter_kept(value)
        self._say_pending()

    def _require_plan(self) -> Plan:
        """The plan in force. Raises UserError where there is nothing to place."""
        placement = self.session.placement
        plan = placement.plan
        if plan is None and self.session.model is None:
            raise UserError("the placement can be changed once the model is loaded")
        if plan is None or not placement.available:
            raise UserError(
                "the model is computed on the CPU, nothing is streamed; restart with --device sim to try it"
            )
        return plan

    def _say_pending(self) -> None:
        """What a typed wish would give, since the settings may not be in sight."""
        self._placement_changed()
        placement = self.session.placement
        if not placement.pending:
            self.flash("that is how it is already")
        else:
            level: Level = "info" if placement.can_apply else "error"
            start = f"{key_word('apply')} applies: " if placement.can_apply else ""
            self.flash(start + " · ".join(placement.figures()), level)
