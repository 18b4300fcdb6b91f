"""The weights of a model as cells: one for each matrix of each layer, and the model's ends. No Textual."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass

from core.engine.events import Activity
from core.weights.frame import place_name
from core.weights.names import MATRICES, layer_count
from core.weights.needs import UnitNeed, WeightNeed, aligned
from core.weights.plan import Place, Plan
from tui.placement import Placement

PLACES = {"G": "GPU", "S": "pinned RAM", "P": "pageable RAM", "D": "disk", "C": "CPU"}
"""A letter for every place, and its words."""

STREAMED = "SPD"
NORMS = "norms"


@dataclass(frozen=True, slots=True)
class Cell:
    """A matrix of a layer by its short name, or an end of the model: "norms", "embeddings", "output".

    `letter` says where it lies, and `streamed` how many of its bytes a token brings to the device, through
    the `slot` of that number. `copy_s` and `compute_s` are the seconds of that by the plan's rates. `shape`
    are rows and columns, None for what is no single matrix.
    """

    name: str
    letter: str
    format: str
    shape: tuple[int, int] | None
    nbytes: int
    streamed: int
    slot: int | None
    copy_s: float
    compute_s: float


@dataclass(frozen=True, slots=True)
class Grid:
    """All weights of a plan. `rows` are the kinds of matrices, each with a cell a layer.

    `units` names the cells of every unit; all tiles of the output head are the one cell "output".
    `streamed` are the cells whose bytes take their turns in slots.
    """

    plan: Plan
    rows: tuple[tuple[Cell, ...], ...]
    ends: tuple[Cell, ...]
    units: Mapping[str, tuple[str, ...]]
    streamed: frozenset[str]

    @property
    def layers(self) -> int:
        """How many layers the model has."""
        return len(self.rows[0])

    @property
    def tiles(self) -> int:
        """In how many tiles the output head is computed."""
        return len(self.plan.needs.tile_rows) - 1

    def cells(self) -> Iterator[Cell]:
        """Every cell once."""
        for row in self.rows:
            yield from row
        yield from self.ends


def grid_of(plan: Plan, pageable: frozenset[str] = frozenset()) -> Grid:
    """The cells of `plan`; `pageable` is what is streamed from memory that is not pinned, see Placed."""
    sources = _Sources(plan, pageable)
    cells: dict[str, Cell] = {}
    tiles = []
    for unit in plan.needs.units:
        for weight in unit.weights:
            cell = sources.cell(unit, weight)
            if cell.name == "output":
                tiles.append(cell)
            else:
                cells[cell.name] = cell
    layers = range(layer_count(plan.needs))
    head = sources.head(tiles)
    return Grid(
        plan,
        tuple(tuple(cells[f"layers.{i}.{kind}"] for i in layers) for kind in MATRICES),
        (sources.norms(), *sources.embeddings(), head),
        {u.name: tuple(dict.fromkeys(place_name(w.name) for w in u.weights)) for u in plan.needs.units},
        frozenset(cell.name for cell in (*cells.values(), head) if cell.letter in STREAMED),
    )


class _Sources:
    """Where the weights of a plan lie, and what it takes to bring and to use them."""

    def __init__(self, plan: Plan, pageable: frozenset[str]) -> None:
        self._plan, self._pageable = plan, pageable
        self._slots = {unit: i for i, ring in enumerate(plan.rings) for unit in ring.units}
        self._moving = {unit for ring in plan.rings if len(ring.units) > 1 for unit in ring.units}
        rates = plan.rates
        cpu, gpu, link, disk = (1e9 * r.gb_s for r in (rates.cpu, rates.gpu, rates.link, rates.disk))
        on_cpu = plan.vram is None
        self._link = disk if on_cpu else link
        self._disk = min(self._link, disk)
        self._near, self._cpu = cpu if on_cpu else gpu, cpu

    def cell(self, unit: UnitNeed, weight: WeightNeed) -> Cell:
        """A matrix, or a tile of the head."""
        name = place_name(weight.name)
        letter = self._letter(name, "output" if name == "output" else unit.name)
        streamed = aligned(weight.nbytes) if letter in STREAMED and unit.name in self._moving else 0
        return Cell(
            name,
            letter,
            weight.format,
            weight.shape,
            weight.nbytes,
            streamed,
            self._slots.get(unit.name) if letter in STREAMED else None,
            streamed / (self._disk if letter == "D" else self._link),
            weight.nbytes / (self._cpu if letter == "C" else self._near),
        )

    def head(self, tiles: list[Cell]) -> Cell:
        """The output head; where that is the embedding too, with the row that a token takes of it."""
        first, needs = tiles[0], self._plan.needs
        row = self._row("output") if needs.tied else 0
        return Cell(
            "output",
            first.letter,
            first.format,
            (needs.tile_rows[-1], (first.shape or (0, 0))[1]),
            sum(tile.nbytes for tile in tiles),
            sum(tile.streamed for tile in tiles) + row,
            None,
            sum(tile.copy_s for tile in tiles),
            sum(tile.compute_s for tile in tiles),
        )

    def embeddings(self) -> Iterator[Cell]:
        """The embedding, of which a token takes a row; none where it is the output head."""
        needs = self._plan.needs
        if needs.tied:
            return
        row, letter = self._row("embeddings"), self._letter("embeddings", "embeddings")
        columns = next(u for u in needs.units if u.name.startswith("output.")).weights[0].shape[1]
        shape = (needs.tile_rows[-1], columns)
        yield Cell("embeddings", letter, needs.embedding_format, shape, needs.embeddings, row, None, 0.0, 0.0)

    def norms(self) -> Cell:
        """All norms, which always stay where the model is computed."""
        needs = self._plan.needs
        letter = "C" if self._plan.vram is None else "G"
        return Cell(NORMS, letter, needs.dtype, None, needs.norms, 0, None, 0.0, needs.norms / self._near)

    def _letter(self, name: str, group: str) -> str:
        match self._plan.places[name]:
            case Place.GPU:
                return "G"
            case Place.CPU:
                return "C"
            case Place.DISK:
                return "D"
            case Place.RAM:
                return "P" if group in self._pageable or name == "embeddings" else "S"

    def _row(self, name: str) -> int:
        """Bytes of the embedding that a token brings to the device."""
        by_rows = self._plan.vram is not None and self._plan.places[name] is not Place.GPU
        return self._plan.needs.embedding_row if by_rows else 0


def changes(placement: Placement, grid: Grid) -> dict[str, str]:
    """The letters that the pending wish gives to cells that have others now.

    Where the planner refuses it, those that were asked for, so that they can be taken back.
    """
    if not placement.pending:
        return {}
    forecast = placement.forecast()
    places = _asked(placement, grid.plan) if isinstance(forecast, str) else forecast.places
    placed = [cell for cell in grid.cells() if cell.name != NORMS]
    after = {cell.name: _after(cell, places[cell.name]) for cell in placed}
    return {cell.name: after[cell.name] for cell in placed if after[cell.name] != cell.letter}


def _asked(placement: Placement, plan: Plan) -> Mapping[str, Place]:
    """Where the wish has every weight, though it cannot be had."""
    kept, on_cpu = placement.named()

    def place(name: str, now: Place) -> Place:
        if name in kept:
            return Place.GPU
        if name in on_cpu:
            return Place.CPU
        return now if now in (Place.RAM, Place.DISK) else Place.RAM

    return {name: place(name, now) for name, now in plan.places.items()}


def _after(cell: Cell, place: Place) -> str:
    if place is Place.RAM:
        return cell.letter if cell.letter in "SP" else "P" if cell.name == "embeddings" else "S"
    return {Place.GPU: "G", Place.CPU: "C", Place.DISK: "D"}[place]


def moving(activity: Activity, grid: Grid) -> Set[str]:
    """The cells whose bytes are on their way at this moment."""
    units = [slot.unit for slot in activity.slots if slot is not None and slot.state == "copying"]
    names = {name for unit in units for name in grid.units.get(unit, ())} & grid.streamed
    return names | {activity.placing} if activity.placing else names


def computing(activity: Activity, grid: Grid) -> Set[str]:
    """The cells that are computed with at this moment."""
    return frozenset(grid.units.get(activity.computing or "", ()))
