"""The simulated device: ordinary memory that is counted, and a link of a given speed to it."""

from __future__ import annotations

import ctypes
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

import torch
from torch import Tensor

from core.weights.host import HostBlock, anonymous
from core.weights.lane_stream import Arrival, Copy, StreamLane
from core.weights.ledger import Ledger
from core.weights.staging import PIECE, Chunk, SerialThread, fill

STAGING = (2, 8 * 2**20)  # buffers, and bytes of each
_LEAST_SLEEP = 50e-6  # seconds; the system sleeps no shorter, and the schedule makes up for it
_CATCH_UP = 0.05  # seconds that the link may make up for after this process was held up


def _poison(copy: Copy) -> None:
    """Fill the home of a copy. It is named here so that it lives until then: nobody waits for this, and a
    copy whose file fails at once is over before its turn on the link.
    """
    fill(copy.address, 0xFF, copy.room)


class _Arrival:
    """Bytes that have arrived so far, or what went wrong."""

    def __init__(self) -> None:
        self.arrived = 0
        self.error: Exception | None = None

    def count(self) -> int:
        if self.error is not None:
            raise self.error
        return self.arrived


class SimulatedStream:
    """A thread that copies at the pace of a link: byte n arrives n / rate after the link took it up."""

    tick = 0.01

    def __init__(self, gb_s: float, poison: bool, delay: Callable[[], float] | None) -> None:
        self.progress: Callable[[], None] = lambda: None
        self.gb_s = gb_s
        self._poison, self._delay = poison, delay
        self._due = 0.0
        self._thread = SerialThread("link")

    def mark(self) -> None:
        """Nothing: kernels are done when they return."""

    def begin(self, copy: Copy) -> None:
        """Fill the home with NaN when the copy's turn comes, if asked to."""
        if self._poison:
            self._thread.submit(partial(_poison, copy))

    def carry(self, copy: Copy, chunk: Chunk) -> _Arrival:
        """Queue a chunk for the thread."""
        arrival, target = _Arrival(), copy.address + chunk.slot_offset
        source, issued = chunk.block.address + chunk.offset, time.perf_counter()
        self._thread.submit(partial(self._carry, target, source, chunk.nbytes, issued, arrival))
        return arrival

    def join(self, arrival: Arrival) -> None:
        """Nothing: what has arrived is seen."""

    def close(self) -> None:
        """Wait for all copies and end the thread."""
        self._thread.close()

    def _carry(self, target: int, source: int, nbytes: int, issued: float, arrival: _Arrival) -> None:
        self._due = max(self._due, issued, time.perf_counter() - _CATCH_UP)
        try:
            for at in range(0, nbytes, PIECE):
                size = min(PIECE, nbytes - at)
                if self._delay is not None:
                    time.sleep(self._delay())
                ctypes.memmove(target + at, source + at, size)
                self._due += size / (self.gb_s * 1e9)
                rest = self._due - time.perf_counter()
                if rest > _LEAST_SLEEP:
                    time.sleep(rest)
                arrival.arrived += size
                self.progress()
        except Exception as error:
            arrival.error = error


class SimulatedLane(StreamLane):
    """A card of `card_bytes` behind a link of `gb_s` (10^9 bytes per second), in ordinary memory.

    `capacity` may change at any time, as if another process took memory. `poison` fills a home with 0xFF
    (NaN) before each copy; `delay` gives seconds to sleep before each piece of a copy, on the link's thread.
    """

    def __init__(
        self,
        ledger: Ledger,
        card_bytes: int,
        gb_s: float,
        *,
        poison: bool = False,
        delay: Callable[[], float] | None = None,
    ) -> None:
        self._link = SimulatedStream(gb_s, poison, delay)
        super().__init__(torch.device("cpu"), ledger, self._link, eager=True)
        self._link.progress = self.pump
        self._card_bytes = self.capacity = card_bytes
        self.peak = 0
        self._taken: dict[int, int] = {}
        self._numbers = count()

    def cap(self, nbytes: int) -> None:
        """Take at most so much of the card. See Lane."""
        self.capacity = min(nbytes, self._card_bytes)

    @property
    def used(self) -> int:
        """Bytes of the card that are taken now, until the last view of them is gone."""
        return sum(list(self._taken.values()))

    def empty(self, nbytes: int, *, sparse: bool = False) -> Tensor:
        """Memory of the card, uint8 [nbytes]. Raises torch.OutOfMemoryError where it is full."""
        free = self.capacity - self.used
        try:
            if nbytes > free:
                raise MemoryError(f"{nbytes} bytes, with {max(0, free)} of {self.capacity} free")
            memory, tensor = anonymous(nbytes, sparse=sparse)
        except MemoryError as error:
            raise torch.OutOfMemoryError(f"the simulated card has no room for {error}") from None
        number = next(self._numbers)
        self._taken[number] = nbytes
        # One call, so that it is whole whatever thread the last view goes on.
        weakref.finalize(memory, self._taken.pop, number)
        self.peak = max(self.peak, self.used)
        return tensor

    def staging(self) -> Sequence[HostBlock]:
        """Plain buffers: on this device pinned memory is no different."""
        buffers, nbytes = STAGING
        return [HostBlock(nbytes) for _ in range(buffers)]
