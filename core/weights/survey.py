"""What the machine and the user's flags give: device, memory of both sides, and rates. No torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from core import monitor
from core.errors import UserError
from core.gpu.present import is_installed
from core.gpu.room import decoding_bytes
from core.model.config import ModelConfig
from core.native.build import Build, processor_features
from core.options import LoadOptions
from core.sizes import format_size
from core.weights.layouts import BLOCK_FORMATS, FLOATS
from core.weights.needs import Needs, format_of, needs_of
from core.weights.plan import Budget, Choice, Rate, Rates
from core.weights.rates import load_rates
from core.weights.rows import core_flops, max_rows

DEFAULT_CONTEXT = 4096

CUDA_CONTEXT = 500_000_000  # bytes; the driver's share, until it can be measured
_CUDA_RESERVE = 100_000_000  # what its allocator loses between blocks
_SHARE_LEFT = 20  # the system keeps this part of the machine's memory


Card = tuple[str, int, int]
"""A card's name, its memory, and how much of that is free."""


def survey(options: LoadOptions, card: Card | None = None, context: int = CUDA_CONTEXT) -> Budget:
    """The device that `options` mean here, and what there is of memory.

    `card` is what the caller knows of a CUDA card better than its driver's library tells, `context` what
    the driver takes for itself. Raises UserError for a device that is not there, for more than the card
    has, and for flags of placement where there is nothing to stream to.
    """
    device = device_of(options.device)
    ram = free_ram() if options.ram is None else options.ram
    if device == "cpu":
        refuse_without_device(options)
        return Budget("cpu", None, ram)
    if device == "sim":
        total, free, context, reserve = options.sim_vram, options.sim_vram, 0, 0
    else:
        _, total, free = card or _card(device)
        reserve = _CUDA_RESERVE
    if options.vram is not None and options.vram > total:
        name = "the simulated card (--sim-vram)" if device == "sim" else "the card"
        raise UserError(
            f"--vram {format_size(options.vram)}: {name} has {format_size(total)}; give that or less"
        )
    vram = free if options.vram is None else options.vram
    return Budget(device, vram, ram, context=context, reserve=reserve, card=total)


def refuse_without_device(options: LoadOptions) -> None:
    """Raise UserError where `options` place weights on a device, which the CPU is not."""
    asked = {
        "--offload-exclusion": options.keep is not None,
        "--offload": options.offload,
        "--cpu-layers": bool(options.cpu_layers),
        "--vram": options.vram is not None,
    }
    for flag, given in asked.items():
        if given:
            raise UserError(
                f"{flag} needs a device to stream to, and this is the CPU; leave it out, "
                "or try --device sim, which simulates one"
            )


def choice_of(options: LoadOptions) -> Choice:
    """What the user pinned where."""
    return Choice(options.offload, options.keep, options.cpu_layers)


def device_of(name: str) -> str:
    """What `--device` means here: "cpu", "sim" or "cuda:N". Whether N exists is not looked at."""
    if name == "auto":
        return "cuda:0" if _computes_on_cuda() and monitor.open_gpu() is not None else "cpu"
    return "cuda:0" if name == "cuda" else name


def needs_asked(
    config: ModelConfig,
    stored: str,
    options: LoadOptions,
    device: str,
    blocks: Mapping[str, str] | None = None,
) -> Needs:
    """What a model needs as `options` want it; `stored` is the float type of its files.

    `blocks` are the matrices that a GGUF file has quantised (Meta's name: ggml's type). They stay as they
    are where a kernel reads them at speed, unless a type is asked for. Raises UserError for a context beyond
    the model's limit.
    """
    dtype = options.dtype
    if dtype == "auto":
        known = stored if stored in FLOATS else "float16"
        dtype = "float16" if known == "float32" and device.startswith("cuda") else known
    context = min(config.max_context, DEFAULT_CONTEXT) if options.context is None else options.context
    if context > config.max_context:
        raise UserError(f"--context {context}: this model's limit is {config.max_context}; give at most that")
    if device.startswith("cuda"):
        kv_type = "int8" if options.kv == "int8" else dtype
        kept = _kept(blocks) if options.dtype == "auto" and is_installed() else {}
        return needs_of(
            config, dtype, context, max_rows(config, device),
            kv_type=kv_type, quant=options.quant, kept=kept, beside=decoding_bytes(config),
        )  # fmt: skip
    native = compiled_kernels(options)
    # Torch's fused attention is several times slower on the CPU in float16 than in float32.
    kv_type = "float32" if dtype == "float16" and not native else dtype
    kv_type = "int8" if options.kv == "int8" else kv_type
    kept = _kept(blocks) if native and options.dtype == "auto" else {}
    format = format_of(options.quant) if options.quant != "none" else next(iter(kept.values()), dtype)
    flops = core_flops(format, processor_features(), compiled=native, mixed=options.dtype == "auto")
    rows = max_rows(config, device, computing_threads(device) * flops)
    return needs_of(
        config, dtype, context, rows,
        kv_type=kv_type, states="float32", quant=options.quant, kept=kept,
    )  # fmt: skip


