"""What computes on this machine: compiled kernels where they can be had, and the fastest of each kind."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import torch

from core.engine.bind import Compute
from core.engine.cpu_ops import NativeOps
from core.engine.events import Loading, Notice
from core.gpu.present import missing
from core.model.config import ModelConfig
from core.model.ops import Ops
from core.native.build import Build
from core.native.library import Library
from core.native.ops_calls import OpsCalls
from core.options import LoadOptions
from core.weights.bnb_kernel import MixedKernel, mixed_kernel
from core.weights.kernel_cache import (
    choice_key,
    forced_by,
    load_choice,
    machine_key,
    matrix_sizes,
    policy_of,
    save_choice,
)
from core.weights.kernel_choice import choose
from core.weights.kernels import (
    DeviceKernel,
    Int8PackKernel,
    Kernel,
    Kernels,
    LinearKernel,
    NativeKernel,
    TileKernel,
    VectorKernel,
)
from core.weights.layouts import FLOATS, FORMATS
from core.weights.needs import MIXED, Needs
from core.weights.survey import compiled_kernels

Emit = Callable[[Loading | Notice], None]


def compute_of(options: LoadOptions, config: ModelConfig, needs: Needs, emit: Emit) -> Compute:
    """The kernels for a model on `options.device`. Compiles and measures them where that is due."""
    native = _compiled(options, emit)
    library = None if native is None else native[0]
    machine, policy = machine_key(torch.get_num_threads()), policy_of(options)
    device = torch.device(options.device) if options.device.startswith("cuda") else torch.device("cpu")
    mixed = mixed_kernel(device) if options.quant == MIXED else None
    table = choose(
        matrix_sizes(config, needs),
        candidates(options, library) if mixed is None else [mixed, *candidates(options, library)],
        lambda format, size: load_choice(machine, choice_key(format, size, policy)),
        lambda format, size, names: save_choice(machine, choice_key(format, size, policy), names),
        forced=forced_by(options),
    )
    host = Kernels(table)
    ops = Ops() if native is None else NativeOps(native[1], host)
    if device.type == "cpu":
        return Compute(host, ops, host, ops)
    if mixed is not None:
        return _mixed_on_card(mixed, host, ops)
    return _on_card(device, host, ops, emit)


def _mixed_on_card(mixed: MixedKernel, host: Kernels, host_ops: Ops) -> Compute:
    """bitsandbytes for all that it takes, which is all that is quantised. Neither units of our own nor a
    graph: both would multiply by other kernels, or not wait for the outliers.
    """
    table: dict[str, Sequence[Kernel]] = dict.fromkeys(FORMATS, (DeviceKernel(),) * 4)
    return Compute(Kernels(table | {"int8": (mixed,) * 4}), Ops(), host, host_ops)


def _on_card(device: torch.device, host: Kernels, host_ops: Ops, emit: Emit) -> Compute:
    """Kernels of our own for few rows and torch's for many; torch's for all where Triton is missing."""
    many = DeviceKernel()
    reason = missing(torch.cuda.get_device_capability(device))
    if reason is not None:
        emit(Notice(f"torch's own kernels compute on the card, which are slower: {reason}"))
        return Compute(Kernels(dict.fromkeys(FORMATS, (many,) * 4)), Ops(), host, host_ops)
    from core.gpu.units import FastUnits, TritonKernel

    few = TritonKernel()
    kernels = Kernels(dict.fromkeys(FORMATS, (few, few, many, many)))
    return Compute(kernels, Ops(), host, host_ops, FastUnits)


def candidates(options: LoadOptions, library: Library | None) -> list[Kernel]:
    """What may compute on the CPU, in order of preference.

    Only with --dtype auto may floats of one 16-bit type be multiplied as the other.
    """
    packed = [format for format in FORMATS if format not in FLOATS]
    mixed = [*packed, "float16"] if options.dtype == "auto" else []
    own: list[Kernel] = [] if library is None else [NativeKernel(library, [*mixed, "bfloat16"])]
    return [
        *own,
        LinearKernel(),
        VectorKernel(),
        Int8PackKernel(),
        TileKernel(torch.bfloat16, mixed, library),
        TileKernel(torch.float32, [format for format in FORMATS if format != "float32"], library),
    ]


def _compiled(options: LoadOptions, emit: Emit) -> tuple[Library, OpsCalls] | None:
    """The compiled kernels; None where there are none, which is said where it costs speed."""
    build = Build()
    reason = build.error
    if compiled_kernels(options):
        if not build.path.exists():
            emit(Loading("compiling kernels for this processor, once"))
        path = build.wait()
        reason = build.error
        if path is not None:
            try:
                return Library(path), OpsCalls(ctypes.CDLL(str(path)))
            except OSError as error:
                reason = str(error)
    if options.kernels in ("auto", "native") and not options.device.startswith("cuda"):
        emit(Notice(f"torch's own kernels compute, which are slower: {reason}"))
    return None
