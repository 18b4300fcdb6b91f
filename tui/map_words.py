"""The memory map in words: what a cell is and takes, what is in the slots, what a change would give."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from core.engine.events import Activity, InSlot, Snapshot
from core.sizes import format_size
from core.weights.names import MATRICES
from core.weights.plan import Plan
from tui import meters
from tui.cells import NORMS, PLACES, STREAMED, Cell, Grid
from tui.figures import gigabytes
from tui.placement import Placement
from tui.placement_words import figures, limit_word
from tui.widgets.bars import level

_SHORT = {"G": "GPU", "S": "pinned", "P": "pageable", "D": "disk", "C": "CPU"}
_BAR = 8  # cells


def megabytes(nbytes: float) -> str:
    """MB: "0.07", "5.5", "33.6", "271"."""
    value = nbytes / 1e6
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 0.995 else 2}f}"


def milliseconds(seconds: float) -> str:
    """A time in ms: "404 ms", "4.2 ms", "0.13 ms"."""
    value = 1e3 * seconds
    digits = 0 if value >= 99.5 else 1 if value >= 0.995 else 2
    return f"{value:.{digits}f} ms" if value >= 0.005 else "<0.01 ms"


def row_place(letters: Sequence[str]) -> str:
    """Where a row lies in at most 8 characters: a word, or how many cells lie where."""
    counts = {letter: letters.count(letter) for letter in PLACES if letter in letters}
    if len(counts) == 1:
        return _SHORT[letters[0]]
    words = " ".join(f"{letter}{count}" for letter, count in counts.items())
    return words if len(words) <= 8 else "mixed"


def whole(grid: Grid) -> str:
    """The model's size: "32 layers · float16 · 13.5 GB"."""
    needs = grid.plan.needs
    return f"{grid.layers} layers · {needs.format} · {format_size(needs.weights)}"


def legend(grid: Grid) -> tuple[str, ...]:
    """What the letters mean and how many bytes lie there, and what reverse and bold are."""
    amounts = dict.fromkeys(PLACES, 0)
    for cell in grid.cells():
        amounts[cell.letter] += cell.nbytes
    words = {"G": "GPU", "S": "streamed", "P": "pageable", "D": "disk", "C": "on CPU"}
    return (
        *(
            f"{letter} {words[letter]}" + (f" {format_size(amount)}" if amount else "")
            for letter, amount in amounts.items()
        ),
        "reverse moving",
        "bold computing",
    )


def end_words(cell: Cell, grid: Grid, tile: str, *, roomy: bool) -> tuple[str, str]:
    """What an end of the model is called, and what is said of it: `tile` is what of the head is at work."""
    if cell.name == "output":
        note = tile or (f"{grid.tiles} tiles" if grid.tiles > 1 else "")
        if grid.plan.needs.tied:
            return ("embeddings + output" if roomy else "emb+out"), note
        return ("output" if roomy else "out"), note
    if cell.name == NORMS:
        return NORMS, ""
    note = "a row at a time" if roomy and cell.letter in "PD" else ""
    return ("embeddings" if roomy else "emb"), note


# --- slots and link -----------------------------------------------------------------------------


def slot_words(activity: Activity, plan: Plan) -> tuple[str, ...]:
    """What is in each slot and what becomes of it, all of one width, so that nothing moves on the screen."""
    if not plan.rings:
        return ("nothing is streamed",)
    longest = max(len(_unit(name)) for ring in plan.rings for name in ring.units)
    entries = []
    for i, ring in enumerate(plan.rings):
        slot = activity.slots[i] if i < len(activity.slots) else None
        name, state = (
            ("empty", "") if slot is None else (_unit(slot.unit), _state(slot, activity, ring.units))
        )
        entries.append(f"{i}: {name:{longest}} {state:{_BAR + 6}}")
    return tuple(entries)


def _state(slot: InSlot, activity: Activity, units: Collection[str]) -> str:
    if slot.state == "there":
        return "computing" if slot.unit == activity.computing else "stays" if len(units) == 1 else "ready"
    if slot.state == "waiting":
        return "waits"
    if not slot.moved:  # some devices tell no more than that a copy is over
        return "copying"
    share = slot.moved / slot.nbytes
    return f"{level(share, _BAR)} {100 * share:3.0f} %"


def _unit(name: str) -> str:
    return name.removeprefix("layers.")


def tile_words(activity: Activity, tiles: int) -> str:
    """Which tile of the output head is at work: "tile 3/8"; nothing where none is."""
    copying = next((slot.unit for slot in activity.slots if slot is not None and slot.state == "copying"), "")
    for unit in (activity.computing or "", copying):
        head, _, number = unit.partition(".")
        if head == "output" and tiles > 1:
            return f"tile {int(number) + 1}/{tiles}"
    return ""


