"""Which calls the lane to CUDA makes, on a stand-in for torch.cuda. The real thing is in tests/gpu."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from core.weights.host import LimitedRegistrar, anonymous
from core.weights.lanes import CudaLane
from core.weights.ledger import Ledger
from tests.lane_checks import KINDS, Bytes, check_contents, check_random_copies, make_bytes, never


class FakeCuda:
    """As much of torch.cuda as the lane calls; events pass when they have been asked about twice."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.current: list[FakeStream] = [FakeStream(self, "compute")]


class FakeStream:
    def __init__(self, cuda: FakeCuda, name: str) -> None:
        self.cuda, self.name, self.events = cuda, name, 0

    def record_event(self) -> FakeEvent:
        self.events += 1
        self.cuda.log.append(("record", self.name, self.events))
        return FakeEvent(f"{self.name}{self.events}")

    def wait_event(self, event: FakeEvent) -> None:
        self.cuda.log.append(("wait", self.name, event.name))

    def synchronize(self) -> None:
        self.cuda.log.append(("synchronize", self.name))

    def __enter__(self) -> None:
        self.cuda.log.append(("queue on", self.name))
        self.cuda.current.append(self)

    def __exit__(self, *exception: object) -> None:
        self.cuda.current.pop()


class FakeEvent:
    def __init__(self, name: str) -> None:
        self.name, self.polls = name, 2

    def query(self) -> bool:
        self.polls -= 1
        return self.polls < 0


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def data(tmp_path: Path) -> Bytes:
    return make_bytes(tmp_path, LimitedRegistrar())


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: FakeStream(fake, "copies"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: fake.current[-1])
    monkeypatch.setattr(CudaLane, "empty", lambda lane, nbytes: anonymous(nbytes)[1])
    return fake


def test_cuda_copies_and_events(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, ledger: Ledger, data: Bytes
) -> None:
    registrar = LimitedRegistrar()
    monkeypatch.setattr(CudaLane, "_registrar", lambda lane: registrar)
    lane = CudaLane(ledger, torch.device("cpu"))
    home = lane.empty(5000)
    transfer = lane.send("unit", data.source("pinned", 3, 5000), home)
    assert ledger.to_device == 0
    lane.wait(transfer, never)
    assert ledger.to_device == 5000
    assert cuda.log == [
        ("record", "compute", 1),  # kernels before
        ("wait", "copies", "compute1"),
        ("queue on", "copies"),
        ("record", "copies", 1),
        ("wait", "compute", "copies1"),  # kernels after
    ]
    for kind in KINDS:
        check_contents(lane, data, kind)
    check_random_copies(lane, data, 1)
    assert registrar.held == 2 * 16 * 2**20
    assert lane.notice is None
    lane.close()
    assert cuda.log[-1] == ("synchronize", "copies")
    assert registrar.held == 0


def test_cuda_without_pinned_staging_buffers(
    cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch, ledger: Ledger, data: Bytes
) -> None:
    monkeypatch.setattr(CudaLane, "_registrar", lambda lane: LimitedRegistrar(0))
    with closing(CudaLane(ledger, torch.device("cpu"))) as lane:
        check_random_copies(lane, data, 2)
        assert lane.notice is not None
        assert "blocking" in lane.notice
