"""What the gauges show of a Snapshot: disjoint kinds of memory, and the bus. No Textual."""

from __future__ import annotations

from dataclasses import dataclass

from core.engine.events import Snapshot, Traffic
from tui.figures import gigabytes

NA = "n/a"
FREE = "·"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of memory: a letter for the bar, a name for the legend, a style's name, bytes."""

    letter: str
    name: str
    style: str
    amount: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory as disjoint kinds that add up to `total`, in the order of the bar.

    `budget` is where our share ends, in bytes from the left; the kinds up to the first free one are ours
    then. None: nobody set one.
    """

    name: str
    total: int
    kinds: tuple[Kind, ...]
    budget: int | None = None
    simulated: bool = False

    @property
    def used(self) -> float:
        """Everything but the free part; of a memory with a budget only what is ours."""
        if self.budget is not None:
            return sum(kind.amount for kind in self.kinds if kind.style in OURS)
        return self.total - sum(kind.amount for kind in self.kinds if kind.letter == FREE)

    @property
    def limit(self) -> int:
        """What `used` is measured against."""
        return self.total if self.budget is None else self.budget


OURS = ("resident", "slots", "kv", "workspace", "ours")
"""Styles of the kinds on a card that are ours."""

_ON_CARD = {
    "resident": ("R", "resident", "resident"),
    "slots": ("S", "slots", "slots"),
    "kv": ("K", "kv", "kv"),
    "workspace": ("w", "work", "workspace"),
    "context": ("o", "other", "ours"),
}
"""Letter, name and style of what the engine counts on the device, in the order of the bar."""

_IN_RAM = {
    "pinned": ("#", "pinned", "pinned"),
    "pageable": ("+", "pageable", "pageable"),
    "cpu": ("C", "on CPU", "computed"),
}
"""The same for host memory."""


def ram(snapshot: Snapshot) -> Memory | None:
    """This machine's RAM. None where it cannot be read.

    What the system counts as used has no file pages in it; ours are the mapped weights, which it
    would give up if others needed the room. They are shown as a kind of their own. What the engine counts
    is a part of our anonymous memory, and on a simulated device the card's memory is too.
    """
    total, used = snapshot.ram_total, snapshot.ram_used
    if total is None or used is None:
        return None
    ours: float = min(snapshot.process_anon or 0, used)
    rest = ours
    kinds: list[Kind] = []
    if snapshot.engine is not None:
        for (letter, name, style), amount in _counted(snapshot.engine):
            kinds.append(Kind(letter, name, style, min(rest, amount)))
            rest -= min(rest, amount)
    cache = min(snapshot.process_file or 0, total - used)
    kinds += [
        Kind("a", "ours", "ours", rest),
        Kind("o", "other", "others", used - ours),
        Kind("c", "mapped", "cache", cache),
        Kind(FREE, "free", "free", total - used - cache),
    ]
    return Memory("RAM", total, tuple(kinds))


def _counted(engine: Traffic) -> list[tuple[tuple[str, str, str], int]]:
    """Letter, name and style of each kind of host memory that the engine counts, with its bytes."""
    amounts = dict(engine.ram)
    counted = [(look, amounts.get(kind, 0)) for kind, look in _IN_RAM.items() if amounts.get(kind)]
    if engine.simulated:
        counted.append((("v", "sim card", "resident"), sum(amount for _, amount in engine.vram)))
    return counted


def vram(snapshot: Snapshot) -> Memory | None:
    """The card's memory. None where it cannot be read.

    What we have there is counted by the engine; everything else that the device calls used is others'.
    """
    total, used = snapshot.vram_total, snapshot.vram_used
    if total is None or used is None:
        return None
    engine = snapshot.engine
    if engine is not None and (engine.vram_budget is not None or any(amount for _, amount in engine.vram)):
        return _placed(engine, total, used)
    free = Kind(FREE, "free", "free", total - used)
    if snapshot.process_vram is None:  # shared with others in a way that the driver does not tell
        return Memory("VRAM", total, (Kind("u", "used", "others", used), free))
    ours = min(snapshot.process_vram, used)
    return Memory(
        "VRAM", total, (Kind("m", "ours", "ours", ours), Kind("x", "others", "others", used - ours), free)
    )


def _placed(engine: Traffic, total: int, used: int) -> Memory:
    """Ours from the left, what others have at the right end, and between them what is free."""
    amounts, rest = dict(engine.vram), float(total)
    kinds = []
    for kind, (letter, name, style) in _ON_CARD.items():
        kinds.append(Kind(letter, name, style, min(rest, amounts.get(kind, 0))))
        rest -= kinds[-1].amount
    others = min(rest, max(0, used - (total - rest)))
    kinds += [Kind(FREE, "free", "free", rest - others), Kind("x", "others", "others", others)]
    budget = None if engine.vram_budget is None else min(engine.vram_budget, total)
    return Memory("VRAM", total, tuple(kinds), budget, engine.simulated)


@dataclass(frozen=True, slots=True)
class Bus:
    """Traffic between host and card, bytes per second; None where it cannot be read.

    `exact` are the engine's own figures; the device's then stand beside them in `counter`.
    """

    to_gpu: float | None
    from_gpu: float | None
    link: float | None
    exact: bool
    simulated: bool
    counter: float | None

    @property
    def share(self) -> str:
        """How much of the link goes to the card: "85 %", or nothing where either is unknown."""
        return share(self.to_gpu, self.link)


def share(rate: float | None, link: float | None) -> str:
    """How much of the link a rate is: "85 %", or nothing where either is unknown."""
    return "" if rate is None or not link else f"{100 * rate / link:.0f} %"


def bus(snapshot: Snapshot) -> Bus:
    """The bus: what the engine copied, which is exact, before what the device counted."""
    engine = snapshot.engine
    ours = engine is not None and engine.vram_budget is not None and engine.to_gpu is not None
    if engine is None or not (engine.simulated or ours):
        to_gpu, from_gpu = snapshot.pcie_to_gpu, snapshot.pcie_from_gpu
        return Bus(to_gpu, from_gpu, snapshot.pcie_link, False, False, None)
    link = engine.link or snapshot.pcie_link
    counter = None if engine.simulated else snapshot.pcie_to_gpu
    return Bus(engine.to_gpu, engine.from_gpu, link, True, engine.simulated, counter)


def disk(snapshot: Snapshot) -> float | None:
    """Bytes per second that the engine reads from disk; None where it does not know."""
    return None if snapshot.engine is None else snapshot.engine.from_disk


def has_gpu(snapshot: Snapshot) -> bool:
    """True where there is a card to measure, even if not everything of it can be read."""
    return snapshot.gpu_name is not None or snapshot.vram_total is not None


def speed(value: float | None) -> str:
    """Bytes per second in GB/s, or "n/a"."""
    return NA if value is None else f"{value / 1e9:.1f}"


def span(memory: Memory | None) -> str:
    """Used and total, or ours and budget: "15.1/25.2G", or "n/a"."""
    return NA if memory is None else f"{gigabytes(memory.used)}/{gigabytes(memory.limit)}G"
