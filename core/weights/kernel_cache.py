"""Which kernels were found fastest on this machine, kept in the user's cache. No torch.

A file kernels.json: by processor, threads and torch's version, for each format and size the names for the
four classes of rows (see `core.weights.kernels`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata

from core.cache_folder import read_table, write_table
from core.model.config import ModelConfig
from core.native.build import Build, processor_name
from core.options import LoadOptions
from core.weights.needs import MIXED, Needs

FILE_NAME = "kernels.json"
MIXED_KERNEL = "bitsandbytes"
"""What multiplies with --quant int8-mixed, whatever --kernels says."""
CLASSES = ("1 row", "2-8", "9-64", "more")
"""The classes of rows, in words."""
Size = tuple[int, int]
"""Rows and columns."""
KnownKernels = Mapping[str, Sequence[str] | None]
"""By format the names of the kernels for each class, where they are known."""
_ENDS = ("1", "2", "9", "65"), ("1", "8", "64", "")


def machine_key(threads: int) -> str:
    """What the fastest kernel depends on besides the matrix: processor, threads, and versions."""
    build = Build()
    native = "none" if build.error is not None else build.path.stem[:12]
    return f"{processor_name()} x{threads} torch {metadata.version('torch')} native {native}"


def matrix_sizes(config: ModelConfig, needs: Needs) -> dict[str, tuple[Size, ...]]:
    """Rows and columns of the matrices that are multiplied with, by format, the largest first."""
    shapes = {name.split(".")[-2]: shape for name, shape in config.shapes().items()}
    found: dict[str, set[Size]] = {}
    for weight in (weight for unit in needs.units for weight in unit.weights):
        shape: tuple[int, ...] = (needs.tile_rows[1], config.dim)
        if weight.name.startswith("layers."):
            shape = shapes[weight.name.rpartition(".")[2]]
        rows, columns = shape
        found.setdefault(weight.format, set()).add((rows, columns))
    return {
        format: tuple(sorted(sizes, key=lambda size: (-size[0] * size[1], size)))
        for format, sizes in found.items()
    }


def forced_by(options: LoadOptions) -> str:
    """The kernel that computes wherever it can; "auto" where the fastest does."""
    return MIXED_KERNEL if options.quant == MIXED else options.kernels


def policy_of(options: LoadOptions) -> str:
    """What of the options decides which kernels may compute."""
    return f"{forced_by(options)} {'mixed' if options.dtype == 'auto' else 'one type'}"


def choice_key(format: str, size: Size, policy: str) -> str:
    """Under which a choice is kept."""
    return f"{format} {size[0]}x{size[1]} {policy}"


def load_choice(machine: str, key: str) -> tuple[str, ...] | None:
    """The names for a format and size, or None where nothing was measured."""
    entry = read_table(FILE_NAME).get(machine)
    names = entry.get(key) if isinstance(entry, dict) else None
    if isinstance(names, list) and len(names) == len(CLASSES) and all(isinstance(n, str) for n in names):
        return tuple(names)
    return None


def known_kernels(config: ModelConfig, needs: Needs, options: LoadOptions, threads: int) -> KnownKernels:
    """What multiplies on the CPU, by format; None where it is measured at the next load."""
    sizes = matrix_sizes(config, needs)
    if options.quant == MIXED:  # all matrices are in the one format that it takes
        return dict.fromkeys(sizes, (MIXED_KERNEL,) * len(CLASSES))
    machine, policy = machine_key(threads), policy_of(options)
    return {
        format: load_choice(machine, choice_key(format, some[0], policy)) for format, some in sizes.items()
    }


def save_choice(machine: str, key: str, names: tuple[str, ...]) -> None:
    """Keep the names. Where the cache cannot be written, nothing is kept."""
    table = read_table(FILE_NAME)
    entry = table.get(machine)
    table[machine] = {**(entry if isinstance(entry, dict) else {}), key: list(names)}
    write_table(FILE_NAME, table)


def kernel_words(names: Sequence[str]) -> str:
    """Who computes which numbers of rows: "native for 1-8 rows, bfloat16 for more"."""
    runs: list[list[int]] = []
    for i, name in enumerate(names):
        if runs and names[runs[-1][0]] == name:
            runs[-1].append(i)
        else:
            runs.append([i])
    if len(runs) == 1:
        return names[0]
    return ", ".join(f"{names[run[0]]} for {_span(run[0], run[-1])}" for run in runs)


def _span(first: int, last: int) -> str:
    if last == len(CLASSES) - 1:
        return "more"
    low, high = _ENDS[0][first], _ENDS[1][last]
    return "1 row" if high == "1" else f"{low}-{high} rows"
