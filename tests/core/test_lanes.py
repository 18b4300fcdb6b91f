"""What every lane does; and the code shared with CUDA, over a device that is always late."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import Cancelled, UserError
from core.weights.host import HostBlock, LimitedRegistrar
from core.weights.lane import FilePiece, FileSource, HostSource, Lane
from core.weights.lanes import DiskLane, SimulatedLane
from core.weights.ledger import Ledger
from tests.core.late_lane import LateLane
from tests.lane_checks import KINDS, Bytes, check_contents, check_random_copies, make_bytes, never

FAST = 1000.0  # GB/s: no throttle


LANES: dict[str, Callable[[Ledger], Lane]] = {
    "sim": lambda ledger: SimulatedLane(ledger, 10**9, FAST),
    "sim poisoned": lambda ledger: SimulatedLane(ledger, 10**9, FAST, poison=True),
    "disk": DiskLane,
    "late": LateLane,
}


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def data(tmp_path: Path) -> Bytes:
    return make_bytes(tmp_path, LimitedRegistrar())


@pytest.fixture(params=LANES)
def lane(request: pytest.FixtureRequest, ledger: Ledger) -> Iterator[Lane]:
    before = threading.enumerate()
    with closing(LANES[request.param](ledger)) as lane:
        yield lane
    assert set(threading.enumerate()) <= set(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["sim", "disk", "late"])
def test_contents(name: str, kind: str, ledger: Ledger, data: Bytes) -> None:
    with closing(LANES[name](ledger)) as lane:
        check_contents(lane, data, kind)


@pytest.mark.parametrize("seed", range(3))
def test_copies_are_made_in_the_order_of_send(lane: Lane, ledger: Ledger, data: Bytes, seed: int) -> None:
    total = check_random_copies(lane, data, seed)
    assert ledger.copied == "unit29"
    assert ledger.to_device == (0 if isinstance(lane, DiskLane) else total)


def test_what_is_read_from_disk_is_counted(ledger: Ledger, data: Bytes) -> None:
    for lane in (SimulatedLane(ledger, 10**9, FAST), DiskLane(ledger)):
        before = ledger.from_disk
        home = lane.empty(3_000_000)
        for kind in KINDS:
            lane.wait(lane.send(kind, data.source(kind, 0, 3_000_000, pieces=2), home), never)
        assert ledger.from_disk - before == 3_000_000
        lane.close()
    assert ledger.to_device == 3 * 3_000_000


def test_memory_of_the_card_can_be_written_in_and_out_of_inference_mode(lane: Lane) -> None:
    with torch.inference_mode():
        home = lane.empty(512)
        home.fill_(1)
    home.fill_(2)
    assert not home.is_inference()


def test_a_short_file_fails_its_own_copy_only(lane: Lane, data: Bytes) -> None:
    end = data.content.numel()
    homes = [lane.empty(2_000_000) for _ in range(3)]
    short = FileSource(data.file, (FilePiece(0, end - 1_500_000, 2_000_000),), 2_000_000)
    good = data.source("file", 0, 2_000_000)
    first, second, third = (
        lane.send(name, source, home)
        for name, source, home in zip("abc", (good, short, good), homes, strict=True)
    )
    lane.wait(first, never)
    for _ in range(2):
        with pytest.raises(UserError, match="cut short"):
            lane.wait(second, never)
    lane.wait(third, never)
    assert torch.equal(homes[2], data.content[:2_000_000])


def test_errors_nobody_waited_for_are_dropped(lane: Lane, data: Bytes) -> None:
    short = FileSource(data.file, (FilePiece(0, data.content.numel() - 5, 10),), 10)
    lane.send("unit", short, lane.empty(10))
    lane.drain()
    check_random_copies(lane, data, 3, count=5)


def test_a_damaged_file_is_found_the_first_time(lane: Lane, data: Bytes) -> None:
    size = 9_000_000
    home = lane.empty(size)
    good = data.source("file", 0, size, pieces=2)
    lane.wait(lane.send("unit", good, home), never)
    wrong = FilePiece(0, 1, size, crc32=data.checksum(0, size))
    with pytest.raises(UserError, match=r"damaged.*--clear-cache"):
        lane.wait(lane.send("unit", FileSource(data.file, (wrong,), size), home), never)
    with data.file.path.open("r+b") as file:  # looked at once: not again
        file.seek(100)
        file.write(b"changed")
    lane.wait(lane.send("unit", good, home), never)
    assert bytes(home[100:107].tolist()) == b"changed"


def test_close_waits_for_what_is_under_way(ledger: Ledger, data: Bytes) -> None:
    before = set(threading.enumerate())
    slow = partial(SimulatedLane, card_bytes=10**9, gb_s=FAST, delay=lambda: 0.01)
    for make in (slow, DiskLane, LateLane):
        lane: Lane = make(ledger)
        homes = [lane.empty(2**21) for _ in range(6)]
        for i, home in enumerate(homes):
            lane.send(f"unit{i}", data.source(KINDS[i % 3], i, 2**21), home)
        lane.close()
        for i, home in enumerate(homes):
            assert torch.equal(home, data.content[i : i + 2**21])
        assert set(threading.enumerate()) <= before
        with pytest.raises(RuntimeError, match="closed"):
            lane.send("unit", data.source("pinned", 0, 5), homes[0])
        lane.drain()
        lane.close()


def test_what_does_not_fit_is_refused_at_once(lane: Lane, data: Bytes) -> None:
    home = lane.empty(100)
    for source in (
        data.source("pinned", 0, 101),
        HostSource(data.pageable, data.content.numel() - 5, 10),
        HostSource(data.pageable, -1, 10),
        FileSource(data.file, (FilePiece(95, 0, 10),), 100),
    ):
        with pytest.raises(ValueError, match="unit"):
            lane.send("unit", source, home)
    with pytest.raises(ValueError, match="unit"):
        lane.send("unit", data.source("pinned", 0, 10), home[::2])
    closed = HostBlock(10)
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        lane.send("unit", HostSource(closed, 0, 10), home)


def test_a_wait_for_the_disk_ends_at_the_flag(ledger: Ledger, data: Bytes) -> None:
    gate = threading.Event()
    with closing(DiskLane(ledger)) as lane:
        lane._thread.submit(gate.wait)
        home = lane.empty(5000)
        transfer = lane.send("unit", data.source("file", 0, 5000), home)
        with pytest.raises(Cancelled):
            lane.wait(transfer, lambda: True)
        gate.set()
        lane.drain()
        assert torch.equal(home, data.content[:5000])


def test_kernels_before_a_send_and_after_a_wait_keep_their_order(ledger: Ledger, data: Bytes) -> None:
    with closing(LateLane(ledger)) as lane:
        log = lane.stream.log
        home = lane.empty(700_000)
        transfers = []
        for i, kind in enumerate(("file", "pinned", "pageable")):
            lane.stream.kernels = 10 * i  # queued so far, and maybe still reading `home`
            transfers.append(lane.send(str(i), data.source(kind, i, 700_000), home))
        for i, transfer in enumerate(transfers):
            lane.stream.kernels = 100
            lane.wait(transfer, never)
            assert log[-1] == ("join", str(i))
        assert [what for kind, what in log if kind == "begin"] == [("0", 0), ("1", 10), ("2", 20)]
        # Staging buffers of 300 kB: three chunks where staged.
        assert [what for kind, what in log if kind == "arrived"] == [*"000", "1", *"222"]


def test_no_thread_calls_torch(data: Bytes) -> None:
    calls: list[str] = []
    here = threading.get_ident()

    def watch(frame: Any, event: str, argument: Any) -> None:
        owner = getattr(argument, "__self__", None)
        names = (
            frame.f_globals.get("__name__", "") if event == "call" else "",
            getattr(argument, "__module__", None) or "",
            type(owner).__module__ if event == "c_call" else "",
        )
        if threading.get_ident() != here and any(str(name).split(".")[0] == "torch" for name in names):
            calls.append(f"{event} {frame.f_code.co_name} {argument}")

    lanes: list[Lane] = []
    threading.setprofile(watch)
    try:
        ledger = Ledger()
        lanes = [SimulatedLane(ledger, 10**9, FAST, poison=True), DiskLane(ledger), LateLane(ledger)]
        for lane in lanes:
            check_random_copies(lane, data, 11, count=12)
            lane.close()
        control = threading.Thread(target=lambda: torch.zeros(3).add_(1))
        control.start()
        control.join()
    finally:
        threading.setprofile(None)
    assert any("zeros" in call for call in calls)  # the watch works
    assert [call for call in calls if "<lambda>" not in call] == []
