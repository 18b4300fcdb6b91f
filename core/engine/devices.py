"""What `--device` means on this machine, what carries bytes to it, and how fast that is."""

from __future__ import annotations

import torch

from core.engine.placing import Machine
from core.errors import UserError
from core.monitor import open_gpu
from core.options import LoadOptions
from core.weights.host import CudaRegistrar, LimitedRegistrar
from core.weights.lanes import CudaLane, DiskLane, SimulatedLane
from core.weights.ledger import Ledger
from core.weights.plan import Budget
from core.weights.survey import CUDA_CONTEXT, computing_threads, survey

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
    use_cores(beside_copies=name == "sim")
    return "sim" if name == "sim" else "cpu"


def use_cores(*, beside_copies: bool) -> None:
    """One computing thread a physical core: a second one would share its arithmetic units.

    A thread that copies memory or reads a disk all the time is left a core of its own: computing threads
    wait for each other at every step, so one that has to share its core holds up all.
    """
    torch.set_num_threads(computing_threads("sim" if beside_copies else "cpu"))


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
    context = CUDA_CONTEXT  # where it cannot be measured
    if before is not None and _LEAST_CONTEXT < total - free - before - ours < _MOST_CONTEXT:
        context = total - free - before - ours
    card = (torch.cuda.get_device_name(device), total, free + ours + context)
    return survey(options, card, context)
