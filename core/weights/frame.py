"""What one call of the planner works on: the sizes and times of a model, and the order of keeping. No torch.

A layout keeps a set of weights on the device, one of a fixed list of sets that no budget has a part in, and
streams the rest. What is possible with little memory stays possible with more: that is why more memory is
never slower.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from core.errors import UserError
from core.weights.names import layer_count, select
from core.weights.needs import Needs, aligned
from core.weights.pipeline import deal
from core.weights.plan import Budget, Choice, Place, Rate, Rates

STAGING = 64 * 10**6  # bytes; buffers between the disk and what is read from it

_LARGE_FIRST = ("w1", "w3", "w2", "output", "wo", "wq", "wv", "wk")
_EVEN = ("w1", "w3", "output", "wo", "wq", "w2", "wv", "wk")
_SMALL_FIRST = ("wk", "wv", "wq", "wo")
_MOST_SETS = 1200  # more would take too long for little gain
_SLOTS = (2, 3, 4)
_WORTH = 1.25  # times faster must the CPU be, since it makes reading a prompt slow


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to place the weights of a Frame.

    The weights of its set number `kept` stay on the device, as does the embedding where `embedded`; of the
    rest, if it is not computed on the CPU (`hybrid`), the first `from_disk` groups of the disk's order come
    from there. A pass has at most `rows` rows.
    """

    kept: int
    slots: int
    from_disk: int
    rows: int
    hybrid: bool = False
    embedded: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """The question, worked out so far as all layouts share it. Bytes, seconds, bytes per second.

    `sets` are those that may be kept, everything last: of one of the `orders` so many, and of `small` so
    many. With set `kept`, `parts[kept][unit]` is what of a unit is not resident, in aligned bytes, and
    `resident[kept]` what is, norms included. `computes` are the units' times, `cpu_seconds` the CPU's share
    of them; `cpu_bytes` are computed there in any case. `disk_order` groups units; first, without units,
    goes the embedding.
    """

    needs: Needs
    budget: Budget
    choice: Choice
    rates: Rates
    orders: tuple[tuple[str, ...], ...]
    small: tuple[str, ...]
    sets: tuple[tuple[int, int, int], ...]
    held: frozenset[str]
    on_cpu: frozenset[str]
    parts: tuple[tuple[int, ...], ...]
    resident: tuple[int, ...]
    computes: tuple[float, ...]
    cpu_bytes: int
    cpu_seconds: float
    disk_order: tuple[tuple[int, ...], ...]
    slot_counts: tuple[int, ...]
    hybrid: bool

    @property
    def home(self) -> Place:
        """Where resident weights are."""
        return Place.CPU if self.budget.vram is None else Place.GPU

    @property
    def link(self) -> float:
        """Bytes per second into a slot."""
        return 1e9 * (self.rates.disk if self.budget.vram is None else self.rates.link).gb_s

    @property
    def disk(self) -> float:
        """Bytes per second from the disk into a slot."""
        return min(self.link, 1e9 * self.rates.disk.gb_s)

    @property
    def most_rows(self) -> int:
        """The largest power of two that a pass may have."""
        return 1 << (self.needs.max_rows.bit_length() - 1)

    @property
    def usual_rows(self) -> int:
        """What no resident weight may take the room of."""
        return min(256, self.most_rows)

    @property
    def by_rows(self) -> int:
        """Bytes of an embedding of its own that is read by rows wherever it is not `embedded`."""
        named = self.held | self.on_cpu
        return 0 if self.needs.tied or "embeddings" in named else self.needs.embeddings

    @property
    def nothing(self) -> int:
        """The number of the set that is empty."""
        return self.sets.index((0, 0, 0))

    def kept(self, layout: Layout) -> frozenset[str]:
        """The weights that stay on the device, by the names of their places; without the embedding."""
        order, count, small = self.sets[layout.kept]
        return self.held.union(self.orders[order][:count], self.small[:small])

    def taken(self, resident: int, slots: int, rows: int) -> int:
        """Memory of the device with so many bytes in resident weights and in slots."""
        needs, budget = self.needs, self.budget
        fixed = budget.context + budget.reserve + needs.kv + needs.workspace
        return fixed + resident + slots + rows * needs.workspace_row

    def sources(self, layout: Layout) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The units that come from RAM and those that come from the disk, if anything of them streams."""
        if layout.hybrid:
            return (), ()
        count = len(self.disk_order) if self.budget.vram is None else layout.from_disk
        disk = {unit for group in self.disk_order[:count] for unit in group}
        streamed = [unit for unit, part in enumerate(self.parts[layout.kept]) if part]
        return tuple(u for u in streamed if u not in disk), tuple(u for u in streamed if u in disk)

    def embedding_place(self, layout: Layout) -> Place:
        """Where the embedding is."""
        name = "output" if self.needs.tied else "embeddings"
        if name in self.on_cpu:
            return Place.CPU
        if layout.embedded or name in self.kept(layout):
            return self.home
        if self.needs.tied and layout.hybrid:
            return Place.CPU
        if self.needs.tied:
            head = next(i for i, unit in enumerate(self.needs.units) if is_tile(unit.name))
            return Place.DISK if head in self.sources(layout)[1] else Place.RAM
        return Place.DISK if layout.from_disk or self.budget.vram is None else Place.RAM


def frame_of(needs: Needs, budget: Budget, choice: Choice, rates: Rates) -> Frame:
    """The frame of a question. Raises UserError for a choice that contradicts itself or its device."""
    on_cpu, held, explicit = _choose(needs, budget, choice)
    orders, small = (((),), ()) if explicit else _orders(needs, on_cpu)
    resident = needs.norms + (aligned(needs.embeddings) if "embeddings" in held else 0)
    start = [0] * len(needs.units)
    computes, cpu_bytes, cpu_seconds = [], aligned(needs.embeddings) if "embeddings" in on_cpu else 0, 0.0
    slow = 1e9 * rates.cpu.gb_s
    fast = slow if budget.vram is None else 1e9 * rates.gpu.gb_s
    for i, unit in enumerate(needs.units):
        seconds = rates.unit_s
        for weight in unit.weights:
            key = place_name(weight.name)
            if key in on_cpu:
                cpu_bytes += aligned(weight.nbytes)
                cpu_seconds += weight.nbytes / slow
                seconds += weight.nbytes / slow
                continue
            seconds += weight.nbytes / fast
            if key in held:
                resident += aligned(weight.nbytes)
            else:
                start[i] += aligned(weight.nbytes)
        computes.append(seconds)
    sets, parts, residents = _sets(needs, orders, small, start, resident)
    # Nothing kept and nothing named to be kept: the user wants memory, and two slots take the least.
    frame = Frame(
        needs=needs, budget=budget, choice=choice, rates=rates, orders=orders, small=small, sets=sets,
        held=held, on_cpu=on_cpu, parts=parts, resident=residents, computes=tuple(computes),
        cpu_seconds=sum(computes) if budget.vram is None else cpu_seconds, cpu_bytes=cpu_bytes,
        disk_order=_disk_order(needs),
        slot_counts=_SLOTS[:1] if explicit and not held else _SLOTS, hybrid=False,
    )  # fmt: skip
    return replace(frame, hybrid=not explicit and _cpu_beats_link(frame))


def place_name(weight: str) -> str:
    """The name under which a weight is placed: tiles of the head are placed as one."""
    return "output" if is_tile(weight) else weight


def is_tile(name: str) -> bool:
    """True for a tile of the output head."""
    return name.startswith("output.")


def _orders(
    needs: Needs, without: frozenset[str]
) -> tuple[tuple[tuple[str, ...], tuple[str, ...]], tuple[str, ...]]:
    """What is kept first, one kind of matrix after the other, each spread evenly over the layers.

    Large matrices first, since the slots soon get small then; or so that the parts of a layer's two units,
    and so the slots, get small together. And the small ones, which fill what room is left.
    """
    layers = spread(layer_count(needs))
    present = {weight.name for unit in needs.units for weight in unit.weights} | {"output"}

    def order(kinds: Iterable[str]) -> tuple[str, ...]:
        names = ((kind,) if kind == "output" else [f"layers.{i}.{kind}" for i in layers] for kind in kinds)
        return tuple(name for group in names for name in group if name in present - without)

    return (order(_LARGE_FIRST), order(_EVEN)), order(_SMALL_FIRST)


def spread(count: int) -> list[int]:
    """0 to `count` - 1 in an order of which every beginning is spread evenly (van der Corput's)."""
    bits = max(1, (count - 1).bit_length())
    turned = (int(f"{i:0{bits}b}"[::-1], 2) for i in range(1 << bits))
    return [i for i in turned if i < count]


def slot_bytes(sizes: Sequence[int], slots: int) -> list[int]:
    """The size of each slot for the streamed parts of units, none of them 0."""
    return [max(sizes[ring.start :: slots]) for ring in deal(len(sizes), slots)]


def _choose(needs: Needs, budget: Budget, choice: Choice) -> tuple[frozenset[str], frozenset[str], bool]:
    """What is computed on the CPU, what is held on the device, and whether the rest is streamed."""
    on_cpu = select(choice.cpu, needs, "--cpu-layers")
    held = select(choice.keep or (), needs)
    explicit = choice.offload or choice.keep is not None
    if budget.vram is None and (explicit or on_cpu):
        flag = "--cpu-layers" if not explicit else "--offload" if not held else "--offload-exclusion"
        raise UserError(
            f"{flag} needs a device to stream to, and this is the CPU; --device sim simulates one"
        )
    if both := sorted(held & on_cpu):
        names = ", ".join(both[:3]) + (f" and {len(both) - 3} more" if len(both) > 3 else "")
        raise UserError(
            f"{names}: both in --offload-exclusion (kept on the device) and in --cpu-layers; leave one out"
        )
    return on_cpu, held, explicit


def _sets(
    needs: Needs, orders: tuple[tuple[str, ...], ...], small: tuple[str, ...], start: list[int], resident: int
) -> tuple[tuple[tuple[int, int, int], ...], tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """The sets to keep, everything last; each with what is streamed of each unit and what is resident."""
    where: dict[str, list[tuple[int, int]]] = {}
    for i, unit in enumerate(needs.units):
        for weight in unit.weights:
            where.setdefault(place_name(weight.name), []).append((i, aligned(weight.nbytes)))
    sets, parts, residents = [], [], []
    for number, filled in _families(orders, small):
        rest, taken, before = list(start), resident, set(small[:filled])
        steps = [name for name in orders[number] if name not in before]
        for count, names in enumerate([tuple(before), *((name,) for name in steps)]):
            for name in names:
                for i, nbytes in where[name]:
                    rest[i] -= nbytes
                    taken += nbytes
            if any(rest) or (number == filled == 0 and count == len(steps)):
                sets.append((number, orders[number].index(names[0]) + 1 if count else 0, filled))
                parts.append(tuple(rest))
                residents.append(taken)
    return tuple(sets), tuple(parts), tuple(residents)


def _families(orders: tuple[tuple[str, ...], ...], small: tuple[str, ...]) -> list[tuple[int, int]]:
    """Which order is joined with how many of the small ones; the plain first order last."""
    length = max(1, len(orders[0]))
    count = min(len(small), max(1, _MOST_SETS // length - 1))
    joined = [(0, len(small) * i // count) for i in range(count, 0, -1)]
    return [*((number, 0) for number in range(1, len(orders))), *joined, (0, 0)]


def _disk_order(needs: Needs) -> tuple[tuple[int, ...], ...]:
    """What goes to the disk first: the embedding, a row of which is little; then units, evenly; the head."""
    tiles = tuple(i for i, unit in enumerate(needs.units) if is_tile(unit.name))
    layers = [i for i in range(len(needs.units)) if i not in tiles]
    return ((), *((layers[i],) for i in spread(len(layers))), tiles)


def _cpu_beats_link(frame: Frame) -> bool:
    """Whether the CPU should compute what does not fit: decided with nothing kept, by rates we know.

    Not anew for each budget, or more memory could bring the slower of the two ways.
    """
    rates: tuple[Rate, ...] = (frame.rates.cpu, frame.rates.link)
    if frame.budget.vram is None or frame.budget.simulated or any(r.source == "assumed" for r in rates):
        return False
    streamed, computed = sum(frame.parts[frame.nothing]), sum(frame.computes)
    by_link = max(streamed / frame.link, computed)
    by_cpu = computed + streamed * (1e-9 / frame.rates.cpu.gb_s - 1e-9 / frame.rates.gpu.gb_s)
    return by_cpu * _WORTH <= by_link
