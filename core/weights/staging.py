"""Threads that move raw bytes: what fills staging buffers, and what it is made of.

Nothing here calls torch, so that its own threads keep the processor. Bytes move in pieces of at most
1 MB: larger ones stall the threads that compute (and read no faster from a disk, measured).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue

from core.checkpoint.source import SourceFile
from core.errors import UserError
from core.weights.host import HostBlock
from core.weights.lane import FilePiece, FileSource, HostSource, Source
from core.weights.ledger import Ledger

PIECE = 2**20  # bytes


class SerialThread:
    """A daemon thread that makes calls one after another. The calls deal with their own errors.

    It starts with the first call: where nothing is streamed, there is none.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._name = name
        self._thread: threading.Thread | None = None

    def submit(self, call: Callable[[], None]) -> None:
        """Have it called after all earlier ones. From one thread at a time."""
        self._calls.put(call)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait for all calls, and for the thread to end."""
        if self._thread is not None:
            self._calls.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # or what it holds would stay alive until the next one


@dataclass(frozen=True, slots=True)
class Span:
    """`nbytes` of a piece, `start` bytes into it: what moves in one go."""

    piece: FilePiece
    start: int
    nbytes: int

    @property
    def slot_offset(self) -> int:
        """Where in the slot it goes."""
        return self.piece.slot_offset + self.start


def spans(source: Source, longest: int) -> Iterator[Span]:
    """All bytes of a source, in its own order, at most `longest` at a time."""
    pieces = source.pieces if isinstance(source, FileSource) else (FilePiece(0, 0, source.nbytes),)
    for piece in pieces:
        for start in range(0, piece.nbytes, longest):
            yield Span(piece, start, min(longest, piece.nbytes - start))


class SourceReader:
    """Brings bytes of sources to addresses, on one thread, and counts those from files in the ledger.

    The checksum of a piece of a file is looked at the first time that its spans are read.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._checked: set[tuple[SourceFile, int]] = set()
        self._sum = 0

    def read(self, source: Source, span: Span, address: int) -> None:
        """Bring the bytes of `span`, the next one of `source`, to `address`.

        Raises UserError where the file is shorter than it was, cannot be read, or fails its checksum.
        """
        if isinstance(source, HostSource):
            move(address, source.block.address + source.offset + span.start, span.nbytes)
        else:
            self._read(source.file, span, address)

    def _read(self, file: SourceFile, span: Span, address: int) -> None:
        piece = span.piece
        check = piece.crc32 is not None and (file, piece.file_offset) not in self._checked
        room = memoryview((ctypes.c_ubyte * span.nbytes).from_address(address)).cast("B")
        if span.start == 0:
            self._sum = 0
        for at in range(0, span.nbytes, PIECE):
            some = room[at : at + PIECE]
            file.read_into(some, piece.file_offset + span.start + at)
            self._ledger.from_disk += len(some)
            if check:
                self._sum = zlib.crc32(some, self._sum)
        if check and span.start + span.nbytes == piece.nbytes:
            if self._sum != piece.crc32:
                raise UserError(
                    f"{file.path}: the packed file is damaged in the {piece.nbytes} bytes from "
                    f"{piece.file_offset} on; --clear-cache deletes it, then start again"
                )
            self._checked.add((file, piece.file_offset))


class ReadAhead:
    """Has the system begin to read what will be sent soon, so that the disk works while slots are full.

    On a thread of its own, since even to begin takes a while. Only a hint: nothing depends on it.
    """

    def __init__(self) -> None:
        self._thread = SerialThread("read ahead")

    def hint(self, source: Source) -> None:
        """This source will be read soon."""
        if isinstance(source, FileSource) and hasattr(os, "posix_fadvise"):
            self._thread.submit(partial(self._advise, source))

    def close(self) -> None:
        """End the thread."""
        self._thread.close()

    @staticmethod
    def _advise(source: FileSource) -> None:
        with contextlib.suppress(OSError, ValueError):  # a closed file: then nobody reads it either
            for piece in source.pieces:
                os.posix_fadvise(
                    source.file.descriptor, piece.file_offset, piece.nbytes, os.POSIX_FADV_WILLNEED
                )


def move(target: int, source: int, nbytes: int) -> None:
    """Copy memory from address to address; other threads run meanwhile."""
    for at in range(0, nbytes, PIECE):
        ctypes.memmove(target + at, source + at, min(PIECE, nbytes - at))


def fill(target: int, value: int, nbytes: int) -> None:
    """Set memory to one value; other threads run meanwhile."""
    for at in range(0, nbytes, PIECE):
        ctypes.memset(target + at, value, min(PIECE, nbytes - at))


@dataclass(frozen=True, slots=True)
class Chunk:
    """`nbytes` in `block` from `offset` on, to be sent to `slot_offset`."""

    block: HostBlock
    offset: int
    slot_offset: int
    nbytes: int


@dataclass(slots=True)
class Feed:
    """The chunks of one source as they are filled. None comes after `complete`; then `error` is known."""

    source: Source
    chunks: deque[Chunk] = field(default_factory=deque)
    error: BaseException | None = None
    complete: bool = False


class Feeder:
    """A thread that fills staging buffers, in turn, with the sources it is given, in their order.

    `filled` is called on that thread whenever there is more to send. Buffers come back by `release`.
    """

    def __init__(self, ledger: Ledger, buffers: Sequence[HostBlock], filled: Callable[[], None]) -> None:
        self._reader = SourceReader(ledger)
        self._buffers = buffers
        self._filled = filled
        self._free: SimpleQueue[HostBlock | None] = SimpleQueue()
        for buffer in buffers:
            self._free.put(buffer)
        self._thread = SerialThread("feeder")

    def feed(self, source: Source) -> Feed:
        """Begin to fill buffers with `source`, after the earlier ones."""
        feed = Feed(source)
        self._thread.submit(partial(self._feed, feed))
        return feed

    def release(self, buffer: HostBlock) -> None:
        """The bytes of this buffer are where they should be."""
        self._free.put(buffer)

    def close(self) -> None:
        """End the thread and give the buffers back. What is still to be fed gets no more buffers."""
        self._free.put(None)
        self._thread.close()
        for buffer in self._buffers:
            buffer.close()

    def _feed(self, feed: Feed) -> None:
        try:
            for span in spans(feed.source, self._buffers[0].nbytes):
                self._fill(feed, span)
        except BaseException as error:
            feed.error = error
        feed.complete = True
        self._filled()

    def _fill(self, feed: Feed, span: Span) -> None:
        buffer = self._free.get()
        if buffer is None:
            self._free.put(None)  # for whatever else waits to be fed
            raise RuntimeError(f"closed with {span.piece.nbytes - span.start} bytes still to be fed")
        try:
            self._reader.read(feed.source, span, buffer.address)
        except BaseException:
            self._free.put(buffer)
            raise
        feed.chunks.append(Chunk(buffer, 0, span.slot_offset, span.nbytes))
        self._filled()
