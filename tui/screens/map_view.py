"""The memory map: its looks, and how it follows what the engine does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message

from core.engine.events import Activity, Placed, Snapshot
from core.weights.plan import Plan
from tui import map_words
from tui.cells import Grid, changes, computing, grid_of, moving
from tui.chat_session import ChatSession
from tui.commands import BY_ID, Scope, bindings
from tui.compat import SafeClicks
from tui.keys import key_word
from tui.screens.sizes import TooSmall
from tui.widgets.key_bar import KeyBar
from tui.widgets.memory_map import MemoryMap
from tui.widgets.placement_section import WhatIf
from tui.widgets.plain import PlainStatic
from tui.widgets.plain_line import PlainLine
from tui.widgets.status_line import Level, StatusLine

_LINES = ("slots", "link", "cursor", "what-if")
_KEYS = (
    ("map_keep",),
    ("map_stream",),
    ("map_cpu",),
    ("map_undo",),
    ("map_apply",),
    ("close_map",),
    ("map_row",),
    ("range_right",),
)


class Owner(Protocol):
    """Whoever has the placement, and shows it too."""

    session: ChatSession

    def require_plan(self) -> Plan:
        """The plan in force. Raises UserError where there is nothing to place."""

    def post_message(self, message: Message) -> bool:
        """Tell that something else is pending."""

    def action_apply(self) -> None:
        """Make the pending placement true."""


class MapView(SafeClicks):
    """Shows where every weight is and what happens to it. The reply goes on behind it."""

    # Before the keys of the map, which has the focus: there is nothing to type here.
    BINDINGS = bindings("map", priority=True)
    PLACE: ClassVar[Scope] = "map"
    AUTO_FOCUS = "#map-cells"

    def __init__(self, owner: Owner, model_name: str) -> None:
        super().__init__(id="map")
        self._owner, self._model_name = owner, model_name
        self._placement = owner.session.placement
        self._placed: Placed | None = None  # of which the grid is
        self._grid: Grid | None = None
        self._changes: Mapping[str, str] = {}
        self._activity = Activity()
        self._snapshot: Snapshot | None = None
        self._status = ("", False)
        self._there = False  # all parts are

    def compose(self) -> ComposeResult:
        """Title, legend, cells, what happens, what the cursor names, what would be, status, keys."""
        yield PlainLine(id="map-title")
        yield WhatIf(id="map-legend")
        yield MemoryMap(id="map-cells")
        with Vertical(id="map-lines"):
            for name in _LINES:
                with Horizontal(classes="map-line", id=f"map-{name}-line"):
                    yield PlainStatic(name, classes="map-label")
                    yield WhatIf(id=f"map-{name}")
        with Horizontal(id="map-status-row"):
            yield StatusLine(id="map-status")
        yield KeyBar("map-keys", _KEYS)
        yield TooSmall("the memory map")

    def on_mount(self) -> None:
        """Show the present state."""
        self._there = True
        self.sync()
        self._show_status()

    def on_screen_resume(self) -> None:
        """Look at the engine while this is seen."""
        self._owner.session.watch(shown=True)

    def on_screen_suspend(self) -> None:
        """Nobody sees it."""
        self._owner.session.watch(shown=False)

    def on_unmount(self) -> None:
        """It is gone."""
        self._owner.session.watch(shown=False)

    @property
    def cells(self) -> MemoryMap:
        """The map itself."""
        return self.query_one("#map-cells", MemoryMap)

    def _line(self, name: str) -> WhatIf:
        return self.query_one(f"#map-{name}", WhatIf)

    # --- what the engine does -----------------------------------------------------------------------

    def read(self, activity: Activity) -> None:
        """What is copied and computed at this moment."""
        if self._there and self._grid is not None and activity != self._activity:
            self._activity = activity
            self._show_activity(self._grid)

    def _show_activity(self, grid: Grid) -> None:
        activity = self._activity
        tile = map_words.tile_words(activity, grid.tiles)
        self.cells.light(moving(activity, grid), computing(activity, grid), tile)
        self._line("slots").show_parts(map_words.slot_words(activity, grid.plan))

    def meter(self, snapshot: Snapshot | None) -> None:
        """What the meters read."""
        self._snapshot = snapshot
        if self._there and self._grid is not None:
            self._line("link").show_parts(map_words.link_words(self._grid.plan, snapshot))

    # --- what goes on behind it ---------------------------------------------------------------------

    def status(self, text: str, *, busy: bool) -> None:
        """What the chat is doing."""
        self._status = (text, busy)
        if self._there:
            self._show_title()
            self._show_status()

    def _show_status(self) -> None:
        text, busy = self._status
        plan = self._placement.plan
        if self.has_class("-tiny"):  # there is no title and no key bar
            simulated = "SIMULATED · " if plan is not None and plan.budget.simulated else ""
            text = f"{simulated}{key_word('help')} help · {text}"
        self.query_one("#map-status", StatusLine).state(text, busy=busy)

    def flash(self, text: str, level: Level = "info") -> None:
        """Say something for a few seconds."""
        if self._there:
            self.query_one("#map-status", StatusLine).flash(text, level)

    # --- where the weights are ----------------------------------------------------------------------

    def sync(self) -> None:
        """Show what is in force and what is pending."""
        if not self._there:
            return
        placement = self._placement
        if placement.in_force is not self._placed and placement.in_force is not None:
            self._placed = placement.in_force
            self._grid = grid_of(self._placed.plan, self._placed.pageable)
        grid = self._grid
        if grid is not None:
            self._changes = changes(placement, grid) if placement.available else {}
            self.cells.show(grid, self._changes)
            self._show_activity(grid)
            self.meter(self._snapshot)
            self.query_one("#map-legend", WhatIf).show_parts(map_words.legend(grid))
        self._show_title()
        self._show_cursor()
        self._show_what_if()

    def _show_title(self) -> None:
        grid, model = self._grid, self._owner.session.model
        name = self._model_name if model is None else model.name
        simulated = "SIMULATED " if grid is not None and grid.plan.budget.simulated else ""
        rest = "" if grid is None else f" · {map_words.whole(grid)} · sampled 10/s"
        self.query_one("#map-title", PlainLine).show(f"{simulated}MEMORY MAP  {name}{rest}")

    @on(MemoryMap.Moved)
    def _show_cursor(self) -> None:
        if self._grid is not None:
            words = map_words.cursor_words(
                self.cells.selected, self._grid, self._changes, brief=self.has_class("-tiny")
            )
            self._line("cursor").show_parts(words)

    def _show_what_if(self) -> None:
        placement, line = self._placement, self._line("what-if")
        brief = self.has_class("-tiny")
        parts = map_words.what_if_words(placement, len(self._changes), brief=brief)
        if placement.under_way:
            parts += ("being applied",)
        elif placement.pending:
            keys = ("map_apply", "map_undo") if placement.can_apply else ("map_undo",)
            hints = tuple(f"{key_word(key)} {BY_ID[key].bar}" for key in keys)
            # Where there is one line the key goes before the other figures.
            parts = (*parts[:1], *hints, *parts[1:]) if brief else (*parts, *hints)
        refused = placement.pending and not placement.can_apply
        self.set_class(refused, "-refused")
        line.set_class(placement.pending, "-pending")
        line.set_class(refused, "-refused")
        line.show_parts(parts)

    def on_resize(self, event: events.Resize) -> None:
        """Set the size's classes; TCSS does the rest."""
        width, height = event.size
        self.set_class(width < 100, "-narrow")
        self.set_class(height < 22, "-low")
        self.set_class(width < 60 or height < 16, "-tiny")
        self.query_one(TooSmall).check(self, event.size)
        self._show_cursor()
        self._show_what_if()
        self._show_status()
