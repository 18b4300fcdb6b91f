"""What the gauges show of a Snapshot: disjoint kinds of memory, and the bus. No Textual."""

from __future__ import annotations

from dataclasses import dataclass

from core.engine.events import Snapshot
from tui.figures import gigabytes

NA = "n/a"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of memory: a letter for the bar, a name for the legend, a style's name, bytes."""

    letter: str
    name: str
    style: str
    amount: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory as disjoint kinds that add up to `total`; the last kind is what is free."""

    name: str
    total: int
    kinds: tuple[Kind, ...]

    @property
    def used(self) -> float:
        """Everything but the free part."""
        return self.total - self.kinds[-1].amount


def ram(snapshot: Snapshot) -> Memory | None:
    """This machine's RAM. None where it cannot be read.

    What the system counts as used has no file pages in it; ours are the mapped weights, which it
    would give up if others needed the room. They are shown as a kind of their own.
    """
    total, used = snapshot.ram_total, snapshot.ram_used
    if total is None or used is None:
        return None
    ours = min(snapshot.process_anon or 0, used)
    cache = min(snapshot.process_file or 0, total - used)
    return Memory(
        "RAM",
        total,
        (
            Kind("a", "ours", "ours", ours),
            Kind("o", "other", "others", used - ours),
            Kind("c", "mapped", "cache", cache),
            Kind("·", "free", "free", total - used - cache),
        ),
    )


def vram(snapshot: Snapshot) -> Memory | None:
    """The card's memory. None where it cannot be read."""
    total, used = snapshot.vram_total, snapshot.vram_used
    if total is None or used is None:
        return None
    ours = min(snapshot.process_vram or 0, used)
    free = Kind("·", "free", "free", total - used)
    if snapshot.process_vram is None:  # shared with others in a way that the driver does not tell
        return Memory("VRAM", total, (Kind("u", "used", "others", used), free))
    return Memory(
        "VRAM", total, (Kind("m", "ours", "ours", ours), Kind("x", "other", "others", used - ours), free)
    )


def has_gpu(snapshot: Snapshot) -> bool:
    """True where there is a card to measure, even if not everything of it can be read."""
    return snapshot.gpu_name is not None or snapshot.vram_total is not None


def bus(value: float | None) -> str:
    """Bytes per second in GB/s, or "n/a"."""
    return NA if value is None else f"{value / 1e9:.1f}"


def bus_share(value: float | None, link: float | None) -> str:
    """How much of the link that is: "85 %", or nothing where either is unknown."""
    return "" if value is None or not link else f"{100 * value / link:.0f} %"


def span(memory: Memory | None) -> str:
    """Used and total: "15.1/25.2G", or "n/a"."""
    return NA if memory is None else f"{gigabytes(memory.used)}/{gigabytes(memory.total)}G"
