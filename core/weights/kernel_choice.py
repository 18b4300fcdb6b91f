"""The fastest correct kernel for each format and number of rows, by a short measurement at load."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from core.weights.formats import values
from core.weights.host import anonymous
from core.weights.kernel_cache import Size
from core.weights.kernels import Kernel, Table
from core.weights.layouts import FLOATS, pieces_of, size_of
from core.weights.matrix import Matrix

SMALLEST = 10**6
"""Weights; smaller matrices are not measured, since what they take is lost in what surrounds them."""

_ROWS = (1, 4, 32, 128)  # that stand for the four classes
_SECONDS = 0.04  # for one kernel with one number of rows
_HOPELESS = 4  # times as long as allowed: more than what a first run has to prepare
_POOL = 100 * 10**6  # bytes; beyond what processors cache, so that weights come from memory as in a pass
_LARGEST = 16 * 2**20  # weights of one matrix of the pool
_FASTER = 0.9  # of the time so far must a less preferred kernel take, so that noise does not choose
_WRONG = 0.02  # of the result's norm: twice what 8 bits of x cost
_CHECKED = 64  # rows of the matrix that are compared

Remember = Callable[[str, Size], tuple[str, ...] | None]
Keep = Callable[[str, Size, tuple[str, ...]], None]


def choose(
    sizes: Mapping[str, Sequence[Size]],
    candidates: Sequence[Kernel],
    known: Remember,
    keep: Keep,
    *,
    forced: str = "auto",
) -> Table:
    """A kernel for each format and class of rows; `sizes` are those of its matrices, largest first.

    `candidates` are in order of preference: the first that takes a format and so many rows computes where
    nothing is measured. `known` is asked for names that were chosen before, `keep` is given new ones. The
    kernel `forced` computes wherever it can.
    ValueError for a format that no candidate takes.
    """
    return {format: _chosen(format, some, candidates, known, keep, forced) for format, some in sizes.items()}


def _chosen(
    format: str,
    sizes: Sequence[Size],
    candidates: Sequence[Kernel],
    known: Remember,
    keep: Keep,
    forced: str,
) -> tuple[Kernel, ...]:
    widths = {columns for _, columns in sizes}
    able = [
        [kernel for kernel in candidates if all(kernel.takes(format, width, count) for width in widths)]
        for count in _ROWS
    ]
    able = [[kernel for kernel in kernels if kernel.name == forced] or kernels for kernels in able]
    if not all(able):
        raise ValueError(f"no kernel for {format}")
    rows, columns = sizes[0]
    names = known(format, (rows, columns))
    if rows * columns < SMALLEST or all(len(kernels) == 1 for kernels in able):
        preferred = tuple(kernels[0] for kernels in able)
        if names != tuple(kernel.name for kernel in preferred):  # kept to be shown
            keep(format, (rows, columns), tuple(kernel.name for kernel in preferred))
        return preferred
    if names is not None:
        found = [next((k for k in able[i] if k.name == name), None) for i, name in enumerate(names)]
        if None not in found:
            return tuple(kernel for kernel in found if kernel is not None)
    fastest = tuple(_measured(format, rows, columns, able))
    for kernel in candidates:
        kernel.release()
    _trim()
    keep(format, (rows, columns), tuple(kernel.name for kernel in fastest))
    return fastest


@torch.inference_mode()
def _measured(format: str, rows: int, columns: int, able: Sequence[Sequence[Kernel]]) -> Iterator[Kernel]:
    """The fastest for each class. What is wrong is not chosen, unless there is nothing else."""
    pool = _pool(format, min(rows, max(_CHECKED, _LARGEST // columns)), columns)
    for count, kernels in zip(_ROWS, able, strict=True):
        x = torch.randn(count, columns)
        expected = _expected(pool[0], x)
        best, least = kernels[0], math.inf
        for kernel in kernels if len(kernels) > 1 else ():
            seconds = _seconds(kernel, pool, x, expected, 2 * least)
            if seconds < (_FASTER if least < math.inf else 1) * least:
                best, least = kernel, seconds
        yield best


def _seconds(kernel: Kernel, pool: Sequence[Matrix], x: Tensor, expected: Tensor, most: float) -> float:
    """The time of a product at best; infinite where it is wrong. Few runs where it takes more than `most`."""
    started = time.perf_counter()
    out = kernel.product(pool[0], x)
    first = time.perf_counter() - started
    out = out[:, : expected.shape[1]]
    if not (out - expected).norm() <= _WRONG * expected.norm():
        return math.inf
    if first > max(_SECONDS, _HOPELESS * most):
        return first
    if first < _SECONDS:
        kernel.product(pool[-1], x)
    least, turn = math.inf, 0
    while least == math.inf or time.perf_counter() - started < _SECONDS:
        matrix = pool[turn % len(pool)]
        before = time.perf_counter()
        kernel.product(matrix, x)
        least, turn = min(least, time.perf_counter() - before), turn + 1
        if least > most:
            break
    return least


def _trim() -> None:
    """Have the C library give back what was freed: tens of megabytes, which the weights cannot use."""
    # Only glibc has it, and only glibc needs it.
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _expected(matrix: Matrix, x: Tensor) -> Tensor:
    """The first outputs, exactly."""
    stop = min(_CHECKED, matrix.rows)
    weight = values(matrix.format, matrix.pieces, matrix.rows, matrix.columns, 0, stop)
    return (x.double() @ weight.double().T).float()


def _pool(format: str, rows: int, columns: int) -> list[Matrix]:
    """Matrices of random weights, enough of them that none stays in a cache."""
    nbytes = -(-size_of(format, rows, columns) // 64) * 64
    count = max(2, _POOL // nbytes)
    _, memory = anonymous(count * nbytes)
    some = torch.randn(2**18) if format in FLOATS else torch.randint(-127, 128, (2**18,), dtype=torch.int8)
    made = []
    for i in range(count):
        matrix = Matrix(rows, columns, format)
        matrix.attach(memory[i * nbytes : (i + 1) * nbytes])
        made.append(matrix)
    for piece in pieces_of(format, rows, columns):
        tensor = made[0].pieces[piece.name].view(-1)
        if piece.name != "values":
            tensor.fill_(0.01)
            continue
        source = some.to(tensor.dtype) if format in FLOATS else some.view(tensor.dtype)
        for part in tensor.split(len(source)):
            part.copy_(source[: len(part)])
    memory.view(count, nbytes)[1:] = memory[:nbytes]
    return made
