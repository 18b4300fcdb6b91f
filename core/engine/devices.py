"""What `--device` means on this machine, what carries bytes to it, and how fast that is."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from core.engine.placing import Machine
from core.errors import UserError
from core.monitor import open_gpu, physical_cores
from core.options import LoadOptions
from core.weights.host import CudaRegistrar, HostBlock, LimitedRegistrar
from core.weights.lane import HostSource, Lane
from core.weights.lanes import CudaLane, DiskLane, SimulatedLane
from core.weights.ledger import Ledger
from core.weights.packed import PackedFile
from core.weights.plan import Budget, Rate, Rates
from core.weights.rates import load_rates, save_rates
from core.weights.staging import PIECE
from core.weights.survey import survey

_MATRIX = (4096, 4096)  # of a measurement: as large as one of 7B, since small ones are faster or slower
_MATRICES = 6  # together larger than any cache
_SECONDS = 0.15  # a measurement may take
_LINK_BYTES = 64 * 10**6
_DISK_BYTES = 256 * 10**6
_CUDA_CONTEXT = 500 * 10**6  # where it cannot be measured
_LEAST_CONTEXT, _MOST_CONTEXT = 100 * 10**6, 2 * 10**9


def choose_device(name: str) -> str:
    """The device that `--device` means here: "cpu", "sim" or "cuda:N". UserError where there is none such."""
    kind, _, index = name.partition(":")
    if kind == "cuda":
        if not torch.cuda.is_available():
            raise UserError(f"--device {name}: no CUDA device is usable here; use --device cpu")
        if index and int(index) >= torch.cuda.device_count():
            raise UserError(
                f"--device {name}: only {torch.cuda.device_count()} CUDA device(s); use --device cuda:0"
            )
        return f"cuda:{int(index or 0)}"
    if name == "auto" and torch.cuda.is_available():
        return "cuda:0"
    # One thread a physical core: a second one would share its arithmetic units. The simulated device leaves
    # a core to its bus: threads that share one wait for each other at every step.
    cores = physical_cores()
    torch.set_num_threads(max(1, cores - 1) if name == "sim" else cores)
    return "sim" if name == "sim" else "cpu"


def machine_of(options: LoadOptions) -> Machine:
    """What carries weights to `options.device`, which `choose_device` has settled."""
    ledger = Ledger()
    if options.device == "sim":
        ledger.simulated, ledger.card = True, options.sim_vram
        lane = SimulatedLane(ledger, options.sim_vram, options.sim_link)
        return Machine(lane, ledger, LimitedRegistrar())
    if options.device == "cpu":
        return Machine(DiskLane(ledger), ledger, None)
    device = torch.device(options.device)
    return Machine(CudaLane(ledger, device), ledger, CudaRegistrar(device))


def peak_vram(machine: Machine) -> int | None:
    """The most device memory that was taken, in bytes, the driver's context not counted."""
    lane = machine.lane
    if isinstance(lane, SimulatedLane):
        return lane.peak
    return torch.cuda.max_memory_reserved(lane.device) if lane.device.type == "cuda" else None


def budget_of(options: LoadOptions) -> Budget:
    """What there is of memory; on CUDA with the driver's share measured, which starts CUDA here.

    That share is what the card lost meanwhile, the workspace of a first matrix product included. Others may
    take memory at the same moment, so a figure beyond belief is not believed.
    """
    if not options.device.startswith("cuda"):
        return survey(options)
    device, gpu = torch.device(options.device), open_gpu()
    before = gpu.read()["vram_used"] if gpu else None
    once = torch.ones(256, 256, dtype=torch.float16, device=device)
    (once @ once).sum().item()
    ours = torch.cuda.memory_reserved(device)
    free, total = torch.cuda.mem_get_info(device)
    context = _CUDA_CONTEXT
    if before is not None and _LEAST_CONTEXT < total - free - before - ours < _MOST_CONTEXT:
        context = total - free - before - ours
    card = (torch.cuda.get_device_name(device), total, free + ours + context)
    return survey(options, card, context)


def rates_of(machine: Machine, budget: Budget, dtype: str) -> Rates:
    """How fast this machine carries and reads weights, measured now; the disk by what it did before.

    Nothing is measured where all is computed on the CPU, since then there is nothing to choose.
    """
    known, kind = load_rates(_device_name(budget.device), dtype), getattr(torch, dtype)
    if budget.vram is None:
        return known
    gpu = Rate(_compute_rate(machine.lane.device, kind), "measured")
    cpu = gpu if budget.simulated else Rate(_compute_rate(torch.device("cpu"), kind), "measured")
    link = Rate(_link_rate(machine), "measured")
    rates = replace(known, link=link, gpu=gpu, cpu=cpu)
    save_rates(_device_name(budget.device), dtype, rates)
    return rates


def with_disk_rate(rates: Rates, packed: PackedFile, budget: Budget, dtype: str) -> Rates:
    """`rates` with that of the disk measured: the packed file read where the system had let go of it."""
    rate = Rate(_disk_rate(packed), "measured")
    rates = replace(rates, disk=rate)
    save_rates(_device_name(budget.device), dtype, rates)
    return rates


def _disk_rate(packed: PackedFile) -> float:
    """GB/s of reads in the size that streaming makes them."""
    descriptor, buffer, done = packed.file.descriptor, bytearray(PIECE), 0
    length = min(_DISK_BYTES, packed.nbytes) // PIECE * PIECE or packed.nbytes
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, length, os.POSIX_FADV_DONTNEED)
    started = time.perf_counter()
    while done < length:
        packed.file.read_into(memoryview(buffer)[: length - done], done)
        done += min(PIECE, length - done)
    return done / (time.perf_counter() - started) / 1e9


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _compute_rate(device: torch.device, dtype: torch.dtype) -> float:
    """GB/s of weights that one row is multiplied with, from memory and not from a cache."""
    weights = [torch.zeros(_MATRIX, dtype=dtype, device=device) for _ in range(_MATRICES)]
    x = torch.zeros(1, _MATRIX[1], dtype=dtype, device=device)

    def once() -> Tensor:
        out = x
        for weight in weights:
            out = F.linear(out, weight)
        return out

    once().sum().item()
    passes, started = 0, time.perf_counter()
    while time.perf_counter() - started < _SECONDS or passes < 2:
        once().sum().item()
        passes += 1
    return passes * sum(w.nbytes for w in weights) / (time.perf_counter() - started) / 1e9


def _link_rate(machine: Machine) -> float:
    """GB/s of copies from pinned memory to the device."""
    lane: Lane = machine.lane
    block = HostBlock(_LINK_BYTES)
    block.tensor.zero_()
    if machine.registrar is not None:
        block.pin(machine.registrar)
    try:
        home = lane.empty(_LINK_BYTES)
        source = HostSource(block, 0, _LINK_BYTES)
        lane.wait(lane.send("measurement", source, home), lambda: False)
        copies, started = 0, time.perf_counter()
        while time.perf_counter() - started < _SECONDS or copies < 2:
            transfers = [lane.send("measurement", source, home) for _ in range(2)]
            for transfer in transfers:
                lane.wait(transfer, lambda: False)
            copies += 2
        rate = copies * _LINK_BYTES / (time.perf_counter() - started) / 1e9
    finally:
        lane.drain()
        block.close()
        machine.ledger.to_device = 0
        machine.ledger.copied = None
    return rate
