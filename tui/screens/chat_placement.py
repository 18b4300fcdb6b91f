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
from tui.screens.map import MapScreen
from tui.settings import PLACEMENT
from tui.widgets.gauges import Gauges
from tui.widgets.header import Header
from tui.widgets.placement_section import PlacementSection
from tui.widgets.status_line import Level


class ChatPlacement(ChatSettings):
    """Changes what is pending, applies it, and follows what the engine makes of it; the map shows it too."""

    # --- the memory map -------------------------------------------------------------------------

    def map_page(self) -> MapScreen:
        """The memory map of what is loaded here."""
        page = MapScreen(self, self._model_name)
        self._tell_map(page)
        page.meter(self._snapshot)
        return page

    @property
    def _map(self) -> MapScreen | None:
        """The map, if it is open."""
        return next((screen for screen in self.app.screen_stack if isinstance(screen, MapScreen)), None)

    @on(messages.ActivityRead)
    def _activity_read(self, message: messages.ActivityRead) -> None:
        if (page := self._map) is not None:
            page.read(message.event)

    def flash(self, text: str, level: Level = "info") -> None:
        """Say something for a few seconds, where it is seen."""
        super().flash(text, level)
        if (page := self._map) is not None:
            page.flash(text, level)

    def note(self, text: str, level: Level = "info") -> None:
        """Say something in the transcript; what went wrong also where it is seen."""
        super().note(text, level)
        if level != "info" and (page := self._map) is not None:
            page.flash(text, level)

    def _tell_map(self, page: MapScreen) -> None:
        state = self.session.state(hint=False, brief=self.has_class("-tiny"))
        page.status(state, busy=self.session.at_work)

    def _paint_status(self) -> None:
        super()._paint_status()
        if (page := self._map) is not None:
            self._tell_map(page)

    def _paint_meters(self) -> None:
        super()._paint_meters()
        if (page := self._map) is not None:
            page.meter(self._snapshot)

    # --- what the engine says -------------------------------------------------------------------

    @on(messages.WeightsMoving)
    def _weights_moving(self, message: messages.WeightsMoving) -> None:
        self.session.moved(message.event)
        self._status_soon.request()

    @on(messages.WeightsPlaced)
    def _weights_placed(self, message: messages.WeightsPlaced) -> None:
        placement, placed = self.session.placement, message.event
        before = placement.in_force
        placement.placed(placed)
        self.query_one("#header", Header).placed(placed.plan)
        self.query_one("#gauges", Gauges).placed(placed.plan)
        self._placement_changed()
        if placed.ram_unpinned and (before is None or placed.ram_unpinned > before.ram_unpinned):
            self.note(unpinned_note(placed.ram_unpinned), "warning")
        if placed.reason is not None:
            self.note(f"{placed.reason}; {announcement(placed.plan)}", "warning")
        elif before is not None and before.plan != placed.plan:
            self.flash(announcement(placed.plan))

    # --- what the user wants --------------------------------------------------------------------

    @on(PlacementSection.Changed)
    def _changed_there(self) -> None:
        """What the status line says of an earlier wish holds no longer."""
        self.status.end_flash()
        self._placement_changed()

    def _placement_changed(self) -> None:
        self.sidebar.place()
        self._paint_status()
        if (page := self._map) is not None:
            page.sync()

    @on(PlacementSection.Refused)
    def _placement_refused(self, message: PlacementSection.Refused) -> None:
        self.flash(message.text, "error")

    def action_apply(self) -> None:
        """Make the pending placement true."""
        if self.session.placement.under_way:
            self.flash("that is being applied already")
            return
        if self.session.asleep:
            self.flash(
                "the model is unloaded; the next message loads it, and then this can be applied", "warning"
            )
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
        plan, placement = self.require_plan(), self.session.placement
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
        plan, placement, value = self.require_plan(), self.session.placement, assign.value
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

    def require_plan(self) -> Plan:
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
