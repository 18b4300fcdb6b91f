"""Products of a few rows with matrices on a CUDA card: what the kernels of `products` are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from core.gpu.products import nibbles_product, norm_row, rows_product, table_product
from core.weights.formats import NF4
from core.weights.layouts import FLOATS, GROUPS, NIBBLES, ROWS
from core.weights.matrix import Matrix

MOST_ROWS = 8
"""Rows of x that the kernels multiply with."""
_MOST_MATRICES = 3
# The bits of 1.0. As an argument it stays in a register; written in the kernel it would be loaded each time.
_ONE = 0x3F800000
_MANY = 512  # blocks, which keep a card busy
FUSED = {"enable_fp_fusion": True}
"""Of every launch: multiply and add in one instruction, which Triton from 3.10 on has to be asked for."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a kernel is cut: rows of a matrix for each program, columns at a time, and warps."""

    rows: int
    columns: int
    warps: int


def product(matrices: Sequence[Matrix], x: Tensor, residual: Tensor | None = None) -> Tensor:
    """x [M, K] times the transposed matrices, side by side: [M, N of all], in the type of x.

    At most three matrices of one format and K columns, and 8 rows. `residual` [1, N] is added to one row.
    """
    out = torch.empty(x.shape[0], sum(matrix.rows for matrix in matrices), dtype=x.dtype, device=x.device)
    _launch(matrices, x, out, residual, gate=False)
    return out


def gated(one: Matrix, other: Matrix, x: Tensor) -> Tensor:
    """silu(one x) * (other x) for one row of x [1, K]: [1, N], in the type of x."""
    if one.format == "nf4":
        left, right = product((one, other), x).split(one.rows, dim=-1)
        return F.silu(left) * right
    out = torch.empty(1, one.rows, dtype=x.dtype, device=x.device)
    _launch((one, other), x, out, None, gate=True)
    return out


def norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """x / rms(x) * gain for one row [1, K], in the type of x."""
    out, columns = torch.empty_like(x), x.shape[-1]
    norm_row[(1,)](x, gain, out, eps, K=columns, WIDE=_power_of_two(columns), num_warps=8, **FUSED)
    return out


def _launch(
    matrices: Sequence[Matrix], x: Tensor, out: Tensor, residual: Tensor | None, *, gate: bool
) -> None:
    first = matrices[0]
    rows, columns = x.shape
    if not (len(matrices) <= _MOST_MATRICES and rows <= MOST_ROWS and columns == first.columns):
        raise ValueError(f"{len(matrices)} matrices of {first.columns} columns for {tuple(x.shape)}")
    if any((other.format, other.columns) != (first.format, columns) for other in matrices):
        raise ValueError("matrices of one launch differ in format or width")
    x = x.contiguous()
    counts = [first.rows, 0, 0] if gate else [*(matrix.rows for matrix in matrices), 0, 0][:3]
    given = (x, x if residual is None else residual, out)
    values, scales = _parts(matrices, "values"), _parts(matrices, "scales")
    flags = {"M": rows, "K": columns, "RESIDUAL": residual is not None, **FUSED}
    if first.format not in NIBBLES:
        scales = scales or values
        shape = row_shape(first.format, rows, columns)
        rows_product[(sum(-(-count // shape.rows) for count in counts),)](
            *given, values[0], scales[0], *_distances(values), *_distances(scales), *counts,
            GROUP=GROUPS.get(first.format, 0), ROW_SCALE=first.format == "int8", GATE=gate,
            BN=shape.rows, BK=shape.columns, BM=_power_of_two(rows), num_warps=shape.warps, **flags,
        )  # fmt: skip
        return
    blocks = sum(-(-count // ROWS) for count in counts)
    shape = nibble_shape(first.format, rows, columns, blocks)
    words = [tensor.view(torch.int32) for tensor in values]
    flags["GROUP"] = GROUPS[first.format]
    if first.format == "nf4":
        table_product[(blocks,)](
            *given, words[0], scales[0], _table(x.device), *_distances(words), *_distances(scales), *counts,
            OCTETS=shape.columns // 8, num_warps=shape.warps, **flags,
        )  # fmt: skip
        return
    minima = _parts(matrices, "minima") or scales
    nibbles_product[(blocks,)](
        *given, words[0], scales[0], minima[0],
        *_distances(words), *_distances(scales), *_distances(minima), *counts, _ONE,
        MINIMA="minima" in first.pieces, GATE=gate,
        QUADS=shape.columns // 32, BM=_power_of_two(rows), num_warps=shape.warps, **flags,
    )  # fmt: skip


def _parts(matrices: Sequence[Matrix], name: str) -> list[Tensor]:
    return [matrix.pieces[name] for matrix in matrices if name in matrix.pieces]


def _distances(tensors: Sequence[Tensor]) -> tuple[int, int]:
    """From the first tensor to the second and the third, in elements; or 0."""
    start, item = tensors[0].data_ptr(), tensors[0].element_size()
    steps = [(tensor.data_ptr() - start) // item for tensor in tensors[1:]]
    second, third = [*steps, 0, 0][:2]
    return second, third


def _power_of_two(number: int) -> int:
    """The least that is not smaller."""
    return 1 << (number - 1).bit_length()


def row_shape(format: str, rows: int, columns: int) -> Shape:
    """For rows that lie behind each other; measured on an H100."""
    wide = max(32, _power_of_two(columns))
    if rows > 1:
        return Shape(4, min(wide, 128), 4)
    return Shape(2, min(wide, 1024), 4) if format in FLOATS else Shape(1, min(wide, 1024), 4)


def nibble_shape(format: str, rows: int, columns: int, blocks: int) -> Shape:
    """For blocks of 16 rows; measured on an H100. Where there are few of them, each gets more threads."""
    quads = _power_of_two(columns // 32)
    if format == "nf4":
        return Shape(ROWS, 32 * min(quads, 16), 4)
    if rows > 1:
        return Shape(ROWS, 32 * min(quads, 8), 4)
    return Shape(ROWS, 32 * min(quads, 64), 4) if blocks > _MANY else Shape(ROWS, 32 * min(quads, 128), 8)


@cache
def _table(device: torch.device) -> Tensor:
    """What codes of "nf4" stand for, float32 [16]."""
    return torch.tensor(NF4, device=device)


def takes(format: str, columns: int) -> bool:
    """Whether a kernel computes with matrices of this format and so many columns."""
    return columns % (32 if format in NIBBLES else 1) == 0 and (
        format in FLOATS or format in (*GROUPS, "int8")
    )