def _kept(blocks: Mapping[str, str] | None) -> dict[str, str]:
    """The matrices that stay in the format that a GGUF file has them in."""
    return {name: BLOCK_FORMATS[kind] for name, kind in (blocks or {}).items() if kind in BLOCK_FORMATS}


def computing_threads(device: str) -> int:
    """Threads that compute on "cpu" or "sim": one a physical core, one less beside a simulated link."""
    cores = monitor.physical_cores()
    return max(1, cores - 1) if device == "sim" else cores


def compiled_kernels(options: LoadOptions) -> bool:
    """Whether kernels of our own compute on the CPU: they are compiled, or can be, and are not declined."""
    return options.kernels in ("auto", "native") and Build().error is None


def known_rates(budget: Budget, product: str, options: LoadOptions) -> Rates:
    """The rates of the device without measuring: cached or assumed; a simulated link is as fast as told."""
    name = budget.device if not budget.device.startswith("cuda") else _card(budget.device)[0]
    rates = load_rates(name, product)
    return replace(rates, link=Rate(options.sim_link)) if budget.simulated else rates


def free_ram() -> int:
    """Memory of the machine that can be taken, less a part for the system. Bytes.

    Raises UserError where nobody knows.
    """
    try:
        import psutil
    except ModuleNotFoundError:
        total, available = _meminfo()
    else:
        memory = psutil.virtual_memory()
        total, available = memory.total, memory.available
    return max(0, available - total // _SHARE_LEFT)


def _meminfo() -> tuple[int, int]:
    try:
        text = Path("/proc/meminfo").read_text()
    except OSError:
        text = ""
    found = {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    if "MemTotal" not in found or "MemAvailable" not in found:
        raise UserError("how much memory is free cannot be read here; give --ram SIZE")
    return found["MemTotal"], found["MemAvailable"]


def _computes_on_cuda() -> bool:
    """False where torch is installed without CUDA, whatever cards there are."""
    try:
        return not metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return False


def _card(device: str) -> Card:
    """Name of a card, its memory, and how much of that is free. Raises UserError where it cannot be read."""
    index = int(device.partition(":")[2] or 0)
    gpu = monitor.open_gpu()
    if gpu is None:
        raise UserError(
            f"--device {device}: no NVIDIA card can be seen here; use --device cpu or --device sim"
        )
    if index == 0:
        seen = gpu.read()
        name, total, used = gpu.name, seen["vram_total"], seen["vram_used"]
    else:
        name, total, used = _nth_card(index)
    if total is None or used is None:
        raise UserError(f"--device {device}: the memory of {name} cannot be read; use --device cpu")
    return name, total, total - used


def _nth_card(index: int) -> Card:
    """Name, memory and used memory of a later one of the visible cards."""
    import pynvml

    nvml: Any = pynvml
    listed = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    word = str(index) if not listed else listed[index] if index < len(listed) else ""
    try:
        if word.startswith("GPU-"):
            handle = nvml.nvmlDeviceGetHandleByUUID(word)
        else:
            handle = nvml.nvmlDeviceGetHandleByIndex(int(word))
        memory, name = nvml.nvmlDeviceGetMemoryInfo(handle), nvml.nvmlDeviceGetName(handle)
    except (nvml.NVMLError, ValueError):
        raise UserError(f"--device cuda:{index}: there is no such card here; use --device cuda:0") from None
    return (name.decode() if isinstance(name, bytes) else name), memory.total, memory.used
