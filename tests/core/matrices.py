"""Matrices of random bytes for tests, in any format, and what they stand for."""

from __future__ import annotations

import torch
from torch import Tensor

from core.weights.formats import values, views
from core.weights.layouts import FLOATS, size_of
from core.weights.matrix import Matrix


def random_memory(format: str, rows: int, columns: int, seed: int = 0) -> Tensor:
    """The bytes of a matrix: every code there is, and finite scales of both signs."""
    generator = torch.Generator().manual_seed(seed)
    memory = torch.randint(256, (size_of(format, rows, columns),), dtype=torch.uint8, generator=generator)
    for name, piece in views(format, rows, columns, memory).items():
        if name != "values" or format in FLOATS:
            piece.copy_(torch.randn(piece.shape, generator=generator) * 0.05)
    return memory


def matrix_in(format: str, rows: int, columns: int, memory: Tensor) -> Matrix:
    """A matrix that lies in `memory`."""
    matrix = Matrix(rows, columns, format)
    matrix.attach(memory)
    return matrix


def random_matrix(format: str, rows: int, columns: int, seed: int = 0) -> Matrix:
    """A matrix of random bytes."""
    return matrix_in(format, rows, columns, random_memory(format, rows, columns, seed))


def all_values(matrix: Matrix) -> Tensor:
    """Float64 [N, K]."""
    return values(matrix.format, matrix.pieces, matrix.rows, matrix.columns, 0, matrix.rows).double()
