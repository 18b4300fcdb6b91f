"""What carries bytes to the device: the seam between streaming and the machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from core.checkpoint.source import SourceFile
    from core.weights.host import HostBlock
    from core.weights.ledger import Passage


@dataclass(frozen=True, slots=True)
class HostSource:
    """`nbytes` of host memory from `offset` in `block` on; they become the first bytes of a slot."""

    block: HostBlock
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class FilePiece:
    """Bytes of a file and where in a slot they go. `crc32` of the piece's bytes, None where not known."""

    slot_offset: int
    file_offset: int
    nbytes: int
    crc32: int | None = None


@dataclass(frozen=True, slots=True)
class FileSource:
    """Pieces of a file, which together fill the first `nbytes` of a slot (but for gaps of alignment)."""

    file: SourceFile
    pieces: tuple[FilePiece, ...]
    nbytes: int


Source = HostSource | FileSource


class Transfer(Protocol):
    """A copy under way. `moved` counts the bytes that have arrived, as does its `passage` for the meters."""

    @property
    def passage(self) -> Passage:
        """How far it is; unlike the transfer it holds no memory."""
        ...

    @property
    def moved(self) -> int:
        """Bytes that have arrived."""
        ...


class Lane(Protocol):
    """Five primitives and a hint. All are called on the engine's thread; what they set off may run elsewhere.

    Copies are done in the order of `send`. Memory of a Lane outlives every copy into it: `drain` first.
    """

    device: torch.device
    notice: str | None
    """What the user should know of it once it is in use, or None."""

    def empty(self, nbytes: int, *, sparse: bool = False) -> Tensor:
        """Fresh memory of the device, uint8 [nbytes], 256-byte aligned. Raises torch.OutOfMemoryError.

        `sparse`: little of it will be written soon.
        """
        ...

    def cap(self, nbytes: int) -> None:
        """Take at most so many bytes of the device from now on; beyond, `empty` and kernels find none."""
        ...

    def hint(self, source: Source) -> None:
        """It will be sent soon: what is on disk may be read ahead. Changes nothing but the speed."""
        ...

    def send(self, name: str, source: Source, home: Tensor) -> Transfer:
        """Begin to copy `source`, the unit `name`, to the start of `home`.

        The copy waits for all kernels that were queued before this call, since they may still read `home`.
        """
        ...

    def wait(self, transfer: Transfer, cancelled: Callable[[], bool]) -> None:
        """Until kernels queued from now on see what was copied.

        Raises Cancelled as soon as `cancelled()` says so (the copy goes on by itself), and whatever went
        wrong on the way, such as the UserError of a file that is shorter than it was.
        """
        ...

    def drain(self) -> None:
        """Until no copy is under way any more; errors of copies nobody waited for are dropped."""
        ...

    def close(self) -> None:
        """Drain and end all threads; nothing can be sent afterwards."""
        ...
