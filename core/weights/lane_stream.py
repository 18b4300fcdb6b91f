"""What lanes to a device have in common: copies in the order of `send`, staged where that is needed.

The device's half is a Stream: a few calls, so that the simulated device runs the same code as CUDA.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from core.errors import Cancelled
from core.weights.host import HostBlock
from core.weights.lane import HostSource, Source, Transfer
from core.weights.ledger import Ledger, Passage
from core.weights.staging import Chunk, Feed, Feeder, ReadAhead


@dataclass(slots=True, eq=False)
class Copy:
    """A transfer from `send` to arrival. `mark` is how far computing was, `feed` what is staged of it.

    It is the `number`-th. `pending` chunks are on their way; none is added once `issued`. `address` and
    `room` are `home`'s, for threads that must not call torch.
    """

    name: str
    source: Source
    home: Tensor
    mark: Any = None
    number: int = 0
    feed: Feed | None = None
    begun: bool = False
    issued: bool = False
    pending: int = 0
    last: Arrival | None = None
    error: BaseException | None = None
    finished: threading.Event = field(default_factory=threading.Event)
    passage: Passage = field(init=False)
    address: int = field(init=False)
    room: int = field(init=False)

    def __post_init__(self) -> None:
        """ValueError unless all bytes lie in their block and in the home: from here on they are addresses."""
        source, home = self.source, self.home
        self.passage = Passage(self.name, source.nbytes, self.number)
        self.address, self.room = home.data_ptr(), home.nbytes
        if source.nbytes > self.room or home.dtype != torch.uint8 or not home.is_contiguous():
            raise ValueError(f"{self.name}: {source.nbytes} bytes for {self.room} of {home.dtype}")
        if isinstance(source, HostSource):
            within = source.block.address and 0 <= source.offset <= source.block.nbytes - source.nbytes
        else:
            within = all(0 <= p.slot_offset <= source.nbytes - p.nbytes for p in source.pieces)
        if not within:
            raise ValueError(f"{self.name}: some bytes lie outside of {source}")

    @property
    def moved(self) -> int:
        """Bytes that have arrived."""
        return self.passage.moved

    def wait(self, cancelled: Callable[[], bool], tick: float, progress: Callable[[], None]) -> None:
        """Until it has finished. Calls `progress` and looks at the flag every `tick` seconds.

        Raises Cancelled, or what went wrong on the way.
        """
        progress()
        while not self.finished.wait(tick):
            if cancelled():
                raise Cancelled
            progress()
        if self.error is not None:
            raise self.error


class Arrival(Protocol):
    """A chunk on its way to the device."""

    def count(self) -> int:
        """Bytes that have arrived. Raises what the device raises."""
        ...


class Stream(Protocol):
    """The device's half of a lane: copies that run by themselves, one after another.

    `tick`: how long a wait may sleep before it looks again, in seconds.
    """

    tick: float

    def mark(self) -> Any:
        """A point after all kernels that are queued now."""
        ...

    def begin(self, copy: Copy) -> None:
        """From here on the chunks are of `copy`, and come after its mark."""
        ...

    def carry(self, copy: Copy, chunk: Chunk) -> Arrival:
        """Begin to bring a chunk to the home of `copy`."""
        ...

    def join(self, arrival: Arrival) -> None:
        """Kernels queued from now on come after this arrival."""
        ...

    def close(self) -> None:
        """Wait for all copies; end threads."""
        ...


@dataclass(slots=True)
class _Flight:
    copy: Copy
    chunk: Chunk
    arrival: Arrival
    counted: int = 0


class StreamLane:
    """Copies over a Stream. Pinned memory goes in one piece; the rest through staging buffers.

    Where `eager`, chunks are issued by whatever thread has made that possible. Otherwise only the engine's
    thread does, as it passes here: in `send`, `wait` and `drain`. Subclasses give `empty`, and `staging`,
    which makes the buffers when first needed.
    """

    def __init__(self, device: torch.device, ledger: Ledger, stream: Stream, *, eager: bool) -> None:
        self.device = device
        self.notice: str | None = None
        self._ledger = ledger
        self._stream = stream
        self._eager = eager
        self._lock = threading.Lock()
        self._waiting: deque[Copy] = deque()
        self._flights: deque[_Flight] = deque()
        self._feeder: Feeder | None = None
        self._ahead = ReadAhead()
        self._closed = False

    def staging(self) -> Sequence[HostBlock]:
        """At least two buffers of one size, which the lane closes."""
        raise NotImplementedError

    def hint(self, source: Source) -> None:
        """It will be sent soon. See Lane."""
        self._ahead.hint(source)

    def send(self, name: str, source: Source, home: Tensor) -> Copy:
        """Begin to copy `source`, the unit `name`, to the start of `home`. See Lane."""
        if self._closed:
            raise RuntimeError(f"{name} is sent over a lane that was closed")
        self._ledger.sent += 1
        copy = Copy(name, source, home, self._stream.mark(), self._ledger.sent)
        if not (isinstance(source, HostSource) and source.block.pinned):
            if self._feeder is None:
                filled = self.pump if self._eager else _leave_it
                self._feeder = Feeder(self._ledger, self.staging(), filled)
            copy.feed = self._feeder.feed(source)
        with self._lock:
            self._waiting.append(copy)
        self.pump()
        return copy

    def wait(self, transfer: Transfer, cancelled: Callable[[], bool]) -> None:
        """Until kernels queued from now on see what was copied. See Lane."""
        assert isinstance(transfer, Copy)
        transfer.wait(cancelled, self._stream.tick, self.pump)
        if transfer.last is not None:
            self._stream.join(transfer.last)

    def drain(self) -> None:
        """Until no copy is under way any more."""
        while True:
            self.pump()
            with self._lock:
                under_way = [*(flight.copy for flight in self._flights), *self._waiting]
            if not under_way:
                return
            under_way[-1].finished.wait(self._stream.tick)

    def close(self) -> None:
        """Drain, and end all threads, the latter even where the device has failed."""
        if self._closed:
            return
        self._closed = True
        try:
            self.drain()
        finally:
            self._stream.close()
            self._ahead.close()
            if self._feeder is not None:
                self._feeder.close()

    def pump(self) -> None:
        """See what has arrived, and issue what can be issued."""
        with self._lock:
            while self._flights and self._arrived(self._flights[0]):
                self._flights.popleft()
            while self._waiting and self._issue(self._waiting[0]):
                self._waiting.popleft()

    def _issue(self, copy: Copy) -> bool:
        """Issue what there is of a copy; True once that is all."""
        if not copy.begun:
            copy.begun = True
            self._stream.begin(copy)
        if copy.feed is None:
            source = copy.source
            assert isinstance(source, HostSource)
            self._carry(copy, Chunk(source.block, source.offset, 0, source.nbytes))
            copy.issued = True
        else:
            copy.issued = copy.feed.complete  # asked before the chunks: after it there come no more
            while copy.feed.chunks:
                self._carry(copy, copy.feed.chunks.popleft())
            copy.error = copy.feed.error
        self._settle(copy)
        return copy.issued

    def _carry(self, copy: Copy, chunk: Chunk) -> None:
        copy.last = self._stream.carry(copy, chunk)
        copy.pending += 1
        self._flights.append(_Flight(copy, chunk, copy.last))

    def _arrived(self, flight: _Flight) -> bool:
        """Count what has arrived of a chunk; True once that is all."""
        count, copy = flight.arrival.count(), flight.copy
        self._ledger.to_device += count - flight.counted
        copy.passage.moved += count - flight.counted
        flight.counted = count
        if count < flight.chunk.nbytes:
            return False
        if copy.feed is not None:
            assert self._feeder is not None
            self._feeder.release(flight.chunk.block)
        copy.pending -= 1
        self._settle(copy)
        return True

    def _settle(self, copy: Copy) -> None:
        if copy.issued and not copy.pending:
            if copy.error is None:
                self._ledger.copied = copy.name
                copy.passage.arrived = True
            copy.finished.set()


def _leave_it() -> None:
    """The engine's thread sees by itself that a buffer was filled."""
