"""From files to memory: threads read, this thread converts. The one place where weights are read.

What needs no conversion is read straight to where it stays. The rest comes in pieces small enough for
the processor's cache, so memory holds a few megabytes besides the weights' own. Quantising takes longer
than reading, and is spread over threads that each work on rows of their own.
"""

from __future__ import annotations

import ctypes
import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from core.checkpoint.source import Blocks, BlockType, Part, SourceFile, Weight

_PIECE = 2 * 2**20  # bytes a read; smaller ones cost more in handing over, larger ones leave the caches
_BLOCKS = 2**18  # the same for quantised types, which take ten times as much while they become floats
_LARGE_PAGE = 2 * 2**20
_CACHED = 2**18  # values; as float32 they fit in a core's cache
_THREADS = 2  # one alone does not keep a memory bus busy
# Between these two torch has no vector code; over float32 it is four times as fast.
_SIXTEEN_BIT = {torch.float16, torch.bfloat16}


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some rows of a part on their way to `home`, through `staging` where they are not just copied."""

    part: Part
    rows: int
    home: Tensor
    staging: Tensor | None
    head_dim: int | None
    done: Future[None]


class Reader:
    """Fills tensors with weights. `tick(bytes)` is called as they arrive; it may raise to end it.

    A context manager: its threads end with it, and none of them touches memory afterwards. Meanwhile
    torch computes on one thread: more would wait for each other whenever a reading one has a core
    (measured on two cores: 40 times slower).
    """

    def __init__(self, tick: Callable[[int], None] = lambda count: None) -> None:
        self._tick = tick
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="reader")
        self._pending: deque[_Piece] = deque()
        self._free: list[Tensor] = []
        self._scratch = torch.empty(0)

    def __enter__(self) -> Self:
        self._torch_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        self._workers = ThreadPoolExecutor(self._torch_threads, thread_name_prefix="quantiser")
        return self

    def __exit__(self, *exception: object) -> None:
        self._abandon()
        self._pool.shutdown()
        self._workers.shutdown()
        torch.set_num_threads(self._torch_threads)

    def spread(self, work: Callable[[int], None], count: int) -> None:
        """Call `work` with 0 to `count` - 1, on as many threads as torch had; wait until all have ended.

        Each computes on its own, so none waits for another as torch's threads do after every step: where
        something else has a core, that makes them many times slower. Raises what the first of them raised.
        """
        if min(count, self._torch_threads) == 1:
            for i in range(count):
                work(i)
            return
        futures = [self._workers.submit(work, i) for i in range(count)]
        wait(futures)
        for future in futures:
            future.result()

    def fill(self, weight: Weight, home: Tensor) -> None:
        """Put the whole of `weight` into `home`, of its shape, in `home`'s own float type and device.

        Raises UserError where a file turns out shorter than it said.
        """
        self.start(weight, home)
        self.finish()

    def finish(self) -> None:
        """Wait for all that was started."""
        try:
            while self._pending:
                self._finish(self._pending.popleft())
        except BaseException:
            self._abandon()
            raise

    def start(self, weight: Weight, home: Tensor) -> None:
        """What `fill` does, but for the last pieces, which come while the next weight is started."""
        try:
            start = 0
            for part in weight.parts:
                length = part.shape[weight.axis] if part.shape else 1
                share = home if len(weight.parts) == 1 else home.narrow(weight.axis, start, length)
                start += length
                self._start(part, share, weight.head_dim)
        except BaseException:
            self._abandon()
            raise

    def blocks(self, weight: Weight) -> Blocks:
        """A quantised weight as it is. ValueError for one that is not."""
        (part,) = weight.parts
        if not isinstance(part.type, BlockType):
            raise ValueError(f"stored as {part.type}, not in blocks")
        shape = (part.rows, part.row_bytes)
        data = torch.empty(shape, dtype=torch.uint8)
        self.fill(Weight(shape, (Part(part.file, part.offset, shape, torch.uint8),)), data)
        return Blocks(part.type, weight.shape, data)

    def _start(self, part: Part, home: Tensor, head_dim: int | None) -> None:
        """Start on the pieces of one part, finishing earlier ones to stay within bounds."""
        copied = part.type == home.dtype and head_dim is None
        direct = copied and home.device.type == "cpu" and home.is_contiguous()
        least = head_dim or 1
        piece = _BLOCKS if isinstance(part.type, BlockType) else _PIECE
        rows = max(1, piece // max(1, part.row_bytes * least)) * least
        for start in range(0, part.rows, rows):
            count = min(rows, part.rows - start)
            # While this thread converts one piece, one is read.
            while len(self._pending) > (_THREADS if direct else 1):
                self._finish(self._pending.popleft())
            share = home[start : start + count] if home.ndim else home
            nbytes = count * part.row_bytes
            staging = None if direct else self._staging(nbytes)
            buffer = memory_of(share) if staging is None else memory_of(staging)[:nbytes]
            fresh = staging is not None and share.device.type == "cpu" and share.is_contiguous()
            room = memory_of(share) if fresh else None
            done = self._pool.submit(_read, part.file, part.offset + start * part.row_bytes, buffer, room)
            self._pending.append(_Piece(part, count, share, staging, head_dim, done))

    def _finish(self, piece: _Piece) -> None:
        """Wait for a read, and convert what it brought."""
        piece.done.result()
        if piece.staging is not None:
            _convert(piece, self._float32)
            self._free.append(piece.staging)
        self._tick(piece.rows * piece.part.row_bytes)

    def _staging(self, nbytes: int) -> Tensor:
        """A buffer of at least `nbytes`; it comes back in `_finish`."""
        while self._free:
            buffer = self._free.pop()
            if buffer.numel() >= nbytes:
                return buffer
        return torch.empty(max(nbytes, _PIECE), dtype=torch.uint8)

    def _float32(self, shape: tuple[int, ...]) -> Tensor:
        """Scratch of this shape, one at a time."""
        count = math.prod(shape)
        if self._scratch.numel() < count:
            self._scratch = torch.empty(count)
        return self._scratch[:count].view(shape)

    def _abandon(self) -> None:
        """Wait for what is being read, so that nothing writes into memory that is given back."""
        while self._pending:
            piece = self._pending.popleft()
            if not piece.done.cancel():
                piece.done.exception()
        self._free.clear()


def _read(file: SourceFile, offset: int, buffer: memoryview, room: memoryview | None) -> None:
    """Fill `buffer`; and have the system provide the memory where the values will go, here and not later."""
    if room is not None:
        for at in range(0, len(room), _LARGE_PAGE):
            room[at] = 0
    file.read_into(buffer, offset)


def _convert(piece: _Piece, scratch: Callable[[tuple[int, ...]], Tensor]) -> None:
    """Bring the bytes in `staging` into the type and the order of `home`."""
    part, home = piece.part, piece.home
    assert piece.staging is not None
    raw = piece.staging[: piece.rows * part.row_bytes]
    if isinstance(part.type, BlockType):
        home.copy_(_dequantised(raw, part.type, home.shape))
        return
    values = raw.view(part.type).view(home.shape)
    if piece.head_dim:
        pairs = piece.head_dim // 2
        values = values.view(-1, 2, pairs, *home.shape[1:]).transpose(1, 2)
        home = home.view(-1, pairs, 2, *home.shape[1:])
    if home.device.type != "cpu" or {values.dtype, home.dtype} != _SIXTEEN_BIT:
        home.copy_(values)
        return
    rows = max(1, _CACHED // max(1, math.prod(values.shape[1:])))
    for some, to in zip(values.split(rows), home.split(rows), strict=True):
        to.copy_(scratch(tuple(some.shape)).copy_(some))


def _dequantised(raw: Tensor, kind: BlockType, shape: torch.Size) -> Tensor:
    """Quantised rows as float32."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    rows = raw.numpy().reshape(shape[0], -1)
    return torch.from_numpy(dequantize(rows, GGMLQuantizationType[kind.name])).view(shape)


def memory_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor in host memory, which must outlive them."""
    # Not by numpy, which has no bfloat16, and without which Meta's files can be read.
    return memoryview((ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")
