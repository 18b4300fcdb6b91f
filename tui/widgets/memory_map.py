"""The memory map: a cell for each matrix of each layer, with a cursor that can name a range of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from core.weights.names import MATRICES
from tui.cells import Cell, Grid
from tui.map_axis import Axis
from tui.map_cursor import ENDS, MapCursor
from tui.map_words import end_words, megabytes, row_place

_LABEL = 5  # the cursor's mark, the kind, a gap
_RIGHT = ((3, 18), (3, 9), (2, 18), (1, 18), (2, 9), (1, 9), (1, 0))
"""How wide a layer and what is at the right may be: the first pair that has room for all layers."""
_PLACED, _SIZED = 18, 9  # cells at the right for size and place, for the size alone
_STYLES = {"G": "gpu", "S": "streamed", "P": "pageable", "D": "disk", "C": "cpu"}
_ROOMY = 70  # cells from which the ends are spelled out

Parts = list[tuple[str, Style]]


class MemoryMap(Widget, can_focus=True):
    """Draws a Grid. A letter says where a cell lies, a small one where it would; reverse is what moves now,
    bold what is computed with.
    """

    COMPONENT_CLASSES = {
        *(f"map--{name}" for name in _STYLES.values()),
        "map--changed",
        "map--moving",
        "map--computing",
        "map--selected",
        "map--axis",
        "map--cursor",
    }

    class Moved(Message):
        """The cursor names other cells."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._grid: Grid | None = None
        self._changes: Mapping[str, str] = {}
        self._moving: Set[str] = frozenset()
        self._computing: Set[str] = frozenset()
        self._unit = ""  # that is copied or computed, where it is a tile of the head
        self._cursor = MapCursor()
        self._first = 0  # the leftmost layer in sight
        self._strips: dict[int, Strip] = {}
        self._looks: dict[tuple[object, ...], Style] = {}
        self._margins: dict[int, Parts] = {}  # what is at the right of each row
        self._spots: list[tuple[int, int]] = []  # first and last cell of each end in its line

    # --- what is shown ----------------------------------------------------------------------------

    def show(self, grid: Grid, changes: Mapping[str, str]) -> None:
        """Show where every weight is, and the letters of those that would be elsewhere."""
        self._grid, self._changes = grid, changes
        self._cursor.fit(grid)
        self._reveal()
        self._repaint()

    def light(self, moving: Set[str], computing: Set[str], tile: str = "") -> None:
        """Show what moves and what is computed with; `tile` is the part of the output head, in words."""
        lit = (self._moving ^ moving) | (self._computing ^ computing)
        if tile != self._unit:
            lit = lit | {"output"}
        self._moving, self._computing, self._unit = moving, computing, tile
        regions: dict[int, Region] = {}
        for name in lit:
            region = self._region_of(name)
            regions[region.y] = regions.get(region.y, region).union(region)
        for y, region in regions.items():  # one each: Textual writes a line from its beginning for each
            self._strips.pop(y, None)
            self.refresh(region)

    @property
    def moving(self) -> Set[str]:
        """The cells that are shown to move."""
        return self._moving

    @property
    def computing(self) -> Set[str]:
        """The cells that are shown to be computed with."""
        return self._computing

    def _region_of(self, name: str) -> Region:
        """Where a cell is drawn; the line of the ends as a whole."""
        prefix, _, kind = name.rpartition(".")
        if kind not in MATRICES:
            return Region(0, ENDS + 1, self.size.width, 1)
        cell = self._cell
        layer = int(prefix.rpartition(".")[2])
        return Region(_LABEL + (layer - self._first) * cell, MATRICES.index(kind) + 1, cell, 1)

    # --- the cursor -------------------------------------------------------------------------------

    @property
    def selected(self) -> tuple[Cell, ...]:
        """The cells that the cursor names, at least one once there is a grid."""
        return self._cursor.cells

    def go(self, rows: int, columns: int, *, extend: bool = False) -> None:
        """Move the cursor; with `extend` what it leaves stays named."""
        if self._grid is not None:
            self._cursor.go(rows, columns, extend=extend)
            self._moved()

    def name_row(self) -> None:
        """Name all layers of the cursor's row, or all ends."""
        if self._grid is not None:
            self._cursor.name_row()
            self._moved()

    def _moved(self) -> None:
        self._reveal()
        self._repaint()
        self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        """The cursor goes to the cell under the mouse; with shift, what lies between is named."""
        offset = event.get_content_offset_capture(self)
        row, column = offset.y - 1, self._column_at(offset.x, offset.y - 1)
        if column is not None:
            self._cursor.put(row, column, extend=event.shift)
            self._moved()

    def _column_at(self, x: int, row: int) -> int | None:
        """The layer, or the number of the end, at `x` in a row; None where no cell is."""
        if self._grid is None or not 0 <= row <= ENDS:
            return None
        if row == ENDS:
            return next((i for i, (start, end) in enumerate(self._spots) if start <= x < end), None)
        layer = self._first + (x - _LABEL) // self._cell
        return layer if self._first <= layer < min(self._grid.layers, self._first + self._visible) else None

    # --- geometry ---------------------------------------------------------------------------------

    @property
    def _form(self) -> tuple[int, int]:
        """Cells for a layer, and those at the right."""
        room = self.size.width - _LABEL
        layers = 0 if self._grid is None else self._grid.layers
        return next((form for form in _RIGHT if form[0] * layers + form[1] <= room), _RIGHT[-1])

    @property
    def _cell(self) -> int:
        return self._form[0]

    @property
    def _visible(self) -> int:
        """How many layers there is room for."""
        cell, right = self._form
        return max(1, (self.size.width - _LABEL - right) // cell)

    def _reveal(self) -> None:
        """Scroll as little as shows the cursor."""
        grid = self._grid
        if grid is not None:
            layer = self._cursor.layer
            first = max(layer - self._visible + 1, min(self._first, layer))
            self._first = max(0, min(first, grid.layers - self._visible))

    def on_resize(self) -> None:
        """Another width shows other layers."""
        self._reveal()
        self._repaint()

    def notify_style_update(self) -> None:
        """Other colours."""
        super().notify_style_update()
        self._looks.clear()
        self._repaint()

    def _repaint(self) -> None:
        self._margins.clear()
        self._strips.clear()
        self.refresh()

    # --- painting ---------------------------------------------------------------------------------

    def render_line(self, y: int) -> Strip:
        """The numbers of the layers, a line for each kind of matrix, and the ends."""
        strip = self._strips.get(y)
        if strip is None:
            line = Strip(self._segments(y))
            strip = self._strips[y] = line.adjust_cell_length(self.size.width, self._part())
        return strip

    def _segments(self, y: int) -> list[Segment]:
        if self._grid is None or y > ENDS + 1:
            return []
        parts = self._axis() if y == 0 else self._ends() if y == ENDS + 1 else self._row(y - 1)
        return [Segment(text, style) for text, style in parts]

    def _axis(self) -> Parts:
        """Numbers of layers, that of the cursor in its own style, and the heads of what is at the right."""
        assert self._grid is not None
        (cell, right), layers = self._form, self._grid.layers
        cursor = None if self._cursor.row == ENDS else self._cursor.layer
        layout = Axis(self._first, min(self._visible, layers - self._first), layers, cell)
        line, number = layout.line(cursor)
        muted = self._part("map--axis")
        heads = f"{'MB/layer':>{_SIZED}}" if right else ""
        return [
            (" " * _LABEL, self._part()),
            (line[: number.start], muted),
            (line[number.start : number.stop], self._part("map--cursor")),
            (line[number.stop :] + heads + (" place" if right == _PLACED else ""), muted),
        ]

    def _row(self, row: int) -> Parts:
        assert self._grid is not None
        cells, (cell_width, right) = self._grid.rows[row], self._form
        named = self._cursor.named(row)
        parts = [self._label(row, MATRICES[row])]
        for layer in range(self._first, min(len(cells), self._first + self._visible)):
            letter, style = self._cell_look(cells[layer], layer in named)
            if cell_width == 3:
                before = "[" if named and layer == named[0] else " "
                after = "]" if named and layer == named[-1] else " "
                text = f"{before}{letter}{after}"
            else:
                text = letter.ljust(cell_width)
            _join(parts, text, style)
        if row not in self._margins:
            self._margins[row] = [*self._margin(cells, right)]
        return [*parts, *self._margins[row]]

    def _margin(self, cells: tuple[Cell, ...], right: int) -> Iterator[tuple[str, Style]]:
        """What a layer takes of this kind, and where it lies."""
        if right:
            size = megabytes(sum(cell.nbytes for cell in cells) / len(cells))
            yield f"{size:>{_SIZED}}", self._part()
        if right == _PLACED:
            letters = [self._changes.get(cell.name, cell.letter) for cell in cells]
            yield f" {row_place(letters)}", self._part()

    def _ends(self) -> Parts:
        """Norms, embeddings and the output head, with what of it is at work."""
        grid = self._grid
        assert grid is not None
        parts = [self._label(ENDS, "")]
        self._spots.clear()
        at = len(parts[0][0])
        for index, cell in enumerate(grid.ends):
            named = index in self._cursor.named(ENDS)
            letter, style = self._cell_look(cell, named)
            name, note = end_words(cell, grid, self._unit, roomy=self.size.width >= _ROOMY)
            before, after = ("[", "]") if named else (" ", " ")
            parts += [(f"{name} ", self._part()), (f"{before}{letter}{after}", style)]
            parts.append((f"{note}  ", self._part()))
            width = len(name) + 4 + len(note) + 2
            self._spots.append((at, at + width))
            at += width
        return parts

    def _label(self, row: int, name: str) -> tuple[str, Style]:
        """The name of a row, marked where the cursor is."""
        mark, style = ("▸", "map--cursor") if row == self._cursor.row else (" ", "map--axis")
        return f"{mark}{name}".ljust(_LABEL), self._part(style)

    def _cell_look(self, cell: Cell, selected: bool) -> tuple[str, Style]:
        after = self._changes.get(cell.name)
        letter = cell.letter if after is None else after
        lit = (cell.name in self._computing, cell.name in self._moving)
        flags = (after is not None, selected, *lit)
        style = self._looks.get((letter, flags))
        if style is None:
            marks = zip(("changed", "selected", "computing", "moving"), flags, strict=True)
            names = (f"map--{name}" for name, on in marks if on)
            style = self._looks[letter, flags] = self._part(f"map--{_STYLES[letter]}", *names)
        return (letter if after is None else letter.lower()), style

    def _part(self, *names: str) -> Style:
        """Component styles, one over the other: their colours are mixed with what is behind them."""
        style = self._looks.get(names)
        if style is None:
            style = self.get_visual_style(*names).rich_style if names else self.rich_style
            for name in names:  # of a text style that leaves out "reverse"
                style += self.get_component_styles(name).text_style
            self._looks[names] = style
        return style


def _join(parts: Parts, text: str, style: Style) -> None:
    """Add to the last part where it looks the same: fewer segments are faster to draw."""
    if parts[-1][1] is style:  # comparing two takes longer than a segment more
        parts[-1] = (parts[-1][0] + text, style)
    else:
        parts.append((text, style))
