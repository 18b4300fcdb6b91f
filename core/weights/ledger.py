"""Plain counters that the engine keeps anyway and the meters read. No torch, no locks.

Each field has one writer, and a reader that is a moment late does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DEVICE_KINDS = ("context", "resident", "slots", "kv", "workspace")
HOST_KINDS = ("pinned", "pageable", "cpu")


@dataclass(slots=True, eq=False)
class Passage:
    """The bytes of a unit on their way to the device: all of them, and those that have arrived so far.

    `number` counts the copies in the order in which they were begun, which is that of their arrival.
    """

    unit: str
    nbytes: int
    number: int = 0
    moved: int = 0
    arrived: bool = False


@dataclass(slots=True, eq=False)
class SlotCount:
    """What is in a slot of the device or on its way there; None before the first copy."""

    latest: Passage | None = None


class Ledger:
    """Bytes that moved since the start, memory that is taken now, and what was touched last.

    Bytes are added where they move, when they have moved: `to_device` and `from_disk` by whatever carries
    them, `from_device` where weights come back. `device` and `host` are bytes by kind. `sent` counts copies
    that were begun. `computing` says that the unit `computed` last is at it still: not while its successor
    waits for bytes, nor between two passes. `placing` is a weight on its way to another place.
    """

    def __init__(self) -> None:
        self.to_device = 0
        self.from_device = 0
        self.from_disk = 0
        self.device = dict.fromkeys(DEVICE_KINDS, 0)
        self.host = dict.fromkeys(HOST_KINDS, 0)
        self.vram_budget: int | None = None
        self.card: int | None = None  # bytes of a simulated card
        self.simulated = False
        self.link: float | None = None  # bytes per second
        self.copied: str | None = None
        self.computed: str | None = None
        self.computing = False
        self.sent = 0
        self.slots: Sequence[SlotCount] = ()
        self.placing: str | None = None
