"""The head of a GGUF file: metadata, and where each tensor lies. No torch, no tensor is read.

Format: github.com/ggml-org/ggml, docs/gguf.md, versions 2 and 3, little-endian. The gguf package has a
reader too; it takes seconds for a vocabulary, and believes the counts in a damaged file.
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from core.errors import UserError

Scalar = int | float | bool | str
Value = Scalar | list[Scalar]

_SCALARS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}
_MAGIC = int.from_bytes(b"GGUF", "little")
_MAX_DIMENSIONS = 4
_MAX_VALUE = 2**25  # bytes; the largest vocabularies take about 5 million
_ALIGNMENT = 32  # bytes, where the file does not say


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: its shape as torch has it (rows, columns), its type, and its bytes in the file."""

    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """Everything before the weights. The getters raise UserError for a value of another kind."""

    path: Path
    metadata: dict[str, Value]
    tensors: dict[str, TensorInfo]

    def whole(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number from `least` up; one must be there if there is no default."""
        value = self.metadata.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
            raise self.wrong(key, f"a whole number of at least {least}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number."""
        value = self.metadata.get(key, default)
        if not isinstance(value, float) or not 0 < value < math.inf:
            raise self.wrong(key, "a positive number")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        value = self.metadata.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "a list of texts")
        return cast(list[str], value)

    def wrong(self, key: str, expected: str) -> UserError:
        """The error for a metadata value that is not `expected`."""
        value = self.metadata.get(key, "missing")
        shown = f"a list of {len(value)}" if isinstance(value, list) else f"{value!r:.60}"
        return UserError(f"{self.path}: {key} is {shown}, not {expected}; fetch the file again")


def read_header(path: Path) -> Header:
    """Parse and check the head of `path`. Raises UserError for a file that is not whole.

    Every count is held against the bytes that are there before memory is taken for it.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, _Cursor(data))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    except (ValueError, struct.error) as error:
        raise UserError(f"{path}: not a whole GGUF file ({error}); fetch it again") from None


class _Cursor:
    """Reads values one after the other; ValueError or struct.error past the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self.size = len(data)
        self.at = 0

    def scalar(self, code: str) -> int:
        return int(self.scalars(code, 1)[0])

    def scalars(self, code: str, count: int) -> tuple[Scalar, ...]:
        self._need(count * struct.calcsize(code))
        layout = struct.Struct(f"<{count}{code}")
        values = layout.unpack_from(self._data, self.at)
        self.at += layout.size
        return values

    def string(self) -> str:
        length = self.scalar("Q")
        self._need(length)
        self.at += length
        return self._data[self.at - length : self.at].decode()

    def value(self) -> Value:
        kind = GGUFValueType(self.scalar("I"))
        if kind is GGUFValueType.STRING:
            return self.string()
        if kind is not GGUFValueType.ARRAY:
            return self.scalars(_SCALARS[kind], 1)[0]
        kind, count = GGUFValueType(self.scalar("I")), self.scalar("Q")
        if kind is GGUFValueType.STRING:
            self._need(8 * count)
            return [self.string() for _ in range(count)]
        if kind is GGUFValueType.ARRAY:
            raise ValueError("an array of arrays")
        return list(self.scalars(_SCALARS[kind], count))

    def _need(self, count: int) -> None:
        if count > _MAX_VALUE:
            raise ValueError(f"a value of {count} bytes in its header")
        if count > self.size - self.at:
            raise ValueError(f"it ends at byte {self.size}, within its header")


def _parse(path: Path, cursor: _Cursor) -> Header:
    if cursor.scalar("I") != _MAGIC:
        raise ValueError("no GGUF mark")
    version = cursor.scalar("I")
    if version not in (2, 3):
        raise ValueError(f"version {version}, only 2 and 3 are read")
    n_tensors, n_values = cursor.scalar("Q"), cursor.scalar("Q")
    metadata: dict[str, Value] = {}
    for _ in range(n_values):
        key = cursor.string()
        if key in metadata:
            raise ValueError(f"{key!r:.60} stands twice")
        metadata[key] = cursor.value()
    raw: dict[str, tuple[tuple[int, ...], GGMLQuantizationType, int]] = {}
    for _ in range(n_tensors):
        name = cursor.string()
        if name in raw:
            raise ValueError(f"{name!r:.60} stands twice")
        raw[name] = _shape(cursor), GGMLQuantizationType(cursor.scalar("I")), cursor.scalar("Q")
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"alignment {alignment!r}")
    start = -(-cursor.at // alignment) * alignment
    tensors = {name: _place(name, *info, start, cursor.size) for name, info in raw.items()}
    return Header(path, metadata, tensors)


def _shape(cursor: _Cursor) -> tuple[int, ...]:
    dimensions = cursor.scalar("I")
    if dimensions > _MAX_DIMENSIONS:
        raise ValueError(f"a tensor of {dimensions} dimensions")
    return tuple(int(size) for size in reversed(cursor.scalars("Q", dimensions)))


def _place(
    name: str, shape: tuple[int, ...], kind: GGMLQuantizationType, offset: int, start: int, size: int
) -> TensorInfo:
    """Where a tensor lies; `start` is where the weights begin in a file of `size` bytes."""
    values, nbytes = GGML_QUANT_SIZES[kind]
    if not shape or shape[-1] % values:
        raise ValueError(f"{name!r:.60} has rows that are no whole number of {kind.name} blocks")
    info = TensorInfo(shape, kind, start + offset, math.prod(shape) // values * nbytes)
    if info.offset + info.nbytes > size:
        raise ValueError(f"it ends at byte {size}, within {name!r:.60}")
    return info
