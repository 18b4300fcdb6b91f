"""Memory of the host: exact pieces of it, and pinning them in place.

torch's own pinned memory is rounded up to a power of two; here a gigabyte and a byte is that.
"""

from __future__ import annotations

import contextlib
import mmap
import sys
from typing import Protocol

import torch
from torch import Tensor

from core.errors import UserError

_LARGE_PAGE = 2 * 2**20  # bytes
_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every device


class Registrar(Protocol):
    """Pins memory that is there already."""

    def register(self, address: int, nbytes: int) -> bool:
        """Pin these bytes; False where the system does not allow it."""
        ...

    def unregister(self, address: int) -> None:
        """Take back what `register` did from this address on."""
        ...


def anonymous(nbytes: int, *, sparse: bool = False) -> tuple[mmap.mmap, Tensor]:
    """Fresh zeros as a page-aligned mapping, and uint8 [nbytes] over them, which keeps them alive.

    `sparse` memory is hardly used at first, such as a KV cache: large pages would have it there whole.
    Raises MemoryError where there is no room, ValueError for no bytes at all.
    """
    if nbytes <= 0:
        raise ValueError(f"{nbytes} bytes of memory asked for")
    try:
        if sys.platform == "win32":
            memory = mmap.mmap(-1, nbytes)
        else:
            # Private: only such memory goes back to the system page by page, see HostBlock.close.
            memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"{nbytes} bytes: {error}") from None
    if sys.platform == "linux" and nbytes >= _LARGE_PAGE and not sparse:
        # Filled twice as fast; it may be refused, which costs speed only.
        with contextlib.suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    # A tensor made in inference mode could not be written outside it.
    with torch.inference_mode(False):
        return memory, torch.frombuffer(memory, dtype=torch.uint8)


class HostBlock:
    """An exact, page-aligned piece of memory that weights are streamed from. Must be closed.

    `tensor` is uint8 [nbytes] over it without a copy; `pinned` says whether the device may fetch from it
    by itself. Raises UserError where there is not that much memory.
    """

    def __init__(self, nbytes: int) -> None:
        try:
            self._memory, self.tensor = anonymous(nbytes)
        except MemoryError:
            raise UserError(
                f"no room for another {nbytes / 1e9:.2f} GB of weights in memory; give a smaller --ram"
            ) from None
        self.nbytes = nbytes
        self._address = self.tensor.data_ptr()
        self._registrar: Registrar | None = None
        self._closed = False

    @property
    def address(self) -> int:
        """Where it begins. ValueError once closed. No torch call, so any thread may ask."""
        if self._closed:
            raise ValueError(f"a block of {self.nbytes} bytes is used after it was closed")
        return self._address

    @property
    def pinned(self) -> bool:
        """True while registered with the device's driver."""
        return self._registrar is not None

    def pin(self, registrar: Registrar) -> bool:
        """Pin it in place, which takes about as long as a copy; False where that is refused."""
        if not self.pinned and registrar.register(self.address, self.nbytes):
            self._registrar = registrar
        return self.pinned

    def __del__(self) -> None:
        """Memory that goes back to the system must not stay registered: whatever lies at its address next
        would be taken for it by the driver. Where a block was forgotten, this is the last moment.
        """
        registrar = getattr(self, "_registrar", None)
        if registrar is not None:
            with contextlib.suppress(Exception):  # also while Python ends, when CUDA may be gone
                registrar.unregister(self._address)

    def close(self) -> None:
        """Unpin, and give the memory back at once. What views are left must not be used: they are zeros.

        No copy from it may be under way. Does nothing the second time.
        """
        if self._closed:
            return
        if self._registrar is not None:
            self._registrar.unregister(self._address)
            self._registrar = None
        self._closed = True
        self.tensor = torch.empty(0, dtype=torch.uint8)
        if sys.platform == "linux":  # elsewhere it goes with the last view
            self._memory.madvise(mmap.MADV_DONTNEED)
        del self._memory


class LimitedRegistrar:
    """Pins nothing but counts as if it did, up to `limit` bytes: for the simulated device, and the base
    of the real one.

    `refused` is the sum of what it was asked for in vain. After a refusal only smaller pieces are tried,
    until something is given back: every attempt locks gigabytes of pages before it fails, but what is left
    of a limit may still hold a smaller piece.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.refused = 0
        self._held: dict[int, int] = {}
        self._too_large: int | None = None

    @property
    def held(self) -> int:
        """Bytes pinned now."""
        return sum(self._held.values())

    def register(self, address: int, nbytes: int) -> bool:
        """Pin these bytes; False where the system does not allow it."""
        if self._too_large is None or nbytes < self._too_large:
            if self._lock(address, nbytes):
                self._held[address] = nbytes
                return True
            self._too_large = nbytes
        self.refused += nbytes
        return False

    def unregister(self, address: int) -> None:
        """Take back what `register` did. KeyError for an address it did not."""
        del self._held[address]
        self._too_large = None
        self._unlock(address)

    def _lock(self, address: int, nbytes: int) -> bool:
        return self.limit is None or self.held + nbytes <= self.limit

    def _unlock(self, address: int) -> None:
        pass


class CudaRegistrar(LimitedRegistrar):
    """Pins memory in place through the CUDA runtime. Used on the engine's thread."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device = device
        with torch.inference_mode(False):
            self._launch = torch.zeros(1, device=device)

    def _lock(self, address: int, nbytes: int) -> bool:
        with torch.cuda.device(self._device):
            code = int(torch.cuda.cudart().cudaHostRegister(address, nbytes, _PORTABLE))
            if code:
                self._clear_error()
        return code == 0

    def _unlock(self, address: int) -> None:
        with torch.cuda.device(self._device):
            code = int(torch.cuda.cudart().cudaHostUnregister(address))
        if code:
            raise RuntimeError(f"cudaHostUnregister({address:#x}) failed with CUDA error {code}")

    def _clear_error(self) -> None:
        """The runtime keeps a failed call's error for the next launch to stumble on: launch one here.

        A second failure is no echo of the refusal, and is raised.
        """
        try:
            self._launch.fill_(1)
        except RuntimeError:
            self._launch.fill_(1)
