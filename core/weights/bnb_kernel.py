"""bitsandbytes' product of LLM.int8(), kept to compare our own kernels with: a mixed decomposition.

Columns of x with an outlier are multiplied in the type of x, all others in 8 bits with a scale for each row
(Dettmers et al., 2022, https://arxiv.org/abs/2208.07339). T rows of x, N rows of the matrix, K columns.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from core.errors import UserError
from core.weights.bnb import offline
from core.weights.kernel_cache import MIXED_KERNEL
from core.weights.layouts import ROWS
from core.weights.matrix import Matrix
from core.weights.needs import MIXED, TILE_VALUES

THRESHOLD = 6.0
"""From which magnitude on a number is an outlier: the paper's, and what Transformers takes by default."""


class MixedKernel:
    """Rows in 8 bits with one scale, for any number of rows of x, on the CPU and on a card.

    Looking for outliers waits for the card, so no CUDA graph can have it. Where x is beyond float16 its
    column has outliers, and is multiplied in the type of x as it is; what float16 rounds to 0 is lost.
    """

    name = MIXED_KERNEL

    def __init__(self, functional: ModuleType) -> None:
        self._functional = functional

    def takes(self, format: str, columns: int, rows: int) -> bool:
        """See Kernel: the format whose scales are bitsandbytes' own."""
        return format == "int8"

    def product(self, matrix: Matrix, x: Tensor) -> Tensor:
        """See Kernel. Which columns have outliers depends on all rows of x."""
        weight, scales = matrix.pieces["values"], matrix.pieces["scales"]
        # A copy, since the CPU's quantiser puts zeros in the place of outliers for a while.
        half = x.to(torch.float16, memory_format=torch.contiguous_format, copy=True)
        codes, largest, outliers = self._functional.int8_vectorwise_quant(half, threshold=THRESHOLD)
        # Columns with outliers are made floats for all N at once, and on a CPU without AVX-512 all columns
        # are: both in row tiles, in the workspace that a plan has for it.
        width = matrix.columns if x.device.type == "cpu" else outliers.numel()
        step = max(ROWS, TILE_VALUES // max(width, 1) // ROWS * ROWS)
        product = torch.ops.bitsandbytes.int8_mixed_scaled_mm
        tiles = [
            product(x, codes, some, largest, scale, outliers)[0]
            for some, scale in zip(weight.split(step), scales.split(step), strict=True)
        ]
        return tiles[0] if len(tiles) == 1 else torch.cat(tiles, dim=1)

    def release(self) -> None:
        """See Kernel."""


def mixed_kernel(device: torch.device) -> MixedKernel:
    """The kernel, for matrices on the CPU and on `device`. Imports bitsandbytes, which takes seconds.

    Raises UserError where it is not installed, or does not compute on `device`.
    """
    with offline() as functional:
        kernel = MixedKernel(functional)
    tried = Matrix(ROWS, 64, "int8")
    tried.pieces = {
        "values": torch.ones(ROWS, 64, dtype=torch.int8, device=device),
        "scales": torch.ones(ROWS, device=device),
    }
    try:
        kernel.product(tried, torch.ones(1, 64, device=device)).sum().item()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # built for other cards, or for another CUDA
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"--quant {MIXED}: bitsandbytes does not compute on {device} here ({reason}); take --quant int8"
        ) from error
    return kernel
