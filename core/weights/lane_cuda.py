"""The lane to a CUDA device: a copy stream and events. All of it runs on the engine's thread."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.weights.host import CudaRegistrar, HostBlock, Registrar
from core.weights.lane_stream import Arrival, Copy, StreamLane
from core.weights.ledger import Ledger
from core.weights.staging import Chunk

STAGING = (2, 16 * 2**20)  # buffers, and bytes of each


class _Arrival:
    """A chunk that has arrived once its event has passed."""

    def __init__(self, event: torch.cuda.Event, nbytes: int) -> None:
        self.event = event
        self._nbytes = nbytes

    def count(self) -> int:
        return self._nbytes if self.event.query() else 0


class CudaStream:
    """Copies on a stream of their own; events both ways between it and the stream that computes."""

    tick = 50e-6

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = torch.cuda.Stream(device)

    def mark(self) -> torch.cuda.Event:
        """An event after all kernels queued so far, some of which may read what is overwritten next."""
        return torch.cuda.current_stream(self._device).record_event()

    def begin(self, copy: Copy) -> None:
        """Nothing of this copy before the kernels that were queued before it was sent."""
        self._copies.wait_event(copy.mark)

    def carry(self, copy: Copy, chunk: Chunk) -> _Arrival:
        """One copy and its event. From memory that is not pinned it blocks until it is done."""
        source = chunk.block.tensor[chunk.offset : chunk.offset + chunk.nbytes]
        target = copy.home[chunk.slot_offset : chunk.slot_offset + chunk.nbytes]
        with torch.cuda.stream(self._copies):
            target.copy_(source, non_blocking=chunk.block.pinned)
            return _Arrival(self._copies.record_event(), chunk.nbytes)

    def join(self, arrival: Arrival) -> None:
        """The host has seen it arrive; this has the device's own order say so too."""
        assert isinstance(arrival, _Arrival)
        torch.cuda.current_stream(self._device).wait_event(arrival.event)

    def close(self) -> None:
        """Wait for all copies."""
        self._copies.synchronize()


class CudaLane(StreamLane):
    """Copies to a CUDA device."""

    def __init__(self, ledger: Ledger, device: torch.device) -> None:
        super().__init__(device, ledger, CudaStream(device), eager=False)

    def empty(self, nbytes: int, *, sparse: bool = False) -> Tensor:
        """Memory of the device, uint8 [nbytes]. Raises torch.OutOfMemoryError."""
        with torch.inference_mode(False):  # a tensor made in it could not be written outside
            return torch.empty(nbytes, dtype=torch.uint8, device=self.device)

    def cap(self, nbytes: int) -> None:
        """Take at most so much of the card: torch's allocator holds to it. See Lane."""
        _, total = torch.cuda.mem_get_info(self.device)
        torch.cuda.set_per_process_memory_fraction(min(1.0, nbytes / total), self.device)

    def staging(self) -> Sequence[HostBlock]:
        """Pinned buffers; plain ones, slower and with a notice, where not even these can be pinned."""
        buffers, nbytes = STAGING
        registrar = self._registrar()
        blocks = [HostBlock(nbytes) for _ in range(buffers)]
        pinned = [block.pin(registrar) for block in blocks]
        if not all(pinned):
            self.notice = (
                f"{nbytes * buffers / 1e6:.0f} MB of staging buffers cannot be pinned; "
                "what is not in pinned memory streams with blocking copies"
            )
        return blocks

    def _registrar(self) -> Registrar:
        return CudaRegistrar(self.device)
