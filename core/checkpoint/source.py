"""Where weights lie in files, whatever the container: the common form that every reader produces."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError

if TYPE_CHECKING:
    import torch


class SourceFile:
    """A file that stays open, read at given places by any number of threads.

    Not mapped: when a mapped file shrinks, the process dies at the next touch; here it is an error.
    """

    def __init__(self, path: Path) -> None:
        """Raises UserError where it cannot be opened."""
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
            self.size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None

    @property
    def descriptor(self) -> int:
        """The system's number of the open file."""
        return self._file.fileno()

    def read_into(self, buffer: memoryview | bytearray, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on. Raises UserError where the file ends before."""
        rest = memoryview(buffer)
        try:
            while rest:
                count = self._read(rest, offset)
                if not count:
                    raise UserError(
                        f"{self.path}: it ends at byte {offset}, {len(rest)} too early; it was cut short, "
                        "fetch it again"
                    )
                rest, offset = rest[count:], offset + count
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be read at byte {offset} ({error.strerror}); check the disk"
            ) from None

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset` on, at most as many as the file has."""
        data = bytearray(max(0, min(count, self.size - offset)))
        self.read_into(data, offset)
        return bytes(data)

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    if hasattr(os, "preadv"):

        def _read(self, rest: memoryview, offset: int) -> int:
            return os.preadv(self._file.fileno(), [rest], offset)

    else:

        def _read(self, rest: memoryview, offset: int) -> int:
            with open(self.path, "rb", buffering=0) as file:  # a position of its own: threads share ours
                file.seek(offset)
                return file.readinto(rest) or 0


@dataclass(frozen=True, slots=True)
class BlockType:
    """A quantised type: `values` numbers of a row lie in `nbytes` bytes. `name` is ggml's, as "Q4_K"."""

    name: str
    values: int
    nbytes: int

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Part:
    """An array in row-major order in a file: a whole weight, or one shard's share of it."""

    file: SourceFile
    offset: int
    shape: tuple[int, ...]
    type: torch.dtype | BlockType

    @property
    def rows(self) -> int:
        """The first dimension; 1 for a single number."""
        return self.shape[0] if self.shape else 1

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        columns = math.prod(self.shape[1:])
        if isinstance(self.type, BlockType):
            return columns // self.type.values * self.type.nbytes
        return columns * self.type.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.rows * self.row_bytes


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight of the model, under Meta's conventions, still on disk.

    `parts` are joined along `axis`. `head_dim` is given where the rows of each head lie in Hugging
    Face's rotary order (all first halves of the pairs, then all second ones) and not in Meta's.
    """

    shape: tuple[int, ...]
    parts: tuple[Part, ...]
    axis: int = 0
    head_dim: int | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that a load reads for it."""
        return sum(part.nbytes for part in self.parts)

    @property
    def type(self) -> torch.dtype | BlockType:
        """How it is stored, by its first part."""
        return self.parts[0].type

    @property
    def float_type(self) -> torch.dtype:
        """The type in which its values are kept as floats."""
        import torch

        return torch.float16 if isinstance(self.type, BlockType) else self.type


@dataclass(frozen=True, slots=True)
class Blocks:
    """A quantised weight as its file has it: `data` is uint8 [rows, bytes of a row]."""

    type: BlockType
    shape: tuple[int, ...]
    data: torch.Tensor


def rows_of(weight: Weight, start: int, stop: int) -> Weight:
    """Rows `start` to `stop` of `weight`, as a weight. ValueError for parts of a head in rotary order."""
    if weight.head_dim is not None and (start % weight.head_dim or stop % weight.head_dim):
        raise ValueError(f"rows {start} to {stop} of heads of {weight.head_dim}")
    parts, first = [], 0
    for part in weight.parts:
        # Parts side by side all have every row; those below one another have some each.
        low, high = max(start - first, 0), min(stop - first, part.rows)
        if low < high:
            place = part.offset + low * part.row_bytes
            parts.append(replace(part, offset=place, shape=(high - low, *part.shape[1:])))
        first += part.rows if weight.axis == 0 else 0
    return replace(weight, shape=(stop - start, *weight.shape[1:]), parts=tuple(parts))


def find_part(tensors: Mapping[str, Part], name: str, shape: tuple[int, ...], path: Path, sizes: str) -> Part:
    """The tensor `name` of the checkpoint at `path`, of the shape that `sizes` (a file, in words) gives it.

    Raises UserError where it is missing, or of another shape.
    """
    part = tensors.get(name)
    if part is None:
        raise UserError(f"{path}: no {name} in it; the download is not complete")
    if part.shape != shape:
        raise UserError(
            f"{path}: {name} is {times(part.shape)}, not {times(shape)} as {sizes} says; fetch it again"
        )
    return part


def times(shape: tuple[int, ...]) -> str:
    """A shape in words: 32 x 64."""
    return " x ".join(map(str, shape))
