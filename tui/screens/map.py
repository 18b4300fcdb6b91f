"""The memory map's deeds: what every action of scope "map" does."""

from __future__ import annotations

from textual import events

from core.errors import UserError
from core.weights.plan import Place
from tui.cells import NORMS
from tui.commands import ACTIONS
from tui.keys import keys_of
from tui.screens.map_view import MapView
from tui.widgets.placement_section import PlacementSection


class MapScreen(MapView):
    """Moves the cursor, and changes what is pending in the placement that the settings share."""

    def action_perform(self, id: str) -> None:
        """One of the map's keys; what is wrong with that is said."""
        try:
            getattr(self, f"action_{id}")()
        except UserError as error:
            self.flash(str(error), "error")

    def on_key(self, event: events.Key) -> None:
        """A capital letter, by shift or lock, is the small one here."""
        if len(event.key) == 1 and event.key.isupper():
            for action in ACTIONS:
                if action.scope == "map" and event.key.lower() in keys_of(action):
                    event.stop()
                    self.action_perform(action.id)

    # --- the cursor -------------------------------------------------------------------------------

    def action_map_left(self) -> None:
        """To the layer before."""
        self.cells.go(0, -1)

    def action_map_right(self) -> None:
        """To the layer after."""
        self.cells.go(0, 1)

    def action_map_up(self) -> None:
        """To the row above."""
        self.cells.go(-1, 0)

    def action_map_down(self) -> None:
        """To the row below."""
        self.cells.go(1, 0)

    def action_map_first(self) -> None:
        """To the first layer."""
        self.cells.go(0, -1_000_000)

    def action_map_last(self) -> None:
        """To the last layer."""
        self.cells.go(0, 1_000_000)

    def action_range_left(self) -> None:
        """A layer more on the left, or one less on the right."""
        self.cells.go(0, -1, extend=True)

    def action_range_right(self) -> None:
        """A layer more on the right, or one less on the left."""
        self.cells.go(0, 1, extend=True)

    def action_range_up(self) -> None:
        """A row more above, or one less below."""
        self.cells.go(-1, 0, extend=True)

    def action_range_down(self) -> None:
        """A row more below, or one less above."""
        self.cells.go(1, 0, extend=True)

    def action_map_row(self) -> None:
        """The whole row."""
        self.cells.name_row()

    # --- what is pending --------------------------------------------------------------------------

    def action_map_keep(self) -> None:
        """Keep what the cursor names on the GPU."""
        self._put(Place.GPU)

    def action_map_stream(self) -> None:
        """Stream it."""
        self._put(Place.RAM)

    def action_map_cpu(self) -> None:
        """Compute it on the CPU."""
        self._put(Place.CPU)

    def _put(self, place: Place) -> None:
        """Raises UserError where there is nothing to place."""
        self._owner.require_plan()
        names = {cell.name for cell in self.cells.selected} - {NORMS}
        if not names:
            raise UserError("norms always stay where the model is computed")
        self._placement.put(names, place)
        self._owner.post_message(PlacementSection.Changed())

    def action_map_undo(self) -> None:
        """Take the last change back."""
        if self._placement.step_back() or self._placement.undo():
            self._owner.post_message(PlacementSection.Changed())
        else:
            self.flash("nothing is pending")

    def action_map_apply(self) -> None:
        """Make what is pending true."""
        if self._placement.pending:
            self._owner.action_apply()
        else:
            self.flash("no change of the placement is pending", "warning")

    def action_close_map(self) -> None:
        """Back to the chat."""
        self.dismiss(None)
