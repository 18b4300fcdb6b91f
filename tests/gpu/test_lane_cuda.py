"""The lane to a CUDA device, and memory pinned in place. Skipped, with the reason, where there is none."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from core.errors import Cancelled, UserError
from core.weights.host import CudaRegistrar, HostBlock, LimitedRegistrar
from core.weights.lane import FilePiece, FileSource, HostSource
from core.weights.lanes import CudaLane
from core.weights.ledger import Ledger
from tests.lane_checks import KINDS, Bytes, check_contents, check_random_copies, make_bytes, never

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DEVICE = torch.device("cuda", 0)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Bytes]:
    data = make_bytes(tmp_path, CudaRegistrar(DEVICE))
    yield data
    torch.cuda.synchronize()
    data.pinned.close()
    data.pageable.close()


@pytest.fixture
def lane(ledger: Ledger) -> Iterator[CudaLane]:
    lane = CudaLane(ledger, DEVICE)
    yield lane
    lane.close()


def busy(seconds: float) -> None:
    """Keep the stream that computes busy for about that long."""
    torch.cuda._sleep(int(seconds * 1e9))


def test_a_block_is_pinned_in_place() -> None:
    registrar = CudaRegistrar(DEVICE)
    block = HostBlock(3 * 2**20 + 5)
    block.tensor.fill_(9)
    assert not block.tensor.is_pinned()
    assert block.pin(registrar)
    assert block.tensor.is_pinned()
    address = block.address
    block.close()
    assert registrar.held == 0
    again = HostBlock(3 * 2**20 + 5)  # likely at the same address, which must not count as registered
    assert again.pin(registrar), address
    again.close()


def test_a_refusal_does_not_surface_in_the_next_kernel() -> None:
    registrar = CudaRegistrar(DEVICE)
    block = HostBlock(2**20)
    assert block.pin(registrar)
    assert not registrar.register(block.address, block.nbytes)  # registered already: the runtime refuses
    assert registrar.refused == block.nbytes
    assert torch.ones(3, device=DEVICE).sum().item() == 3
    block.close()


@pytest.mark.parametrize("kind", KINDS)
def test_contents(lane: CudaLane, data: Bytes, kind: str) -> None:
    check_contents(lane, data, kind)
    assert lane.notice is None


@pytest.mark.parametrize("seed", range(3))
def test_copies_are_made_in_the_order_of_send(lane: CudaLane, ledger: Ledger, data: Bytes, seed: int) -> None:
    total = check_random_copies(lane, data, seed)
    assert ledger.to_device == total
    assert ledger.copied == "unit29"


def test_without_pinned_staging_buffers(lane: CudaLane, data: Bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaLane, "_registrar", lambda lane: LimitedRegistrar(0))
    check_random_copies(lane, data, 4)
    assert lane.notice is not None


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_waits_for_kernels_that_read_its_home(lane: CudaLane, data: Bytes, kind: str) -> None:
    nbytes = 2**20
    home = lane.empty(nbytes)
    lane.wait(lane.send("old", data.source(kind, 0, nbytes), home), never)
    for i in range(5):
        busy(0.02)
        seen = home.clone()  # queued, and reading `home` only after the sleep
        transfer = lane.send("new", data.source(kind, i + 1, nbytes), home)
        assert transfer.moved == 0
        lane.wait(transfer, never)
        assert torch.equal(seen.cpu(), data.content[i : i + nbytes])
        assert torch.equal(home.cpu(), data.content[i + 1 : i + 1 + nbytes])


def test_kernels_after_a_wait_see_the_bytes(lane: CudaLane, data: Bytes) -> None:
    """Two slots that take turns, each read by a kernel right after the wait, as in decoding."""
    rng, nbytes = random.Random(2), 3 * 2**20
    slots = [lane.empty(nbytes) for _ in range(2)]
    offsets = [rng.randrange(10**6) for _ in range(40)]
    kinds = [rng.choice(KINDS) for _ in offsets]
    transfers = {i: lane.send(str(i), data.source(kinds[i], offsets[i], nbytes), slots[i]) for i in (0, 1)}
    sums = []
    for i in range(len(offsets)):
        lane.wait(transfers[i], never)
        busy(rng.choice((0.0, 0.001)))
        sums.append(slots[i % 2].sum(dtype=torch.int64))
        slots[i % 2].fill_(0xFF)  # what a late reader would see
        if i + 2 < len(offsets):
            source = data.source(kinds[i + 2], offsets[i + 2], nbytes)
            transfers[i + 2] = lane.send(str(i + 2), source, slots[i % 2])
    wanted = [data.content[at : at + nbytes].sum(dtype=torch.int64).item() for at in offsets]
    assert [total.item() for total in sums] == wanted


@pytest.mark.parametrize("kind", KINDS)
def test_a_wait_ends_at_the_flag_and_the_copy_goes_on(lane: CudaLane, data: Bytes, kind: str) -> None:
    home = lane.empty(5000)
    lane.wait(lane.send("first", data.source(kind, 0, 5000), home), never)  # buffers are there from now on
    home.fill_(0)
    busy(1.0)  # the copy must wait for it
    transfer = lane.send("unit", data.source(kind, 0, 5000), home)
    started = time.monotonic()
    with pytest.raises(Cancelled):
        lane.wait(transfer, lambda: time.monotonic() - started > 0.05)
    assert time.monotonic() - started < 0.3
    lane.drain()
    assert torch.equal(home.cpu(), data.content[:5000])


def test_errors_reach_whoever_waits_and_nobody_else(lane: CudaLane, data: Bytes) -> None:
    end, home = data.content.numel(), lane.empty(2_000_000)
    short = FileSource(data.file, (FilePiece(0, end - 1_500_000, 2_000_000),), 2_000_000)
    wrong = FileSource(data.file, (FilePiece(0, 1, 2_000_000, data.checksum(0, 2_000_000)),), 2_000_000)
    first, second = lane.send("short", short, home), lane.send("wrong", wrong, home)
    third = lane.send("good", data.source("file", 5, 2_000_000), home)
    with pytest.raises(UserError, match="cut short"):
        lane.wait(first, never)
    with pytest.raises(UserError, match="--clear-cache"):
        lane.wait(second, never)
    lane.wait(third, never)
    assert torch.equal(home.cpu(), data.content[5:2_000_005])


def test_close_waits_for_what_is_under_way(ledger: Ledger, data: Bytes) -> None:
    lane = CudaLane(ledger, DEVICE)
    homes = [lane.empty(2**21) for _ in range(6)]
    busy(0.05)
    for i, home in enumerate(homes):
        lane.send(str(i), data.source(KINDS[i % 3], i, 2**21), home)
    lane.close()
    for i, home in enumerate(homes):
        assert torch.equal(home.cpu(), data.content[i : i + 2**21])


def test_a_stream_of_copies_takes_no_device_memory(lane: CudaLane, data: Bytes) -> None:
    home = lane.empty(2**20)
    check_random_copies(lane, data, 9)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    for kind in KINDS:
        lane.wait(lane.send(kind, data.source(kind, 0, 2**20), home), never)
    assert torch.cuda.max_memory_allocated() == before


def test_pinned_copies_run_at_the_rate_of_a_plain_copy(lane: CudaLane) -> None:
    """At least 90 % of what one torch copy after the other reaches from the same pinned memory."""
    size = 256 * 2**20
    block = HostBlock(size)
    block.tensor.fill_(1)
    assert block.pin(CudaRegistrar(DEVICE))
    homes = [lane.empty(size) for _ in range(2)]

    def plain() -> None:
        for i in range(8):
            homes[i % 2].copy_(block.tensor, non_blocking=True)
        torch.cuda.synchronize()

    def ours() -> None:
        transfers = [lane.send(str(i), HostSource(block, 0, size), homes[i % 2]) for i in range(8)]
        for transfer in transfers:
            lane.wait(transfer, never)

    seconds = {}
    for run in (plain, ours) * 3:
        started = time.perf_counter()
        run()
        seconds[run] = min(time.perf_counter() - started, seconds.get(run, 1e9))
    print({run.__name__: f"{8 * size / s / 1e9:.1f} GB/s" for run, s in seconds.items()})
    assert seconds[plain] / seconds[ours] >= 0.9
    torch.cuda.synchronize()
    block.close()
