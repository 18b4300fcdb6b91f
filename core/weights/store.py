"""Where the bytes of every weight are now, and how they come to where a plan has them.

A weight's bytes exist once: on the device, in host memory, or in the packed file alone. What of a unit is
streamed lies in host memory as one flat piece, laid out as in a slot. Every step leaves each weight with
whole bytes somewhere, so that a move that fails can be followed by another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from core.weights.host import HostBlock, Registrar
from core.weights.lane import HostSource, Lane, Source
from core.weights.ledger import Ledger
from core.weights.needs import Needs, UnitNeed, WeightNeed, aligned
from core.weights.packed import PackedFile
from core.weights.plan import Place, Plan


@dataclass(slots=True)
class Home:
    """Where a weight is: `memory` [its bytes] is None where that is the packed file. `block` holds it."""

    place: Place
    memory: Tensor | None
    block: HostBlock | None = None


@dataclass(frozen=True, slots=True)
class _Flat:
    names: tuple[str, ...]
    block: HostBlock


Fill = Callable[[str, Tensor], None]
"""Puts the bytes of a weight into memory of its size."""


def groups(needs: Needs) -> list[UnitNeed]:
    """What lies together: every unit of a layer, the whole output head, the embedding."""
    layers = [unit for unit in needs.units if not unit.name.startswith("output.")]
    head = sum(w.nbytes for unit in needs.units[len(layers) :] for w in unit.weights)
    rest = [UnitNeed("output", (WeightNeed("output", head),))]
    if not needs.tied:
        rest.append(UnitNeed("embeddings", (WeightNeed("embeddings", needs.embeddings),)))
    return layers + rest


def flat(weights: Iterable[WeightNeed]) -> dict[str, int]:
    """Where each weight begins in the flat bytes of those of a unit that are streamed."""
    offsets, end = {}, 0
    for weight in weights:
        offsets[weight.name] = end
        end += aligned(weight.nbytes)
    return offsets


class Store:
    """The homes of all weights. `registrar` is None where nothing can be pinned or need be."""

    def __init__(self, lane: Lane, ledger: Ledger, registrar: Registrar | None) -> None:
        self.homes: dict[str, Home] = {}
        self.norms: Tensor | None = None  # uint8, flat on the device
        self.packed: PackedFile | None = None
        self._lane, self._ledger, self._registrar = lane, ledger, registrar
        self._flats: dict[str, _Flat] = {}
        self._blocks: list[HostBlock] = []  # all that are not given back

    def place(self, plan: Plan, fill: Fill) -> None:
        """Bring every weight to its place in `plan`; `fill` is asked for the bytes of each that moves.

        Device memory is given back before more is taken. Raises torch.OutOfMemoryError where the device
        has too little all the same, UserError where the host has; then the homes are as far as they came.
        Nobody may use device memory of the weights meanwhile.
        """
        if self.norms is None:
            self.norms = self._lane.empty(plan.needs.norms)
        order = sorted(groups(plan.needs), key=lambda group: min(0, self._takes(group, plan)))
        for group in order:
            self._place(group, plan, fill)
            self._sweep()
        self._count()

    def moves(self, plan: Plan) -> list[tuple[str, int]]:
        """The weights that have to move for `plan`, and their bytes; none moves to the packed file."""
        moving = []
        for group in groups(plan.needs):
            streamed = tuple(w.name for w in group.weights if plan.places[w.name] is Place.RAM)
            old = self._flats.get(group.name)
            for weight in group.weights:
                place = plan.places[weight.name]
                again = place is Place.RAM and (old is None or old.names != streamed)
                if again or (place is not Place.DISK and not self._is_at(weight.name, place)):
                    moving.append((weight.name, weight.nbytes))
        return moving

    def read(self, name: str, start: int, memory: Tensor) -> None:
        """Bytes of the embedding, or of the head it is tied to, from `start` on, into `memory` [bytes]."""
        home = self.homes[name].memory
        if home is not None:
            memory.copy_(home[start : start + memory.nbytes])
        else:
            assert self.packed is not None
            self.packed.read_part(name, start, memory)

    def copy(self, name: str, memory: Tensor) -> bool:
        """Copy a weight from where it is now; False where that is the packed file alone."""
        home = self.homes[name]
        if home.memory is None:
            return False
        memory.copy_(home.memory)
        return True

    def pin(self) -> int:
        """Pin what is streamed from host memory; the bytes that could not be pinned."""
        refused = 0
        for name, piece in self._flats.items():
            if name == "embeddings" or piece.block.pinned:
                continue
            if self._registrar is None or not piece.block.pin(self._registrar):
                refused += piece.block.nbytes
        self._count()
        return refused

    @property
    def pageable(self) -> frozenset[str]:
        """What is streamed from memory that is not pinned: units, and "output" and "embeddings"."""
        return frozenset(name for name, piece in self._flats.items() if not piece.block.pinned)

    def source(self, unit: UnitNeed, plan: Plan) -> Source:
        """Where the streamed part of a unit waits; of a tile of the head, its rows."""
        tile = unit.name.startswith("output.")
        place = plan.places["output"] if tile else None
        if place is Place.DISK or (not tile and any(plan.places[w.name] is Place.DISK for w in unit.weights)):
            assert self.packed is not None
            names = [w.name for w in unit.weights if tile or plan.places[w.name] is Place.DISK]
            return self.packed.source(unit, names)
        if tile:
            block = self._flats["output"].block
            start = 0
            for other in plan.needs.units:
                if other.name == unit.name:
                    return HostSource(block, start, unit.weights[0].nbytes)
                if other.name.startswith("output."):
                    start += other.weights[0].nbytes
            raise ValueError(f"{unit.name} is no tile of this head")
        return HostSource(self._flats[unit.name].block, 0, self._flats[unit.name].block.nbytes)

    def close(self) -> None:
        """Give all memory back. Nothing may use it any more."""
        self.homes.clear()
        self.norms = None
        self._flats.clear()
        self._sweep()
        self._count()

    def _takes(self, group: UnitNeed, plan: Plan) -> int:
        """By how much the device's share of a group grows; groups that give back go first."""
        now = sum(
            w.nbytes for w in group.weights if w.name in self.homes and self.homes[w.name].place is Place.GPU
        )
        return sum(w.nbytes for w in group.weights if plan.places[w.name] is Place.GPU) - now

    def _place(self, group: UnitNeed, plan: Plan, fill: Fill) -> None:
        """Host memory first, then what the device gives back, then what comes to it."""
        places = {w.name: plan.places[w.name] for w in group.weights}
        streamed = [w for w in group.weights if places[w.name] is Place.RAM]
        old = self._flats.get(group.name)
        names = tuple(w.name for w in streamed)
        if names != (old.names if old else ()):
            self._flatten(group.name, streamed, fill)
        for weight in group.weights:
            if places[weight.name] is Place.CPU and not self._is_at(weight.name, Place.CPU):
                block = self._block(weight.nbytes)
                fill(weight.name, block.tensor)
                self.homes[weight.name] = Home(Place.CPU, block.tensor, block)
            elif places[weight.name] is Place.DISK:
                self.homes[weight.name] = Home(Place.DISK, None)
        for weight in group.weights:
            if places[weight.name] is Place.GPU and not self._is_at(weight.name, Place.GPU):
                memory = self._lane.empty(weight.nbytes)
                fill(weight.name, memory)
                self.homes[weight.name] = Home(Place.GPU, memory)
        if not streamed:
            self._flats.pop(group.name, None)

    def _flatten(self, group: str, weights: list[WeightNeed], fill: Fill) -> None:
        """Lay out in host memory what of a group is streamed; what was there before is not given back."""
        if not weights:
            return
        nbytes = sum(aligned(w.nbytes) for w in weights)
        whole = group in ("output", "embeddings")
        block = self._block(weights[0].nbytes if whole else nbytes)
        homes = {}
        for weight, start in zip(weights, flat(weights).values(), strict=True):
            memory = block.tensor[start : start + weight.nbytes]
            fill(weight.name, memory)
            homes[weight.name] = Home(Place.RAM, memory, block)
        self.homes |= homes
        self._flats[group] = _Flat(tuple(homes), block)

    def _block(self, nbytes: int) -> HostBlock:
        block = HostBlock(nbytes)
        self._blocks.append(block)
        return block

    def _sweep(self) -> None:
        """Give back host memory in which no weight lives any more."""
        used = {id(piece.block) for piece in self._flats.values()}
        used |= {id(home.block) for home in self.homes.values() if home.block is not None}
        for block in self._blocks:
            if id(block) not in used:
                block.close()
        self._blocks = [block for block in self._blocks if id(block) in used]

    def _is_at(self, name: str, place: Place) -> bool:
        return name in self.homes and self.homes[name].place is place

    def _count(self) -> None:
        """Tell the ledger what is where."""
        homes, ledger = self.homes.values(), self._ledger
        gpu = sum(home.memory.nbytes for home in homes if home.place is Place.GPU and home.memory is not None)
        ledger.device["resident"] = gpu + (0 if self.norms is None else self.norms.nbytes)
        blocks = [piece.block for piece in self._flats.values()]
        ledger.host["pinned"] = sum(block.nbytes for block in blocks if block.pinned)
        ledger.host["pageable"] = sum(block.nbytes for block in blocks if not block.pinned)
        cpu = (home.memory for home in homes if home.place is Place.CPU)
        ledger.host["cpu"] = sum(memory.nbytes for memory in cpu if memory is not None)
