"""A graph with its figures in the border."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical

from tui.widgets.history_graph import HistoryGraph
from tui.widgets.titles import entitle

_SAMPLES = 2
"""Readings in a cell."""


class GraphPanel(Vertical):
    """One graph as large as there is room. Its title has name and figures; below stand range and time."""

    def __init__(
        self, name: str, id: str, *, readings: deque[float | None] | None = None, line: bool = False
    ) -> None:
        super().__init__(id=id)
        self._name_shown = name
        self._timed = not line
        self._graph = HistoryGraph(readings=readings, line=line)
        self.border_title = name

    def compose(self) -> ComposeResult:
        """The graph."""
        yield self._graph

    def read(self, figures: Sequence[str], top: float, scale: str, more: str = "") -> None:
        """Show the readings as they are now: `figures` for the title, as many as fit; `top` ends the range,
        which `scale` says; `more` stands before that where there is room.
        """
        forms = [" · ".join((self._name_shown, *figures[:count])) for count in range(len(figures), -1, -1)]
        below = ([more] if more else []) + [scale, f"last {self._span()}"]
        entitle(self, forms, (" · ".join(part) for part in (below, below[:-1], [scale])))
        self._graph.top = top
        self._graph.moved()

    def show(self, values: Sequence[float], mark: float | None) -> None:
        """Take other readings than those that are shared, and mark one value."""
        self._graph.mark = mark
        self._graph.show(values)

    def _span(self) -> str:
        count = _SAMPLES * self._graph.size.width
        if not self._timed:
            return f"{count} tokens"
        return f"{count} s" if count < 100 else f"{count / 60:.1f} min"
