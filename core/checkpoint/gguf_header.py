"""The head of a GGUF file: metadata, and where each tensor lies. No torch, no tensor is read.

Format: github.com/ggml-org/ggml, docs/gguf.md, versions 2 and 3, little-endian. The gguf package has a
reader too; it takes seconds for a vocabulary, and believes the counts in a damaged file.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from core.checkpoint.fields import Fields
from core.checkpoint.source import SourceFile
from core.errors import UserError
from core.text.sanitize import one_line

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
_MAX_HEADER = 2**26  # bytes
_CHUNK = 2**20
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
    """Everything before the weights."""

    metadata: Fields
    tensors: dict[str, TensorInfo]


def read_header(file: SourceFile) -> Header:
    """Parse and check the head of `file`. Raises UserError for one that is not whole.

    Every count is held against the bytes that are there before memory is taken for it.
    """
    try:
        return _parse(_Cursor(file))
    except (ValueError, struct.error) as error:
        raise UserError(f"{file.path}: not a whole GGUF file ({one_line(error)}); fetch it again") from None


class _Cursor:
    """Reads values one after the other; ValueError past the end."""

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self.at = 0
        self._data = bytearray()  # of the file, as far as it was needed

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
        end = self.at + count
        if end > self.file.size:
            raise ValueError(f"it ends at byte {self.file.size}, within its header")
        if end > _MAX_HEADER:
            raise ValueError(f"a header of more than {_MAX_HEADER} bytes")
        if end > len(self._data):
            self._data += self.file.read(len(self._data), max(end - len(self._data), _CHUNK))


def _parse(cursor: _Cursor) -> Header:
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
    tensors = {name: _place(name, *info, start, cursor.file.size) for name, info in raw.items()}
    return Header(Fields(cursor.file.path, metadata), tensors)


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
