"""Meters: RAM, VRAM and the bus, read from the system. No torch; what cannot be read is None."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.engine.backend import Sink
from core.engine.events import Activity, Snapshot

_STATUS = Path("/proc/self/status")


def process_memory() -> dict[str, int]:
    """Bytes by the names of proc(5), such as VmHWM and RssAnon; empty where there is no /proc."""
    try:
        text = _STATUS.read_text()
    except OSError:
        return {}
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


class PeakMemory:
    """The highest anonymous memory seen, by looking often while something large is going on."""

    def __init__(self) -> None:
        self.anon: int | None = None
        self._next = 0.0

    def look(self, *, force: bool = False) -> None:
        """Take a reading, at most 20 a second unless forced."""
        now = time.monotonic()
        if now < self._next and not force:
            return
        self._next = now + 0.05
        memory = process_memory()
        if "RssAnon" in memory:
            self.anon = max(self.anon or 0, memory["RssAnon"] + memory.get("RssShmem", 0))

    @property
    def rss(self) -> int | None:
        """The kernel's own peak of resident memory, mapped file pages included."""
        return process_memory().get("VmHWM")


class Gpu:
    """One NVIDIA card through NVML. Raises whatever NVML raises where there is none."""

    # NVML's numbers for the running byte counters of the bus; absent from older bindings.
    _COUNT_TX, _COUNT_RX = 197, 198

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        self._handle = self._open(os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip())
        self._last: tuple[float, int, int] | None = None
        name = nvml.nvmlDeviceGetName(self._handle)
        self.name: str = name.decode() if isinstance(name, bytes) else name

    def _open(self, visible: str) -> Any:
        if visible.startswith("GPU-"):
            return self._nvml.nvmlDeviceGetHandleByUUID(visible)
        return self._nvml.nvmlDeviceGetHandleByIndex(int(visible) if visible.isdigit() else 0)

    def read(self) -> dict[str, Any]:
        """The card's fields of a Snapshot."""
        memory = self._try("nvmlDeviceGetMemoryInfo")
        to_gpu, from_gpu = self._throughput()
        return {
            "gpu_name": self.name,
            "vram_total": None if memory is None else memory.total,
            "vram_used": None if memory is None else memory.used,
            "process_vram": self._process_vram(),
            "pcie_to_gpu": to_gpu,
            "pcie_from_gpu": from_gpu,
            "pcie_link": self._link(),
        }

    def _try(self, function: str, *arguments: Any) -> Any:
        """The answer, or None where this card or driver has none."""
        try:
            return getattr(self._nvml, function)(self._handle, *arguments)
        except (self._nvml.NVMLError, AttributeError):
            return None

    @property
    def capability(self) -> tuple[int, int] | None:
        """CUDA's compute capability."""
        version = self._try("nvmlDeviceGetCudaComputeCapability")
        return None if version is None else (int(version[0]), int(version[1]))

    def _process_vram(self) -> int | None:
        for process in self._try("nvmlDeviceGetComputeRunningProcesses") or ():
            if process.pid == os.getpid():
                return process.usedGpuMemory
        return None

    def _throughput(self) -> tuple[float | None, float | None]:
        """Bytes per second to and from the card: from counters if it has them, else a 20 ms sample."""
        counters = self._counters()
        if counters is not None:
            now, last = time.monotonic(), self._last
            self._last = (now, *counters)
            if last is None or now <= last[0]:
                return None, None
            return (counters[0] - last[1]) / (now - last[0]), (counters[1] - last[2]) / (now - last[0])
        # The card receives what goes to it: RX, in KB/s.
        received = self._try("nvmlDeviceGetPcieThroughput", 1)
        sent = self._try("nvmlDeviceGetPcieThroughput", 0)
        return (None if received is None else received * 1e3), (None if sent is None else sent * 1e3)

    def _counters(self) -> tuple[int, int] | None:
        """Bytes the card has received and sent since some start."""
        values = self._try("nvmlDeviceGetFieldValues", [self._COUNT_RX, self._COUNT_TX])
        if values is None or any(value.nvmlReturn != 0 for value in values):
            return None
        return values[0].value.ullVal, values[1].value.ullVal

    def _link(self) -> float | None:
        """The bus's limit one way, bytes per second: generation and width of the link as it is now."""
        generation = self._try("nvmlDeviceGetCurrPcieLinkGeneration")
        width = self._try("nvmlDeviceGetCurrPcieLinkWidth")
        lane = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}.get(generation or 0)
        return None if lane is None or not width else lane * width


def open_gpu() -> Gpu | None:
    """The first visible NVIDIA card, or None."""
    try:
        import pynvml

        return Gpu(pynvml)
    except Exception:  # no package, no driver, no card, no permission: all the same to a meter
        return None


def physical_cores() -> int:
    """Cores this process may use, two threads of one core counted once where psutil can tell."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        import psutil
    except ImportError:  # the engine needs no more than torch and a tokenizer
        return allowed
    return max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))


def read_ram() -> dict[str, Any]:
    """The machine's and this process's fields of a Snapshot."""
    import psutil

    machine, process = psutil.virtual_memory(), process_memory()
    anon = process["RssAnon"] + process.get("RssShmem", 0) if "RssAnon" in process else None
    return {
        "ram_total": machine.total,
        "ram_used": machine.total - machine.available,
        "process_anon": anon if process else psutil.Process().memory_info().rss,
        "process_file": process.get("RssFile"),
    }


class _Repeated:
    """Does something again and again on a thread of its own, at once for the first time."""

    def __init__(self, name: str, interval: float) -> None:
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End at the next time; does not wait."""
        self._stop.set()

    def _once(self) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        while True:
            self._once()
            if self._stop.wait(self._interval):
                return


class Monitor(_Repeated):
    """Sends a Snapshot to `sink` every `interval` seconds; NVML may block its thread.

    `engine` gives further fields: what the engine counts itself.
    """

    def __init__(
        self, sink: Sink, engine: Callable[[], dict[str, Any]] = dict, *, interval: float = 0.5
    ) -> None:
        super().__init__("monitor", interval)
        self._sink, self._engine = sink, engine
        self._gpu: Gpu | None = None
        self._opened = False

    def _once(self) -> None:
        if not self._opened:
            self._gpu, self._opened = open_gpu(), True
        card = self._gpu.read() if self._gpu else {}
        self._sink(Snapshot(**{**read_ram(), **card, **self._engine()}))


class Watcher(_Repeated):
    """Looks at what the engine does every `interval` seconds; `sink` is told when that is something else."""

    def __init__(self, sink: Sink, read: Callable[[], Activity], *, interval: float = 0.1) -> None:
        super().__init__("watcher", interval)
        self._sink, self._read = sink, read
        self._last: Activity | None = None

    def _once(self) -> None:
        activity = self._read()
        if activity != self._last:
            self._last = activity
            self._sink(activity)
