"""Memory of the host, pinned in place and given back."""

from __future__ import annotations

import contextlib
import gc
import mmap
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.errors import UserError
from core.monitor import process_memory
from core.weights.host import CudaRegistrar, HostBlock, LimitedRegistrar, anonymous


@pytest.mark.parametrize("nbytes", [1, 4097, 3 * 2**20 + 5])
def test_an_exact_block(nbytes: int) -> None:
    block = HostBlock(nbytes)
    assert (block.nbytes, block.tensor.numel(), block.tensor.dtype) == (nbytes, nbytes, torch.uint8)
    assert block.address == block.tensor.data_ptr()
    assert block.address % mmap.PAGESIZE == 0
    assert not block.tensor.any()
    block.tensor.fill_(7)
    assert block.tensor[-1] == 7
    block.close()
    block.close()
    with pytest.raises(ValueError, match="closed"):
        _ = block.address


def test_a_tensor_keeps_the_memory_alive() -> None:
    block = HostBlock(5000)
    view = block.tensor[10:20]
    view.fill_(3)
    del block
    gc.collect()
    assert view.tolist() == [3] * 10


def test_the_memory_goes_back_at_once() -> None:
    if "RssAnon" not in process_memory():
        pytest.skip("no /proc to read")
    nbytes = 200 * 2**20
    before = process_memory()["RssAnon"]
    block = HostBlock(nbytes)
    assert process_memory()["RssAnon"] - before < nbytes / 10  # not there until it is used
    block.tensor.fill_(1)
    view = block.tensor[5:]
    full = process_memory()["RssAnon"]
    assert full - before > 0.9 * nbytes
    block.close()
    assert full - process_memory()["RssAnon"] > 0.9 * nbytes
    assert not view[:100].any()  # no use, but no crash either


def test_made_in_inference_mode_and_written_outside() -> None:
    with torch.inference_mode():
        block = HostBlock(100)
        block.tensor.fill_(1)
    block.tensor.fill_(2)
    block.close()


@pytest.mark.parametrize("nbytes", [2**60, 2**80])
def test_too_much_is_a_users_mistake(nbytes: int) -> None:
    with pytest.raises(UserError, match=rf"{nbytes / 1e9:.2f} GB.*--ram"):
        HostBlock(nbytes)


@pytest.mark.parametrize("nbytes", [0, -1])
def test_no_memory_is_ours(nbytes: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        HostBlock(nbytes)


def test_a_limit_costs_only_the_rest() -> None:
    registrar = LimitedRegistrar(10_000)
    blocks = [HostBlock(n) for n in (6000, 6000, 5000, 3000, 5000, 900)]
    assert [block.pin(registrar) for block in blocks] == [True, False, False, True, False, True]
    assert [block.pinned for block in blocks] == [True, False, False, True, False, True]
    assert registrar.held == 9900
    assert registrar.refused == 16_000
    assert blocks[0].pin(registrar)  # already
    assert registrar.held == 9900
    for block in blocks:
        block.close()
    assert registrar.held == 0


def test_after_a_refusal_only_smaller_pieces_are_tried_until_one_is_given_back() -> None:
    tried = []

    class Watched(LimitedRegistrar):
        def _lock(self, address: int, nbytes: int) -> bool:
            tried.append(nbytes)
            return super()._lock(address, nbytes)

    registrar = Watched(100)
    assert registrar.register(1000, 80)
    assert [registrar.register(2000 + n, n) for n in (50, 60, 50, 40, 45, 20)] == [False] * 5 + [True]
    assert tried == [80, 50, 40, 20]
    registrar.unregister(1000)
    assert registrar.register(5000, 70)
    with pytest.raises(KeyError):
        registrar.unregister(1000)


class FakeRuntime:
    """cudart with room for `room` bytes, which keeps the error of a failed call."""

    def __init__(self, room: int) -> None:
        self.room, self.last_error, self.held = room, 0, {}
        self.flags: list[int] = []

    def cudaHostRegister(self, address: int, nbytes: int, flags: int) -> int:
        self.flags.append(flags)
        if nbytes > self.room:
            self.last_error = 2
            return 2
        self.room -= nbytes
        self.held[address] = nbytes
        return 0

    def cudaHostUnregister(self, address: int) -> int:
        self.last_error = 0 if address in self.held else 713
        self.room += self.held.pop(address, 0)
        return self.last_error

    def launch(self, value: Any) -> None:
        error, self.last_error = self.last_error, 0
        if error:
            raise RuntimeError(f"CUDA error {error}")


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> FakeRuntime:
    runtime = FakeRuntime(10_000)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    return runtime


def cuda_registrar(runtime: FakeRuntime) -> CudaRegistrar:
    registrar = CudaRegistrar(torch.device("cpu"))
    registrar._launch = SimpleNamespace(fill_=runtime.launch)  # type: ignore[assignment]
    return registrar


def test_cuda_pins_in_place_and_a_refusal_leaves_no_error(runtime: FakeRuntime) -> None:
    registrar = cuda_registrar(runtime)
    block, large = HostBlock(8000), HostBlock(3000)
    assert block.pin(registrar)
    assert runtime.held == {block.address: 8000}
    assert not large.pin(registrar)
    assert runtime.last_error == 0
    assert registrar.refused == 3000
    block.close()
    assert runtime.held == {}
    assert set(runtime.flags) == {1}
    runtime.launch(0)


def test_a_block_that_was_forgotten_does_not_leave_its_address_registered(runtime: FakeRuntime) -> None:
    """Other memory comes to lie there, and the driver would take it for the block's."""
    registrar = cuda_registrar(runtime)
    block = HostBlock(8000)
    assert block.pin(registrar)
    del block
    gc.collect()
    assert runtime.held == {}
    assert registrar.held == 0


def test_cuda_raises_an_error_that_is_not_the_refusals(runtime: FakeRuntime) -> None:
    registrar = cuda_registrar(runtime)

    def broken(value: Any) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    registrar._launch = SimpleNamespace(fill_=broken)  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="illegal"):
        HostBlock(20_000).pin(registrar)


def test_cuda_checks_the_code_of_unregister(runtime: FakeRuntime) -> None:
    registrar = cuda_registrar(runtime)
    block = HostBlock(100)
    block.pin(registrar)
    runtime.held.clear()
    with pytest.raises(RuntimeError, match="713"):
        block.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sparse_memory_is_there_only_where_it_was_written() -> None:
    """A KV cache is written a row here and there; with large pages it would be in memory whole."""
    memory, tensor = anonymous(200 * 2**20, sparse=True)
    before = process_memory()["RssAnon"]
    tensor[:: 2**20] = 1
    assert process_memory()["RssAnon"] - before < 20 * 2**20
    del tensor, memory
