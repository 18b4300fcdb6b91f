"""The meters against the system's own tools, and against a scripted NVML."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from core import monitor
from core.engine.events import Event, Snapshot


class NVMLError(Exception):
    """Stands for pynvml's."""


class FakeNVML:
    """A card on PCIe 4.0 x16 whose counters run at given rates on a given clock."""

    NVMLError = NVMLError

    def __init__(self, clock: Any, counters: bool = True) -> None:
        self.clock, self.has_counters = clock, counters
        self.opened: object = None

    def nvmlInit(self) -> None: ...

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        self.opened = index
        return "card"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self.opened = uuid
        return "card"

    def nvmlDeviceGetName(self, handle: str) -> bytes:
        return b"Fake 3060"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return SimpleNamespace(total=12_000, used=5_000)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        return [SimpleNamespace(pid=1, usedGpuMemory=9), SimpleNamespace(pid=os.getpid(), usedGpuMemory=77)]

    def nvmlDeviceGetFieldValues(self, handle: str, fields: list[int]) -> list[Any]:
        rates = {197: 1e9, 198: 20e9}  # sent by the card, received by it
        values = [SimpleNamespace(ullVal=int(self.clock() * rates[field])) for field in fields]
        return [SimpleNamespace(nvmlReturn=0 if self.has_counters else 3, value=value) for value in values]

    def nvmlDeviceGetPcieThroughput(self, handle: str, counter: int) -> int:
        return {0: 1_000, 1: 21_000}[counter]  # KB/s: 0 is what the card sends

    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle: str) -> int:
        return 4

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: str) -> int:
        return 16


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    now = [100.0]
    monkeypatch.setattr(monitor.time, "monotonic", lambda: now[0])
    return now


def test_rates_come_from_the_byte_counters(clock: list[float]) -> None:
    gpu = monitor.Gpu(FakeNVML(lambda: clock[0]))
    first = gpu.read()
    assert first["pcie_to_gpu"] is None  # one reading has no rate
    clock[0] += 0.5
    second = gpu.read()
    assert second["pcie_to_gpu"] == pytest.approx(20e9)
    assert second["pcie_from_gpu"] == pytest.approx(1e9)
    assert second["pcie_link"] == pytest.approx(31.5e9, rel=0.01)  # PCIe 4.0 x16
    assert (second["vram_total"], second["vram_used"], second["process_vram"]) == (12_000, 5_000, 77)
    assert Snapshot(**second).gpu_name == "Fake 3060"


def test_without_counters_the_sampled_rate_is_taken(clock: list[float]) -> None:
    reading = monitor.Gpu(FakeNVML(lambda: clock[0], counters=False)).read()
    assert reading["pcie_to_gpu"] == 21e6
    assert reading["pcie_from_gpu"] == 1e6


def test_what_a_card_cannot_tell_is_none(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise NVMLError

    nvml = FakeNVML(lambda: clock[0])
    gpu = monitor.Gpu(nvml)
    for name in dir(nvml):
        if name.startswith("nvmlDevice"):
            monkeypatch.setattr(nvml, name, refuse)
    reading = gpu.read()
    assert {key for key, value in reading.items() if value is not None} == {"gpu_name"}


@pytest.mark.parametrize(("visible", "opened"), [("", 0), ("1,0", 1), ("GPU-abc", "GPU-abc")])
def test_the_card_is_the_one_that_is_visible(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, visible: str, opened: object
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = FakeNVML(lambda: clock[0])
    monitor.Gpu(nvml)
    assert nvml.opened == opened


@pytest.mark.alone
def test_ram_agrees_with_the_system() -> None:
    reading = monitor.read_ram()
    assert reading["ram_total"] == psutil.virtual_memory().total
    resident = int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())])) * 1024
    assert reading["process_anon"] + reading["process_file"] == pytest.approx(resident, rel=0.1)


@pytest.mark.alone
def test_peak_memory_sees_a_passing_allocation() -> None:
    """In a process of its own: here, another test's model may be freed at the same moment."""
    code = """
from core.monitor import PeakMemory
peak = PeakMemory()
peak.look(force=True)
before = peak.anon
block = bytearray(64 * 2**20)
block[::4096] = b"x" * len(block[::4096])
peak.look(force=True)
del block
peak.look(force=True)
assert peak.anon - before > 60 * 2**20, (before, peak.anon)
assert peak.rss >= 0.9 * peak.anon, (peak.rss, peak.anon)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_the_monitor_sends_snapshots_until_stopped() -> None:
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    meters = monitor.Monitor(events.put, interval=0.01)
    meters.start()
    for _ in range(3):
        snapshot = events.get(timeout=5)
        assert isinstance(snapshot, Snapshot)
        assert snapshot.ram_total
    meters.stop()
    meters._thread.join(5)
    assert not meters._thread.is_alive()
