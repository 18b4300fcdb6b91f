"""Files of torch.save: where each tensor lies. Nothing in them is run, and no weight is read.

Such a file is a zip archive without compression: `data.pkl` describes the tensors, `data/N` hold their
bytes (pytorch.org/docs, notes on serialization). `torch.load(mmap=True)` would map them, which kills the
process when a file shrinks, and does not tell where they lie.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from core.checkpoint.source import Part, SourceFile
from core.errors import UserError

_LARGEST_PICKLE = 16 * 2**20  # bytes; a Llama with 80 layers needs 0.1 million
_MOST_TUPLES = 20_000  # six a tensor; the hash of much deeper ones overflows the stack
_OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2"),
    *("LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2"),
    *("TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS", "BINPUT"),
    *("LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
    "BINPERSID",
}
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip entry: signature, lengths of name and extra field
_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    **{f"{kind}Storage": None for kind in ("Long", "Int", "Short", "Char", "Byte", "Bool")},
}


def read_pth(file: SourceFile) -> dict[str, Part]:
    """Name -> place of every tensor of floats. Raises UserError for anything that is not whole.

    Tensors of other types are left out.
    """
    path = file.path
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: truncated, or written by torch before 1.6; fetch it again")
    try:
        with zipfile.ZipFile(path) as archive:
            return _tensors(file, archive)
    except _Forbidden as error:
        raise UserError(
            f"{path}: holds {str(error)!r:.80}, which could run code, and was not opened; "
            "fetch the checkpoint from a source you trust"
        ) from None
    except _Damaged as error:
        raise UserError(f"{path}: truncated or corrupt ({error}); fetch it again") from None
    except Exception as error:  # pickle and zipfile raise whatever a damaged byte leads to
        raise UserError(f"{path}: truncated or corrupt ({type(error).__name__}); fetch it again") from None


class _Forbidden(Exception):
    """A name in the pickle that is not needed for tensors."""


class _Damaged(Exception):
    """What does not fit together."""


# Tuples and not dataclasses: a pickle cannot change them once they are checked.
class _Storage(NamedTuple):
    """The bytes that tensors are views of."""

    key: str
    dtype: torch.dtype | None
    length: int


class _View(NamedTuple):
    """A tensor: which values of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _tensors(file: SourceFile, archive: zipfile.ZipFile) -> dict[str, Part]:
    entries = {info.filename: info for info in archive.infolist()}
    (root,) = {name[: -len("data.pkl")] for name in entries if name.endswith("data.pkl")} or {""}
    for name in (f"{root}data.pkl", f"{root}byteorder"):
        if name in entries and (entries[name].file_size > _LARGEST_PICKLE or entries[name].compress_type):
            raise _Damaged(f"{name!r:.60} is compressed or too large")
    if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
        raise _Damaged("written on a big-endian machine")
    table = _unpickle(archive.read(f"{root}data.pkl"))
    if not isinstance(table, dict):
        raise _Damaged("not a table of named tensors")
    parts = {}
    for name, view in table.items():
        if not isinstance(name, str) or not isinstance(view, _View):
            raise _Damaged(f"{name!r:.60} is no tensor")
        if view.storage.dtype is not None:
            entry = entries.get(f"{root}data/{view.storage.key}")
            parts[name] = _part(file, name, view, view.storage.dtype, entry)
    return parts


def _part(
    file: SourceFile, name: str, view: _View, dtype: torch.dtype, entry: zipfile.ZipInfo | None
) -> Part:
    """Where a view lies in the file."""
    if entry is None or entry.compress_type != zipfile.ZIP_STORED:
        raise _Damaged(f"the bytes of {name!r:.60} are missing")
    dense = tuple(math.prod(view.shape[i + 1 :]) for i in range(len(view.shape)))
    if any(
        given != own and size > 1 for given, own, size in zip(view.stride, dense, view.shape, strict=True)
    ):
        raise _Damaged(f"{name!r:.60} is not stored row by row")
    signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(
        file.read(entry.header_offset, _LOCAL_HEADER.size)
    )
    start = entry.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    part = Part(file, start + view.offset * dtype.itemsize, view.shape, dtype)
    ends = view.offset * dtype.itemsize + part.nbytes
    if signature != b"PK\3\4" or ends > entry.file_size or start + entry.file_size > file.size:
        raise _Damaged(f"the bytes of {name!r:.60} are missing")
    return part


def _unpickle(data: bytes) -> Any:
    """The table of views. Raises _Forbidden for any name but those that torch.save writes for tensors."""
    tuples = 0
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name not in _OPCODES:
            raise _Damaged(f"{opcode.name} in its table of tensors")
        tuples += opcode.name.startswith("TUPLE")
        # The unpickler takes memory for the largest index.
        if tuples > _MOST_TUPLES or (opcode.name == "LONG_BINPUT" and int(argument or 0) > len(data)):
            raise _Damaged("its table of tensors")
    return _Unpickler(io.BytesIO(data)).load()


class _Unpickler(pickle.Unpickler):
    """Makes _View objects, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _NAMES:
            return _NAMES[module, name]
        if module == "torch" and name in _STORAGES:
            return name
        raise _Forbidden(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage, key, _, count = pid
        if kind != "storage" or storage not in _STORAGES or not isinstance(key, str):
            raise _Damaged("its table of tensors")
        return _Storage(key, _STORAGES[storage], _size(count))


def _view(storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> _View:
    """Stands in for torch._utils._rebuild_tensor_v2."""
    if not isinstance(storage, _Storage) or len(shape) != len(stride):
        raise _Damaged("its table of tensors")
    return _View(storage, _size(offset), tuple(map(_size, shape)), tuple(map(_size, stride)))


def _parameter(data: Any, *rest: Any) -> Any:
    """Stands in for torch._utils._rebuild_parameter."""
    return data


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise _Damaged("its table of tensors")
    return value


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _view,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
