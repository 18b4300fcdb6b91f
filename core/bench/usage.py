"""Who was busy while a row was measured: what other processes took of the machine's processors."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

_IDLE = ("idle", "iowait", "guest", "guest_nice")  # guests are counted as users already
_LEAST_SEEN = 0.5  # of our own time, at least, must show in the machine's, or that means nothing


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of processor time so far: of the whole machine (None where nobody tells), and of us and all
    processes of ours that have ended. `wall` is a clock in seconds, `cores` the machine's.
    """

    busy: float | None
    ours: float
    wall: float
    cores: int


def read_usage() -> Usage:
    """The reading of now. Time that a hypervisor gave to other machines counts as busy."""
    own = os.times()
    ours = own.user + own.system + own.children_user + own.children_system
    try:
        import psutil
    except ModuleNotFoundError:
        return Usage(None, ours, time.monotonic(), 1)
    machine = psutil.cpu_times()._asdict()
    busy = sum(seconds for kind, seconds in machine.items() if kind not in _IDLE)
    return Usage(busy, ours, time.monotonic(), psutil.cpu_count() or 1)


def others_share(before: Usage, after: Usage) -> float | None:
    """The share of all processors that others took between two readings; None where it cannot be told."""
    wall, ours = after.wall - before.wall, after.ours - before.ours
    if before.busy is None or after.busy is None or wall <= 0:
        return None
    busy = after.busy - before.busy
    if busy < _LEAST_SEEN * ours:
        return None
    return max(0.0, busy - ours) / (wall * after.cores)
