"""What the machine can do at most: plain reads of RAM, and copies within a card's memory."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from core.engine.devices import use_cores
from core.weights.host import anonymous
from core.weights.survey import free_ram

_TRIES = 8  # of each way to read, of which the best counts: what else goes on only makes it slower
_LEAST = 64 * 10**6  # bytes; less would be read from a processor's cache
_DEVICE_BYTES = 512 * 10**6


def ram_read(nbytes: int) -> float | None:
    """GB/s at which all threads together read `nbytes` of RAM; None where there is no room for that.

    No more than a quarter of the memory that is free is taken, and given back.
    """
    nbytes = min(nbytes, free_ram() // 4) // 4096 * 4096
    if nbytes < _LEAST:
        return None
    memory = anonymous(nbytes)[1]
    whole = memory.view(torch.int64)
    whole.fill_(1)  # pages that nobody wrote are one page of zeros
    # Which of these is fastest depends on the processor; all do next to nothing but read.
    ways: tuple[Callable[[], object], ...] = (whole.sum, whole.max, memory.view(torch.int32).max)
    threads = torch.get_num_threads()
    use_cores(beside_copies=False)
    try:
        return nbytes / min(_seconds(way) for way in ways) / 1e9
    finally:
        torch.set_num_threads(threads)


def device_copy(device: torch.device) -> float | None:
    """GB/s read and written by copies within a CUDA device's memory; None where it has no room for them."""
    try:
        source, target = (torch.zeros(_DEVICE_BYTES, dtype=torch.uint8, device=device) for _ in range(2))
    except torch.OutOfMemoryError:
        return None

    def copy() -> None:
        for _ in range(4):
            target.copy_(source)
        torch.cuda.synchronize(device)

    copy()
    return 4 * 2 * _DEVICE_BYTES / _seconds(copy) / 1e9


def _seconds(work: Callable[[], object]) -> float:
    """How long something takes at best."""
    best = float("inf")
    for _ in range(_TRIES):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best
