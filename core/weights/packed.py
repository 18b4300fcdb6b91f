"""The packed file: a model's weights on disk in their final format, laid out as the slots hold them.

Made once for the disk tier (`core.engine.packing`), from then on the source of what is streamed from
disk, and of everything else too.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.checkpoint.source import Part, SourceFile, Weight
from core.errors import UserError
from core.weights.lane import FilePiece, FileSource
from core.weights.layouts import FLOATS
from core.weights.needs import Needs, UnitNeed, aligned
from core.weights.packed_files import SUFFIX, folder
from core.weights.packed_header import TILED, Contents, Entry, Unusable, contents_of, read_checksums

if TYPE_CHECKING:
    from core.checkpoint import Checkpoint

_PIECE = 2**20  # bytes read at once


class PackedFile:
    """An open packed file whose header has been checked. Any number of threads may read it.

    `path` is where it lies, `nbytes` its size, `file` what to read it through.
    """

    def __init__(self, path: Path, contents: Contents, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raises UserError where it cannot be opened, and Unusable for any file but a whole one of these."""
        self.path = path
        self.file = SourceFile(path)
        try:
            checksums = read_checksums(self.file, contents)
        except BaseException:
            self.file.close()
            raise
        self._entries = {entry.name: entry for entry in contents.entries}
        self._sections = {section.name: section for section in contents.sections}
        # The two are the same bytes where tied.
        self._sections.setdefault("embeddings", self._sections["output"])
        self._checksums = dict(zip(self._entries, checksums, strict=True))
        self.nbytes = self.file.size
        self._start = contents.start
        self.weights: Mapping[str, Weight] = self._weights(contents, shapes)
        """Every weight of floats under Meta's name, as in a Checkpoint; a Reader only has to copy them."""

    @classmethod
    def find(
        cls, checkpoint: Checkpoint, needs: Needs, tell: Callable[[str], None] = lambda reason: None
    ) -> PackedFile | None:
        """The packed file of `checkpoint` in the types of `needs`, or None where it has to be made.

        Where there is one that cannot be taken, `tell` is given the reason, one line.
        """
        contents = contents_of(checkpoint, needs)
        path = path_of(contents)
        if not path.exists():
            return None
        try:
            return cls(path, contents, checkpoint.config.shapes())
        except Unusable as error:
            tell(f"{path}: the file {error}; it is made anew")
        except UserError as error:
            tell(str(error))
        return None

    def source(self, unit: UnitNeed, streamed: Collection[str]) -> FileSource:
        """What fills a slot with those weights of `unit` that are among `streamed`, short names.

        Pieces are whole weights or a tile, one behind the other at multiples of 256 bytes, each with its
        checksum. ValueError where none of them is streamed.
        """
        pieces: list[FilePiece] = []
        at = 0
        for weight in unit.weights:
            if weight.name in streamed:
                place = self._start + self._entries[weight.name].offset
                pieces.append(FilePiece(at, place, weight.nbytes, self._checksums[weight.name]))
                at += aligned(weight.nbytes)
        if not pieces:
            raise ValueError(f"{unit.name}: nothing of it is among {sorted(streamed)}")
        # Tiles have no room behind them, in host memory neither.
        return FileSource(self.file, tuple(pieces), pieces[0].nbytes if unit.name in self._entries else at)

    def read(self, name: str, memory: Tensor) -> None:
        """Put a whole weight into `memory`, uint8 [its bytes], on any device, and compare the checksum.

        `name` is short: "layers.3.wq", "output", "embeddings". KeyError where there is none of that name,
        ValueError for memory of another size, UserError where the bytes are not what was written.
        """
        entries = self._sections[name].entries if name in TILED else (self._entries[name],)
        nbytes = sum(entry.nbytes for entry in entries)
        if memory.dtype != torch.uint8 or memory.numel() != nbytes:
            raise ValueError(f"{name}: {memory.numel()} of {memory.dtype} for {nbytes} bytes")
        done = 0
        for entry in entries:
            for piece in self._checked(entry):
                memory[done : done + len(piece)].copy_(torch.frombuffer(piece, dtype=torch.uint8))
                done += len(piece)

    def size(self, name: str) -> int:
        """The bytes of what `read` reads."""
        entries = self._sections[name].entries if name in TILED else (self._entries[name],)
        return sum(entry.nbytes for entry in entries)

    def read_part(self, name: str, start: int, memory: Tensor) -> None:
        """Put bytes of "embeddings" or "output" from `start` on into `memory`, uint8, on any device.

        IndexError for bytes that it has not. Not compared with a checksum, which is of whole entries.
        """
        section = self._sections[name]
        if start < 0 or section.offset + start + memory.nbytes > section.end:
            raise IndexError(f"{memory.nbytes} bytes at {start} of {name}")
        buffer = bytearray(memory.nbytes)
        self.file.read_into(buffer, self._start + section.offset + start)
        memory.copy_(torch.frombuffer(buffer, dtype=torch.uint8))

    def verify(self, tick: Callable[[int], None] = lambda count: None) -> None:
        """Read everything and compare the checksums; `tick(bytes)` as it goes, which may raise to end it.

        Raises UserError that names the first weight whose bytes are not what was written.
        """
        for entry in self._entries.values():
            for piece in self._checked(entry):
                tick(len(piece))

    def close(self) -> None:
        """Give the file back; nothing can be read any more."""
        self.file.close()

    def _checked(self, entry: Entry) -> Iterator[memoryview]:
        """The bytes of an entry, in pieces that last until the next one. Raises UserError at the end."""
        buffer = memoryview(bytearray(min(_PIECE, entry.nbytes)))
        checksum = 0
        for done in range(0, entry.nbytes, _PIECE):
            piece = buffer[: entry.nbytes - done]
            self.file.read_into(piece, self._start + entry.offset + done)
            checksum = zlib.crc32(piece, checksum)
            yield piece
        if checksum != self._checksums[entry.name]:
            raise UserError(
                f"{self.path}: {entry.name} is damaged; --clear-cache deletes the file, then start again"
            )

    def _weights(self, contents: Contents, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Weight]:
        dtype = getattr(torch, contents.identity["dtype"])
        first: dict[str, int] = {}
        for entry in contents.entries:
            if entry.format in FLOATS:
                first.setdefault(entry.weight, self._start + entry.offset)
        return {
            name: Weight(shapes[name], (Part(self.file, offset, shapes[name], dtype),))
            for name, offset in first.items()
        }


def path_of(contents: Contents) -> Path:
    """Where the packed file of these contents lies, or would lie.

    By the paths of the source files, not their state: the file of a source that has changed is replaced.
    """
    identity = contents.identity
    form = [identity["dtype"], identity["quant"], *identity["formats"]]
    key = json.dumps([identity["name"], *form, *(path for path, *_ in identity["files"])])
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    name = re.sub(r"[^\w.-]", "_", identity["name"], flags=re.ASCII).lstrip(".")[:60]
    types = "-".join(dict.fromkeys((identity["dtype"], *identity["formats"])))
    return folder() / f"{name}-{types}-{digest}{SUFFIX}"
