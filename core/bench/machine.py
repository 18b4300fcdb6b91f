"""What a table was measured on, in words and numbers that belong beside it. No torch."""

from __future__ import annotations

import platform
import re
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from core import monitor


def describe_machine(command: str) -> dict[str, Any]:
    """Processor, memory, card, versions, the date, and the command; None for what cannot be read."""
    memory, card = monitor.read_ram(), _card()
    return {
        "cpu": _cpu(),
        "cores": monitor.physical_cores(),
        "ram_bytes": memory["ram_total"],
        **card,
        "torch": _version("torch"),
        "version": _version("llama-tui"),
        "date": date.today().isoformat(),
        "command": command,
    }


def _card() -> dict[str, Any]:
    """The first card: name, memory, driver."""
    gpu = monitor.open_gpu()
    if gpu is None:
        return {"gpu": None, "vram_bytes": None, "driver": None}
    import pynvml

    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
    except pynvml.NVMLError:
        driver = None
    name = driver.decode() if isinstance(driver, bytes) else driver
    return {"gpu": gpu.name, "vram_bytes": gpu.read()["vram_total"], "driver": name}


def _cpu() -> str | None:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return (found[1].strip() if found else platform.processor() or platform.machine()) or None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
