"""A weight matrix in any format: plain tensors where its bytes are, and the kernels that multiply with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from core.weights.formats import views

if TYPE_CHECKING:
    from core.weights.kernels import Kernels


class Matrix(nn.Module):
    """N rows (outputs) by K columns (inputs). Nothing can be computed before `bind`."""

    kernels: Kernels

    def __init__(self, rows: int, columns: int, format: str) -> None:
        super().__init__()
        self.rows, self.columns, self.format = rows, columns, format
        self.pieces: Mapping[str, Tensor] = {}
        self.prepared: Any = None
        """What a kernel made for these tensors, to be made once."""

    def attach(self, memory: Tensor) -> None:
        """Let the tensors be views of `memory`, uint8 [its bytes, or more]."""
        self.pieces, self.prepared = views(self.format, self.rows, self.columns, memory), None

    def bind(self, memory: Tensor, kernels: Kernels) -> None:
        """Attach `memory`, from which `kernels` can compute."""
        self.attach(memory)
        self.kernels = kernels

    def release(self) -> None:
        """Let go of the memory."""
        self.pieces, self.prepared = {}, None

    def forward(self, x: Tensor) -> Tensor:
        """x [T, K] times the transposed matrix: [T, N], in the type of x."""
        return self.kernels.product(self, x)
