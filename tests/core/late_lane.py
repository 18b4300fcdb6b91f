"""A device like CUDA in how it is called: only on the engine's thread, and everything as late as possible."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from core.weights.host import HostBlock, anonymous
from core.weights.lane_stream import Arrival, Copy, StreamLane
from core.weights.ledger import Ledger
from core.weights.staging import Chunk


class LateArrival:
    """A copy that is made when it has been asked about a few times, and not a moment before."""

    def __init__(self, stream: LateStream, copy: Copy, chunk: Chunk, polls: int) -> None:
        self.stream, self.copy, self.chunk, self.polls = stream, copy, chunk, polls
        self.done = False

    def count(self) -> int:
        assert threading.get_ident() == self.stream.engine
        assert self.stream.queue[0] is self or self.done, "asked about out of order"
        self.polls -= 1
        if self.polls < 0 and not self.done:
            chunk = self.chunk
            source = chunk.block.tensor[chunk.offset : chunk.offset + chunk.nbytes]
            self.copy.home[chunk.slot_offset : chunk.slot_offset + chunk.nbytes].copy_(source)
            self.done = True
            self.stream.queue.pop(0)
            self.stream.log.append(("arrived", self.copy.name))
        return self.chunk.nbytes if self.done else 0


class LateStream:
    """A device like CUDA, only on the engine's thread, as late as possible."""

    tick = 1e-5

    def __init__(self) -> None:
        self.engine = threading.get_ident()
        self.random = random.Random(5)
        self.queue: list[LateArrival] = []
        self.log: list[tuple[str, Any]] = []
        self.kernels = 0

    def mark(self) -> int:
        return self.kernels

    def begin(self, copy: Copy) -> None:
        assert threading.get_ident() == self.engine
        self.log.append(("begin", (copy.name, copy.mark)))

    def carry(self, copy: Copy, chunk: Chunk) -> LateArrival:
        assert threading.get_ident() == self.engine
        self.queue.append(LateArrival(self, copy, chunk, self.random.randrange(4)))
        return self.queue[-1]

    def join(self, arrival: Arrival) -> None:
        assert isinstance(arrival, LateArrival)
        assert arrival.done
        self.log.append(("join", arrival.copy.name))

    def close(self) -> None:
        self.log.append(("close", None))


class LateLane(StreamLane):
    def __init__(self, ledger: Ledger) -> None:
        self.stream = LateStream()
        super().__init__(torch.device("cpu"), ledger, self.stream, eager=False)

    def empty(self, nbytes: int) -> Tensor:
        return anonymous(nbytes)[1]

    def staging(self) -> Sequence[HostBlock]:
        return [HostBlock(300_000) for _ in range(2)]
