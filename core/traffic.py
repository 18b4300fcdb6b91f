"""The engine's own counters as a reading of the meters. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from core.engine.events import Activity, InSlot, Traffic
from core.weights.ledger import DEVICE_KINDS, HOST_KINDS, Ledger


class TrafficMeter:
    """Turns a ledger into fields of a Snapshot; rates are over the time since the last reading."""

    def __init__(
        self, ledger: Callable[[], Ledger | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger, self._clock = ledger, clock
        self._last: tuple[float, Ledger, tuple[int, int, int]] | None = None

    def read(self) -> dict[str, Any]:
        """Empty where no model is loaded; on a simulated device its card's fields too."""
        ledger = self._ledger()
        if ledger is None:
            return {}
        to_gpu, from_gpu, from_disk = self._rates(ledger)
        traffic = Traffic(
            simulated=ledger.simulated,
            vram_budget=ledger.vram_budget,
            vram=tuple((kind, ledger.device[kind]) for kind in DEVICE_KINDS),
            ram=tuple((kind, ledger.host[kind]) for kind in HOST_KINDS),
            to_gpu=to_gpu,
            from_gpu=from_gpu,
            from_disk=from_disk,
            link=ledger.link,
            copied=ledger.copied,
            computed=ledger.computed,
        )
        if not ledger.simulated:
            return {"engine": traffic}
        return {"engine": traffic, "vram_total": ledger.card, "vram_used": sum(ledger.device.values())}

    def _rates(self, ledger: Ledger) -> tuple[float | None, float | None, float | None]:
        """Bytes per second each way, and from the disk; None at the first reading of a ledger."""
        now, counts = self._clock(), (ledger.to_device, ledger.from_device, ledger.from_disk)
        last, self._last = self._last, (now, ledger, counts)
        if last is None or last[1] is not ledger or now <= last[0]:
            return None, None, None
        rates = [(new - old) / (now - last[0]) for new, old in zip(counts, last[2], strict=True)]
        return rates[0], rates[1], rates[2]


def activity(ledger: Ledger | None) -> Activity:
    """What is computed and copied at this moment; nothing where no model is loaded."""
    if ledger is None:
        return Activity()
    passages = [slot.latest for slot in ledger.slots]
    # Looked at once: it may arrive in the meantime.
    under_way = [passage.number for passage in passages if passage is not None and not passage.arrived]
    first = min(under_way, default=None)
    slots: list[InSlot | None] = []
    for passage in passages:
        if passage is None:
            slots.append(None)
        elif passage.number in under_way:
            state: Literal["waiting", "copying"] = "copying" if passage.number == first else "waiting"
            slots.append(InSlot(passage.unit, passage.moved, passage.nbytes, state))
        else:
            slots.append(InSlot(passage.unit, passage.nbytes, passage.nbytes, "there"))
    computing = ledger.computed if ledger.computing else None
    return Activity(computing, tuple(slots), ledger.placing)
