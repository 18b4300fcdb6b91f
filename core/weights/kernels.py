"""Ways to multiply with a matrix, and which of them computes: one for each format and number of rows.

T rows of x, N rows of the matrix (outputs), K columns (inputs).
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from core.native.library import Library, matrix_of
from core.native.library import Matrix as NativeMatrix
from core.weights.formats import multiply, values
from core.weights.layouts import FLOATS, FORMATS, ROWS
from core.weights.matrix import Matrix
from core.weights.needs import TILE_VALUES

ROW_CLASSES = (1, 8, 64)
"""One row as in decoding, a few, some tens, and more: the classes of which each has a kernel of its own."""
MOST_NATIVE_ROWS = 8  # of kernels that keep what they make of x in registers


def row_class(rows: int) -> int:
    """Which of the four classes a number of rows is in."""
    return sum(rows > bound for bound in ROW_CLASSES)


class Kernel(Protocol):
    """One way to multiply. `name` is shown."""

    name: str

    def takes(self, format: str, columns: int, rows: int) -> bool:
        """Whether it computes with a matrix of a format and K columns, and so many rows of x."""
        ...

    def product(self, matrix: Matrix, x: Tensor) -> Tensor:
        """x [T, K] times the transposed matrix: [T, N], in the type of x."""
        ...

    def release(self) -> None:
        """Give back memory that the next product takes anew."""
        ...


class _Plain:
    """A kernel without memory of its own."""

    def release(self) -> None:
        """See Kernel."""


class LinearKernel(_Plain):
    """Torch's own product in the matrix's own float type."""

    name = "linear"

    def takes(self, format: str, columns: int, rows: int) -> bool:
        """Floats."""
        return format in FLOATS

    def product(self, matrix: Matrix, x: Tensor) -> Tensor:
        """See Kernel."""
        weight = matrix.pieces["values"]
        return F.linear(x.to(weight.dtype), weight).to(x.dtype)


class VectorKernel(_Plain):
    """Torch's product of a matrix and a vector."""

    name = "mv"

    def takes(self, format: str, columns: int, rows: int) -> bool:
        """Floats, and one row."""
        return format in FLOATS and rows == 1

    def product(self, matrix: Matrix, x: Tensor) -> Tensor:
        """See Kernel."""
        weight = matrix.pieces["values"]
        return torch.mv(weight, x[0].to(weight.dtype)).to(x.dtype)[None]


class Int8PackKernel(_Plain):
    """Torch's product with 8-bit rows, made for bfloat16; scaled afterwards, in float32."""

    name = "int8pack"

    def takes(self, format: str, columns: int, rows: int) -> bool:
        """Rows in 8 bits with one scale; with other numbers of columns it reads past their end."""
        return format == "int8" and columns % 16 == 0 and hasattr(torch, "_weight_int8pack_mm")

    def product(self, matrix: Matrix, x: Tensor) -> Tensor:
        """See Kernel."""
        ones = torch.ones(matrix.rows, dtype=torch.bfloat16)
        out = torch._weight_int8pack_mm(x.to(torch.bfloat16), matrix.pieces["values"], ones)
        return (out * (matrix.pieces["scales"] / 127)).to(x.dtype)


