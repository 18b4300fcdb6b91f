"""Plain counters that the engine keeps anyway and the meters read. No torch, no locks.

Each field has one writer, and a reader that is a moment late does no harm.
"""

from __future__ import annotations

DEVICE_KINDS = ("context", "resident", "slots", "kv", "workspace")
HOST_KINDS = ("pinned", "pageable", "cpu")


class Ledger:
    """Bytes that moved since the start, memory that is taken now, and what was touched last.

    Bytes are added where they move, when they have moved: `to_device` and `from_disk` by whatever carries
    them, `from_device` where weights come back. `device` and `host` are bytes by kind.
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