def link_words(plan: Plan, snapshot: Snapshot | None) -> tuple[str, ...]:
    """What a token moves by the plan, and how fast the engine moves bytes now, by its own count."""
    if not plan.streamed_per_token:
        return ("nothing is copied for a token",)
    parts = [f"{gigabytes(plan.streamed_per_token)} GB/token"]
    if snapshot is not None:
        bus, disk = meters.bus(snapshot), meters.disk(snapshot)
        if plan.vram is not None:
            word = "simulated" if bus.simulated else "engine"
            rate = f"{meters.speed(bus.to_gpu)} of {meters.speed(bus.link)} GB/s {bus.share}".rstrip()
            parts.append(f"PCIe {rate} ({word})")
        if plan.disk:
            parts.append(f"disk {meters.speed(disk)} GB/s")
    return tuple(parts)


# --- the cursor ---------------------------------------------------------------------------------


def cursor_words(
    cells: Sequence[Cell], grid: Grid, changes: Mapping[str, str], *, brief: bool = False
) -> tuple[str, ...]:
    """What the cursor names: which weights, how large, where, and what a token spends on them.

    `brief` leaves out what there is no room for in a small terminal.
    """
    if not cells:
        return ()
    size, first = format_size(sum(cell.nbytes for cell in cells)), cells[0]
    if len(cells) == 1:
        name = "embeddings + output" if first.name == "output" and grid.plan.needs.tied else first.name
        after = changes.get(first.name)
        where = _where(first) + ("" if after is None else f", then {PLACES[after]}")
        shape = () if first.shape is None else (f"{first.shape[0]} x {first.shape[1]}",)
        parts = (name, size, where) if brief else (name, *shape, first.format, size, where)
    else:
        where = _counted([cell.letter for cell in cells])
        if any(cell.name in changes for cell in cells):
            where += f", then {_counted([changes.get(cell.name, cell.letter) for cell in cells])}"
        parts = (f"{len(cells)} cells: {_range(cells)}", size, where)
    return (*parts, _time(cells, grid.plan))


def _counted(letters: Sequence[str]) -> str:
    """How many cells lie where: "12 GPU + 18 pinned RAM"."""
    counts = {letter: letters.count(letter) for letter in PLACES if letter in letters}
    return " + ".join(f"{count} {PLACES[letter]}" for letter, count in counts.items())


def _where(cell: Cell) -> str:
    """Where a cell lies, and through which slot it passes."""
    place = PLACES[cell.letter]
    if cell.name == "embeddings" and cell.letter in "PD":
        return f"{place}, a row at a time"
    if cell.letter not in STREAMED:
        return place
    return f"{place} → slots" if cell.slot is None else f"{place} → slot {cell.slot}"


def _range(cells: Sequence[Cell]) -> str:
    """A range of cells as the command line names it, as far as it has one name."""
    kinds = dict.fromkeys(cell.name.rpartition(".")[2] for cell in cells)
    layers = sorted({int(cell.name.split(".")[1]) for cell in cells if cell.name.startswith("layers.")})
    words = " ".join(kinds)
    if not layers:
        return words
    span = f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else str(layers[0])
    return f"layers.{span} {'' if len(kinds) == len(MATRICES) else words}".rstrip()


def _time(cells: Sequence[Cell], plan: Plan) -> str:
    """What a token spends on cells by the plan's rates; copies and kernels of other units overlap."""
    copy, compute = sum(cell.copy_s for cell in cells), sum(cell.compute_s for cell in cells)
    total = milliseconds(1 / plan.predicted_tok_s)
    word = "simulated" if plan.budget.simulated else "predicted"
    spent = [f"copied {milliseconds(copy)}"] if copy else []
    if compute:
        spent.append(f"computed {milliseconds(compute)}")
    if not spent:
        return f"no time worth telling of {total} per token, {word}"
    return f"{', '.join(spent)} of {total} per token, {word}"


# --- what-if ------------------------------------------------------------------------------------


def what_if_words(placement: Placement, count: int, *, brief: bool = False) -> tuple[str, ...]:
    """What the pending change of `count` cells takes and gives, or the planner's refusal."""
    plan = placement.plan
    if plan is None:
        return ("known when the model is loaded",)
    if not placement.available:
        if plan.streamed_per_token:
            return (f"on the CPU; {gigabytes(plan.streamed_per_token)} GB/token from disk",)
        if brief:
            return ("all on the CPU: nothing to place",)
        return ("everything is computed on the CPU: nothing is streamed, and there is nothing to place",)
    forecast = placement.forecast()
    if isinstance(forecast, str):
        return (forecast,)
    parts = figures(plan, forecast)
    if placement.pending and not brief:
        start = f"{count} change{'s' if count != 1 else ''}" if count else "change"
        start += " (small letters): " if count else ": "
        parts = (start + parts[0], *parts[1:])
    return (*parts, f"limited by: {limit_word(forecast)}")
