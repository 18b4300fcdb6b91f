"""Which cells of the memory map the user means: one, or a rectangle of them. No Textual."""

from __future__ import annotations

from core.weights.names import MATRICES
from tui.cells import Cell, Grid

ENDS = len(MATRICES)
"""The row of the model's ends, below those of the matrices."""


class MapCursor:
    """A place in a Grid, and where the range begins that ends there. `layer` is where it was last among the
    layers, which counts when it comes back from the ends.
    """

    def __init__(self) -> None:
        self.row = self.column = self.layer = 0
        self._anchor: tuple[int, int] | None = None
        self._grid: Grid | None = None

    def fit(self, grid: Grid) -> None:
        """From now on in this grid, which may be another model's."""
        self._grid = grid
        self.layer = min(self.layer, grid.layers - 1)
        last = self._last(self.row)
        if self.column > last or (self._anchor is not None and self._anchor[1] > last):
            self.column, self._anchor = min(self.column, last), None

    def _last(self, row: int) -> int:
        """The last column of a row."""
        assert self._grid is not None
        return len(self._grid.ends if row == ENDS else self._grid.rows[0]) - 1

    # --- what is named ----------------------------------------------------------------------------

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells that are named, at least one once there is a grid."""
        grid = self._grid
        if grid is None:
            return ()
        rows = (*grid.rows, grid.ends)
        return tuple(rows[row][column] for row in range(ENDS + 1) for column in self.named(row))

    def named(self, row: int) -> range:
        """The columns of a row that are named."""
        from_row, from_column = self._anchor or (self.row, self.column)
        if not min(self.row, from_row) <= row <= max(self.row, from_row):
            return range(0)
        return range(min(self.column, from_column), max(self.column, from_column) + 1)

    # --- moves ------------------------------------------------------------------------------------

    def go(self, rows: int, columns: int, *, extend: bool) -> None:
        """Move; with `extend` what is left behind stays named. A range never leads from the layers to the
        ends.
        """
        row, column = self.row, self.column
        if extend:
            self._anchor = self._anchor or (row, column)
            row = row if row == ENDS else max(0, min(ENDS - 1, row + rows))
        else:
            self._anchor = None
            row = max(0, min(ENDS, row + rows))
        if (row == ENDS) != (self.row == ENDS):
            column = 0 if row == ENDS else self.layer
        self._move(row, max(0, min(self._last(row), column + columns)))

    def put(self, row: int, column: int, *, extend: bool) -> None:
        """Go to a cell; with `extend` what lies between is named, where that makes a range."""
        extend = extend and (row == ENDS) == (self.row == ENDS)
        self._anchor = (self._anchor or (self.row, self.column)) if extend else None
        self._move(row, column)

    def name_row(self) -> None:
        """Name all of the row."""
        self._anchor = (self.row, 0)
        self._move(self.row, self._last(self.row))

    def _move(self, row: int, column: int) -> None:
        self.row, self.column = row, column
        if row != ENDS:
            self.layer = column
