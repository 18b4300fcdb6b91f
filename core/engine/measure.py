"""How fast this machine carries and reads weights: short measurements at load, of what streaming does."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from core.engine.bind import Compute
from core.engine.placing import Machine
from core.model.cache import KVCache
from core.model.config import ModelConfig
from core.model.transformer import Transformer, Unit, Units, never
from core.weights.host import HostBlock, anonymous
from core.weights.lane import HostSource, Lane, Transfer
from core.weights.layouts import size_of
from core.weights.matrix import Matrix
from core.weights.needs import Needs
from core.weights.packed import PackedFile
from core.weights.plan import Budget, Rate, Rates
from core.weights.rates import load_rates, save_rates
from core.weights.staging import PIECE

_SECONDS = 0.08  # one try of a measurement may take
_TRIES = 3  # of which the best counts: what else goes on in a machine only makes it slower
_LINK_BYTES = 64 * 10**6
# Bytes of device memory from which on there is room for a measurement; a simulated one computes elsewhere.
_LEAST_VRAM, _LEAST_SIM_VRAM = 400 * 10**6, 100 * 10**6
_DISK_BYTES = 256 * 10**6
_POSITIONS = 64
# So small that only what a unit costs besides its bytes is left; and larger than any processor's cache.
_SMALL = ModelConfig(
    dim=128, n_layers=8, n_heads=4, n_kv_heads=4, head_dim=32, hidden_dim=256, vocab_size=128, norm_eps=1e-5
)
_LARGE = ModelConfig(
    dim=2048,
    n_layers=3,
    n_heads=16,
    n_kv_heads=4,
    head_dim=128,
    hidden_dim=5632,
    vocab_size=256,
    norm_eps=1e-5,
)


def rates_of(machine: Machine, budget: Budget, needs: Needs, compute: Compute, sim_link: float) -> Rates:
    """How fast this machine carries and reads weights, measured now; the disk by what it did before.

    Nothing is measured where all is computed on the CPU, since then there is nothing to choose; nor on a
    device with hardly any memory, which would not hold what is measured with.
    """
    known = load_rates(_device_name(budget.device), needs.product)
    if budget.simulated:
        known = replace(known, link=Rate(sim_link))
    if budget.vram is None or budget.vram < (_LEAST_SIM_VRAM if budget.simulated else _LEAST_VRAM):
        return known
    device = machine.lane.device
    small, large = (_Model(sizes, device, needs, compute) for sizes in (_SMALL, _LARGE))
    unit_s, token_s = small.seconds() / small.units, large.seconds()
    gpu = Rate(_rate(large, token_s, unit_s), "measured")
    cpu = gpu if budget.simulated else Rate(_cpu_rate(needs, compute), "measured")
    link = Rate(_link_rate(machine), "measured")
    # A simulated bus and its device share a memory; a real device has its own.
    shares = _shares(machine, large, token_s, link) if budget.simulated else (1.0, 1.0)
    rates = Rates(link, gpu, cpu, known.disk, unit_s, *shares)
    save_rates(_device_name(budget.device), needs.product, rates)
    if device.type == "cuda":  # what was taken to measure is no part of what the model takes
        del small, large
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return rates


def _rate(model: _Model, token_s: float, unit_s: float) -> float:
    """GB/s of weights that one row is multiplied with, what the units cost besides taken off."""
    return model.nbytes / max(token_s - model.units * unit_s, token_s / 2) / 1e9


def _cpu_rate(needs: Needs, compute: Compute) -> float:
    there = Compute(compute.host_kernels, compute.host_ops, compute.host_kernels, compute.host_ops)
    model = _Model(_LARGE, torch.device("cpu"), replace(needs, states="float32"), there)
    return _rate(model, model.seconds(), 0.0)


def with_disk_rate(rates: Rates, packed: PackedFile, budget: Budget, product: str) -> Rates:
    """`rates` with that of the disk measured: the packed file read where the system had let go of it."""
    rate = Rate(_disk_rate(packed), "measured")
    rates = replace(rates, disk=rate)
    save_rates(_device_name(budget.device), product, rates)
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


class _Model:
    """A model of a device, of which one token after another is run."""

    @torch.inference_mode()
    def __init__(self, sizes: ModelConfig, device: torch.device, needs: Needs, compute: Compute) -> None:
        with torch.device("meta"):
            model = Transformer(sizes)
        self.nbytes = 0
        model.ops = compute.ops
        dtype, kernels = getattr(torch, needs.dtype), compute.kernels
        for name, shape in sizes.shapes().items():
            parent, _, last = name.removesuffix(".weight").rpartition(".")
            owner = model.get_submodule(parent)
            if len(shape) == 1:
                getattr(owner, last).weight = nn.Parameter(torch.ones(shape, dtype=dtype, device=device))
            elif name != "tok_embeddings.weight":
                matrix = Matrix(*shape, needs.format)
                matrix.bind(_memory(size_of(needs.format, *shape), device), kernels)
                for piece in matrix.pieces.values():
                    piece.fill_(0.01 if piece.is_floating_point() else 1)
                setattr(owner, last, matrix)
                self.nbytes += size_of(needs.format, *shape)
        states = getattr(torch, needs.states)
        weight = torch.full((sizes.vocab_size, sizes.dim), 0.01, dtype=states, device=device)
        model.tok_embeddings.weight = nn.Parameter(weight)
        output = model.output
        model.tiles = Units([Unit("output.0", (output,), lambda x, step: output(x))])
        model.prepare(_POSITIONS, device)
        if compute.fast is not None:
            model.units = Units(compute.fast(model, states).of(model.units))
        self._model = model
        self._cache = KVCache(sizes, _POSITIONS, getattr(torch, needs.kv_type), device)
        self.units = 2 * sizes.n_layers + 1

    @torch.inference_mode()
    def once(self) -> None:
        """One token."""
        self._cache.tokens[:] = [0] * (_POSITIONS // 2)
        self._model(torch.tensor([1]), self._cache).sum().item()

    def seconds(self) -> float:
        """The time of a token, at best."""
        self.once()
        best = math.inf
        for _ in range(_TRIES):
            tokens, started = 0, time.perf_counter()
            while time.perf_counter() - started < _SECONDS:
                self.once()
                tokens += 1
            best = min(best, (time.perf_counter() - started) / tokens)
        return best


def _memory(nbytes: int, device: torch.device) -> Tensor:
    """Bytes as weights have them."""
    if device.type == "cpu":
        return anonymous(nbytes)[1]
    return torch.empty(nbytes, dtype=torch.uint8, device=device)


@contextmanager
def _road(machine: Machine) -> Iterator[Callable[[], Transfer]]:
    """A way to send one measure of bytes from pinned memory to the device, time and again."""
    lane: Lane = machine.lane
    block = HostBlock(_LINK_BYTES)
    block.tensor.zero_()
    if machine.registrar is not None:
        block.pin(machine.registrar)
    try:
        home = lane.empty(_LINK_BYTES)
        source = HostSource(block, 0, _LINK_BYTES)
        lane.wait(lane.send("measurement", source, home), never)
        yield lambda: lane.send("measurement", source, home)
    finally:
        lane.drain()
        block.close()
        machine.ledger.to_device = 0
        machine.ledger.copied = None


def _link_rate(machine: Machine) -> float:
    """GB/s of copies from pinned memory to the device."""
    with _road(machine) as send:
        return max(_copies(machine.lane, send) for _ in range(_TRIES))


def _copies(lane: Lane, send: Callable[[], Transfer]) -> float:
    copies, started = 0, time.perf_counter()
    while time.perf_counter() - started < _SECONDS or copies < 2:
        for transfer in [send() for _ in range(2)]:
            lane.wait(transfer, never)
        copies += 2
    return copies * _LINK_BYTES / (time.perf_counter() - started) / 1e9


def _shares(machine: Machine, model: _Model, alone: float, link: Rate) -> tuple[float, float]:
    """What link and kernels keep of their rates while both are busy; `alone` is a token's time without."""
    sent = 1 + int(_SECONDS * link.gb_s * 1e9 / _LINK_BYTES)
    link_rate, seconds = 0.0, math.inf
    with _road(machine) as send:
        for _ in range(_TRIES):
            last = [send() for _ in range(sent)][-1]
            tokens, started = 0, time.perf_counter()
            while last.moved < _LINK_BYTES:
                model.once()
                tokens += 1
            took = time.perf_counter() - started
            link_rate = max(link_rate, sent * _LINK_BYTES / took / 1e9)
            seconds = min(seconds, took / tokens)
    return _bounded(link_rate / link.gb_s), _bounded(alone / seconds)


def _bounded(share: float) -> float:
    return min(1.0, max(0.2, share))