class TileKernel:
    """Row tiles are made floats of another type, in one workspace, and multiplied by torch.

    So one stored copy in float16 serves the fast bfloat16 products of many rows, and any format at all.
    """

    def __init__(self, dtype: torch.dtype, formats: Sequence[str], library: Library | None) -> None:
        self.name = str(dtype).removeprefix("torch.")
        self._dtype, self._formats, self._library = dtype, formats, library
        self._workspace = torch.empty(0, dtype=dtype)

    def takes(self, format: str, columns: int, rows: int) -> bool:
        """What it was made for."""
        return format in self._formats

    def product(self, matrix: Matrix, x: Tensor) -> Tensor:
        """See Kernel."""
        some = x.to(self._dtype)
        step = max(ROWS, TILE_VALUES // matrix.columns // ROWS * ROWS)
        out = torch.empty(x.shape[0], matrix.rows, dtype=x.dtype)
        for start in range(0, matrix.rows, step):
            stop = min(start + step, matrix.rows)
            out[:, start:stop] = F.linear(some, self._floats(matrix, start, stop))
        return out

    def release(self) -> None:
        """See Kernel."""
        self._workspace = torch.empty(0, dtype=self._dtype)

    def _floats(self, matrix: Matrix, start: int, stop: int) -> Tensor:
        count = (stop - start) * matrix.columns
        if self._library is None:
            return values(
                matrix.format, matrix.pieces, matrix.rows, matrix.columns, start, stop, dtype=self._dtype
            )
        if self._workspace.numel() < count:
            self._workspace = torch.empty(max(count, TILE_VALUES), dtype=self._dtype)
        tile = self._workspace[:count].view(stop - start, matrix.columns)
        self._library.unpack(native_of(matrix)[0], start, stop, tile)
        return tile


class NativeKernel(_Plain):
    """Our own compiled kernels: weights are read once, as they lie."""

    name = "native"

    def __init__(self, library: Library, in_bfloat16: Collection[str] = ()) -> None:
        self._library = library
        self._many: set[str] = set()
        if "VNNI" in library.instructions:
            self._many |= {format for format in FORMATS if format not in (*FLOATS, "nf4")}
        if "BF16" in library.instructions:
            self._many |= {"float16", "bfloat16", "nf4"}.intersection(in_bfloat16)

    def takes(self, format: str, columns: int, rows: int) -> bool:
        """Everything for few rows. For any number what is multiplied as integers, and of the formats
        `in_bfloat16` what is multiplied as such."""
        return rows <= MOST_NATIVE_ROWS or format in self._many

    def product(self, matrix: Matrix, x: Tensor) -> Tensor:
        """See Kernel."""
        return self.products(native_of(matrix), x, matrix.rows)

    def products(self, matrices: ctypes.Array[NativeMatrix], x: Tensor, rows: int) -> Tensor:
        """Those of x with several matrices, side by side: `rows` outputs."""
        out = self._library.matmul(matrices, x, rows)
        assert out is not None, f"no compiled kernel for {x.shape[0]} rows"
        return out


class DeviceKernel(_Plain):
    """On a device: floats by torch, all others made floats tile by tile."""

    name = "torch"

    def takes(self, format: str, columns: int, rows: int) -> bool:
        """Everything."""
        return True

    def product(self, matrix: Matrix, x: Tensor) -> Tensor:
        """See Kernel."""
        if matrix.format in FLOATS:
            weight = matrix.pieces["values"]
            return F.linear(x.to(weight.dtype), weight).to(x.dtype)
        return multiply(matrix.format, matrix.pieces, matrix.rows, matrix.columns, x, TILE_VALUES)


_Group = tuple[NativeKernel, "ctypes.Array[NativeMatrix]", list[int]]
Table = Mapping[str, Sequence[Kernel]]
"""For each format a kernel for each class of rows."""


class Kernels:
    """The kernels in force for matrices in one kind of memory."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._groups: dict[tuple[tuple[Matrix, ...], int], _Group | None] = {}

    def names(self) -> dict[str, tuple[str, ...]]:
        """What computes, by format and class of rows."""
        return {format: tuple(kernel.name for kernel in kernels) for format, kernels in self.table.items()}

    def product(self, matrix: Matrix, x: Tensor) -> Tensor:
        """x [T, K] times the transposed matrix: [T, N], in the type of x."""
        return self.table[matrix.format][row_class(x.shape[0])].product(matrix, x)

    def together(self, matrices: tuple[Matrix, ...], x: Tensor) -> Sequence[Tensor]:
        """The products of x with several matrices of as many columns, in one call where that is possible:
        where our own kernel computes all of them.
        """
        key = (matrices, row_class(x.shape[0]))
        if key not in self._groups:
            self._groups[key] = self._group(*key)
        group = self._groups[key]
        if group is not None:
            kernel, array, rows = group
            return kernel.products(array, x, sum(rows)).split(rows, dim=-1)
        return [matrix(x) for matrix in matrices]

    def _group(self, matrices: tuple[Matrix, ...], rows: int) -> _Group | None:
        """What computes the matrices in one call; None where nothing does."""
        kernels = {self.table[matrix.format][rows] for matrix in matrices}
        kernel = kernels.pop()
        if kernels or not isinstance(kernel, NativeKernel):
            return None
        return kernel, array_of(matrices), [matrix.rows for matrix in matrices]

    def forget(self) -> None:
        """Matrices are about to be bound anew."""
        self._groups.clear()


def native_of(matrix: Matrix) -> ctypes.Array[NativeMatrix]:
    """The structure that compiled kernels are given, as an array of one."""
    if matrix.prepared is None:
        matrix.prepared = array_of((matrix,))
    return matrix.prepared


def array_of(matrices: Sequence[Matrix]) -> ctypes.Array[NativeMatrix]:
    """Such structures in a row."""
    return (NativeMatrix * len(matrices))(
        *(matrix_of(matrix.format, matrix.rows, matrix.columns, matrix.pieces) for matrix in matrices)
    )
