"""How fast this machine carries and reads weights: short measurements at load, of what streaming does."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from core.engine.placing import Machine
from core.model.cache import KVCache
from core.model.config import ModelConfig
from core.model.transformer import Transformer
from core.weights.host import HostBlock
from core.weights.lane import HostSource, Lane
from core.weights.packed import PackedFile
from core.weights.plan import Budget, Rate, Rates
from core.weights.rates import load_rates, save_rates
from core.weights.staging import PIECE

_MATRIX = (4096, 4096)  # of a measurement: as large as one of 7B, since small ones are faster or slower
_MATRICES = 6  # together larger than any cache
_SECONDS = 0.15  # a measurement may take
_LINK_BYTES = 64 * 10**6
_LEAST_VRAM = 400 * 10**6  # bytes of device memory from which on there is room for a measurement
_DISK_BYTES = 256 * 10**6
# So small that only what a unit costs besides its bytes is left.
_SMALL = ModelConfig(
    dim=128, n_layers=8, n_heads=4, n_kv_heads=4, head_dim=32, hidden_dim=256, vocab_size=128, norm_eps=1e-5
)


def rates_of(machine: Machine, budget: Budget, dtype: str, kv_type: str) -> Rates:
    """How fast this machine carries and reads weights, measured now; the disk by what it did before.

    Nothing is measured where all is computed on the CPU, since then there is nothing to choose; nor on a
    device with hardly any memory, which would not hold what is measured with.
    """
    known, kind = load_rates(_device_name(budget.device), dtype), getattr(torch, dtype)
    if budget.vram is None or budget.vram < _LEAST_VRAM:
        return known
    device = machine.lane.device
    gpu = Rate(_compute_rate(device, kind), "measured")
    cpu = gpu if budget.simulated else Rate(_compute_rate(torch.device("cpu"), kind), "measured")
    link = Rate(_link_rate(machine), "measured")
    rates = Rates(link, gpu, cpu, known.disk, _unit_seconds(device, kind, getattr(torch, kv_type)))
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


@torch.inference_mode()
def _unit_seconds(device: torch.device, dtype: torch.dtype, kv_type: torch.dtype) -> float:
    """What a unit costs besides its bytes, in seconds: a model of next to no bytes, token by token."""
    model = Transformer(_SMALL).to(device, dtype).requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    model.prepare(64, device)
    cache = KVCache(_SMALL, 64, kv_type, device)

    def once() -> None:
        model(torch.tensor([1]), cache).sum().item()
        cache.commit([1])

    for _ in range(4):
        once()
    started = time.perf_counter()
    for _ in range(16):
        once()
    return (time.perf_counter() - started) / 16 / (2 * _SMALL.n_layers + 1)


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
