"""Writing a packed file: once for each source and format, whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch

from core.checkpoint.reader import Reader, memory_of
from core.checkpoint.source import rows_of
from core.engine.events import Loading, Notice
from core.engine.filling import start_filling
from core.engine.load_meter import LoadMeter
from core.errors import Cancelled, UserError
from core.weights.needs import Needs
from core.weights.packed import PackedFile, path_of
from core.weights.packed_files import UNFINISHED, folder, remove_unfinished, unwritable, writing
from core.weights.packed_header import Contents, contents_of

if TYPE_CHECKING:
    from core.checkpoint import Checkpoint

Emit = Callable[[Loading | Notice], None]

_STAGE = "packing for the disk tier"
_PIECE = 8 * 2**20  # bytes written between two looks at the stop flag


def find_or_pack(
    checkpoint: Checkpoint, needs: Needs, emit: Emit, cancelled: Callable[[], bool]
) -> PackedFile:
    """The packed file of `checkpoint` in the types of `needs`, made now if there is none that can be taken.

    What `pack` emits and raises; and a Notice of why a file that is there cannot be taken.
    """
    found = PackedFile.find(checkpoint, needs, lambda reason: emit(Notice(reason)))
    return found or pack(checkpoint, needs, emit, cancelled)


def pack(checkpoint: Checkpoint, needs: Needs, emit: Emit, cancelled: Callable[[], bool]) -> PackedFile:
    """Write the packed file of `checkpoint`, or take that which another process writes meanwhile.

    Before the first byte a Notice says how large it gets, where, and what is free there; Loading events
    follow. Takes memory for one weight. Nothing stands at the final path before all of it is on the disk,
    and no unfinished file is left behind; what a crash left is removed by the next call.
    Raises Cancelled, and UserError where the disk is too small or cannot be written to, or a source file
    is short or changes meanwhile.
    """
    path = path_of(contents_of(checkpoint, needs))
    with writing(cancelled, lambda: emit(Loading("waiting for another llama-tui that is packing"))):
        found = PackedFile.find(checkpoint, needs)
        if found is not None:
            return found
        contents = contents_of(checkpoint, needs)
        unfinished = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{UNFINISHED}")
        try:
            remove_unfinished()
            path.unlink(missing_ok=True)  # no use to anyone, and its room is needed
            _announce(checkpoint.name, contents, emit)
            with unfinished.open("xb", buffering=0) as file:
                _write(file, checkpoint, contents, emit, cancelled)
            if contents_of(checkpoint, needs) != contents:
                raise UserError(f"{checkpoint.name}: its files have changed while they were read; try again")
            unfinished.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise unwritable(error) from None
        finally:
            unfinished.unlink(missing_ok=True)
        found = PackedFile.find(checkpoint, needs)
        if found is None:
            raise UserError(f"{path}: it is not there as it was written; check the disk and try again")
        return found


def _announce(name: str, contents: Contents, emit: Emit) -> None:
    """Say what will be written. UserError where there is no room for it."""
    free = shutil.disk_usage(folder()).free
    size = contents.file_bytes
    if size > free:
        raise UserError(
            f"{folder()}: the packed file of {name} takes {_size(size)}, and {_size(free)} are free there; "
            "set LLAMA_TUI_CACHE to a folder on a larger disk, or give more --ram"
        )
    emit(
        Notice(
            f"writing {_size(size)} to {folder()} once, to read weights from disk as they are needed "
            f"({_size(free)} are free there)"
        )
    )


def _write(
    file: BinaryIO, checkpoint: Checkpoint, contents: Contents, emit: Emit, cancelled: Callable[[], bool]
) -> None:
    """All of the file, and wait until it is on the disk."""
    meter = LoadMeter(sum(entry.nbytes for entry in contents.entries), emit, stage=_STAGE)

    def look(count: int) -> None:
        if cancelled():
            raise Cancelled

    buffer = torch.empty(max(entry.nbytes for entry in contents.entries), dtype=torch.uint8)
    checksums, start = [], contents.start
    with Reader(look) as reader:
        for entry in contents.entries:
            weight = checkpoint.weights[entry.weight]
            if (entry.start, entry.stop) != (0, weight.shape[0]):
                weight = rows_of(weight, entry.start, entry.stop)
            start_filling(reader, weight, entry.format, buffer[: entry.nbytes])
            reader.finish()
            data = memory_of(buffer)[: entry.nbytes]
            checksums.append(zlib.crc32(data))
            file.seek(start + entry.offset)
            for at in range(0, entry.nbytes, _PIECE):
                look(0)
                _put(file, data[at : at + _PIECE])
                meter.add(len(data[at : at + _PIECE]))
            _begin_writeback(file, start + entry.offset, entry.nbytes)
    file.truncate(contents.file_bytes)
    file.seek(0)
    _put(file, memoryview(contents.header(checksums)))
    os.fsync(file.fileno())


def _put(file: BinaryIO, data: memoryview) -> None:
    """Write all of `data`: an unbuffered file may take less at a time."""
    while data:
        data = data[file.write(data) :]


def _begin_writeback(file: BinaryIO, offset: int, nbytes: int) -> None:
    """Have the disk work while the next weight is read, and not all at the end, where nothing can stop it."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), offset, nbytes, os.POSIX_FADV_DONTNEED)


def _sync_folder(path: Path) -> None:
    """Have the new name on the disk as well, where the system knows how."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 10**9 else f"{nbytes / 1e6:.1f} MB"
