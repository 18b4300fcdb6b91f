"""The compiled kernels as Python calls: ctypes, which lets other Python threads run meanwhile.

The C side is matrix.cpp and ops.cpp; structures and signatures here repeat theirs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

FORMAT_NUMBERS = {
    "float32": 0, "float16": 1, "bfloat16": 2, "int8": 3, "q8_0": 4,
    "int4": 5, "int4-128": 6, "q4_1": 5, "q4_0": 7, "nf4": 8,
}  # fmt: skip
_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


class Matrix(ctypes.Structure):
    """`struct Matrix` of simd.h: one weight, laid out as `core.weights.layouts` says."""

    _fields_ = (
        ("format", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("values", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("minima", ctypes.c_void_p),
    )


def matrix_of(format: str, rows: int, columns: int, tensors: Mapping[str, Tensor]) -> Matrix:
    """The C side's view of a weight; its tensors ("values", and "scales", "minima" where the format has
    them) are contiguous, on the CPU, and must live as long as it."""

    def address(name: str) -> int | None:
        tensor = tensors.get(name)
        if tensor is not None and not (tensor.is_contiguous() and tensor.device.type == "cpu"):
            raise ValueError(f"{name} of a matrix in {format}: {tensor.stride()} on {tensor.device}")
        return None if tensor is None else tensor.data_ptr()

    number = FORMAT_NUMBERS[format]
    return Matrix(number, 0, rows, columns, address("values"), address("scales"), address("minima"))


class Library:
    """The compiled kernels of matrix.cpp. Its calls use the tensors only while they run.

    torch must have been loaded before: the library runs on its OpenMP. OSError where it cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        try:
            calls = ctypes.CDLL(str(path))
            self._matmul, self._unpack, name = calls.matmul, calls.unpack, calls.instructions
        except (OSError, AttributeError) as error:
            why = "torch has no OpenMP that fits the compiler's" if "GOMP" in str(error) else str(error)
            raise OSError(f"the compiled kernels cannot be loaded: {why}") from error
        size = ctypes.c_int64
        pointer = ctypes.c_void_p
        self._matmul.argtypes = (pointer, ctypes.c_int, pointer, size, size, pointer, size)
        self._matmul.restype = ctypes.c_int
        self._unpack.argtypes = (pointer, size, size, pointer, ctypes.c_int32)
        self._unpack.restype = ctypes.c_int
        name.restype = ctypes.c_char_p
        self.instructions: str = name().decode()
        """What they were compiled for: "plain", "AVX2", "AVX-512", "AVX-512 VNNI" or "AVX-512 VNNI BF16"."""

    def matmul(self, matrices: ctypes.Array[Matrix], x: Tensor, columns_out: int) -> Tensor | None:
        """x [M, K] times the transpose of each matrix [N, K]: float32 [M, columns_out], the outputs of the
        matrices side by side (`columns_out` is the sum of their N). x is float32, its rows contiguous.

        None where there is no kernel for more than 8 rows: they take VNNI, and floats of 16 bits and "nf4",
        then multiplied in bfloat16, take BF16; there is none for float32.
        """
        rows, columns = x.shape
        out = torch.empty(rows, columns_out)
        stride = x.stride(0) if rows > 1 else columns
        count = len(matrices)
        if self._matmul(matrices, count, x.data_ptr(), rows, stride, out.data_ptr(), columns_out):
            return None
        return out

    def unpack(self, matrix: Matrix, start: int, stop: int, out: Tensor) -> None:
        """Rows start..stop dequantised into `out` [stop - start, K], contiguous, of any float type.

        `start` is a multiple of 16 in formats of nibbles. ValueError for rows that there are not.
        """
        if self._unpack(ctypes.byref(matrix), start, stop, out.data_ptr(), _TYPES[out.dtype]):
            raise ValueError(f"rows {start} to {stop} of {matrix.rows} in format {matrix.format}")
