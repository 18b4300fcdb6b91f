"""The lane of the CPU, where the "device" is host memory: weights come from the packed file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from core.weights.host import anonymous
from core.weights.lane import Source, Transfer
from core.weights.lane_stream import Copy
from core.weights.ledger import Ledger
from core.weights.staging import PIECE, ReadAhead, SerialThread, SourceReader, spans

_TICK = 0.01  # seconds between two looks at the flag


class DiskLane:
    """A thread that reads files straight into slots. Nothing goes to a device: `to_device` stays as it is.

    Computing is done when it returns, so no copy needs to wait for it.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.device = torch.device("cpu")
        self.notice: str | None = None
        self._ledger = ledger
        self._reader = SourceReader(ledger)
        self._thread = SerialThread("disk")
        self._ahead = ReadAhead()
        self._closed = False

    def empty(self, nbytes: int, *, sparse: bool = False) -> Tensor:
        """Host memory, uint8 [nbytes], page-aligned. Raises torch.OutOfMemoryError."""
        try:
            return anonymous(nbytes, sparse=sparse)[1]
        except MemoryError as error:
            raise torch.OutOfMemoryError(f"no room in memory for {error}") from None

    def cap(self, nbytes: int) -> None:
        """Nothing: host memory is bounded by the plan."""

    def hint(self, source: Source) -> None:
        """It will be sent soon. See Lane."""
        self._ahead.hint(source)

    def send(self, name: str, source: Source, home: Tensor) -> Copy:
        """Begin to read `source`, the unit `name`, to the start of `home`. See Lane."""
        if self._closed:
            raise RuntimeError(f"{name} is sent over a lane that was closed")
        self._ledger.sent += 1
        copy = Copy(name, source, home, number=self._ledger.sent)
        self._thread.submit(partial(self._read, copy))
        return copy

    def wait(self, transfer: Transfer, cancelled: Callable[[], bool]) -> None:
        """Until it is there. See Lane."""
        assert isinstance(transfer, Copy)
        transfer.wait(cancelled, _TICK, lambda: None)

    def drain(self) -> None:
        """Until nothing is read any more."""
        if not self._closed:
            idle = threading.Event()
            self._thread.submit(idle.set)
            idle.wait()

    def close(self) -> None:
        """Drain, and end the thread."""
        if not self._closed:
            self._closed = True
            self._thread.close()
            self._ahead.close()

    def _read(self, copy: Copy) -> None:
        try:
            for span in spans(copy.source, PIECE):
                self._reader.read(copy.source, span, copy.address + span.slot_offset)
                copy.passage.moved += span.nbytes
            self._ledger.copied = copy.name
            copy.passage.arrived = True
        except BaseException as error:
            copy.error = error
        copy.finished.set()
