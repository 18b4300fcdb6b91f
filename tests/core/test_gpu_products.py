"""The kernels for few rows, in Triton's interpreter or on a card, against float64."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.core.interpreted import DEVICE

# isort: split
from core.gpu.launch import FUSED, MOST_ROWS, gated, norm, product
from core.model.ops import Ops
from core.weights.layouts import FORMATS, GROUPS
from core.weights.matrix import Matrix
from tests.core.matrices import all_values, matrix_in, random_memory

LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
"""By which an output may differ, of the norms of its two factors: what rounding to the type takes."""


def matrix(format: str, rows: int, columns: int, seed: int = 0) -> Matrix:
    return matrix_in(format, rows, columns, random_memory(format, rows, columns, seed).to(DEVICE))


def inputs(rows: int, columns: int, dtype: torch.dtype, seed: int = 9) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator).to(dtype).to(DEVICE)


def check(out: Tensor, x: Tensor, weight: Tensor, more: float = 1.0) -> None:
    want = x.double() @ weight.T
    scale = x.double().norm(dim=1)[:, None] * weight.norm(dim=1)[None, :]
    off = ((out.double() - want).abs() / scale).max()
    assert off < more * LIMITS[out.dtype], float(off)


def columns_of(format: str) -> tuple[int, ...]:
    """Odd ones, where groups allow them, and more than one step of the loop."""
    group = GROUPS.get(format)
    return (83, 200, 1112) if group is None else (group, 3 * group, 1024 + group)


@pytest.mark.parametrize("format", FORMATS)
def test_one_row(format: str) -> None:
    for rows, columns, dtype in zip((37, 1, 17), columns_of(format), LIMITS, strict=False):
        one, x = matrix(format, rows, columns), inputs(1, columns, dtype)
        check(product([one], x), x, all_values(one))


@pytest.mark.parametrize("format", FORMATS)
def test_few_rows(format: str) -> None:
    columns = columns_of(format)[1]
    one = matrix(format, 21, columns)
    for rows in (2, 5, MOST_ROWS):
        x = inputs(rows, columns, torch.bfloat16)
        check(product([one], x), x, all_values(one))


@pytest.mark.parametrize("format", ["float16", "int8", "q8_0", "int4", "nf4"])
def test_several_matrices_in_one_launch(format: str) -> None:
    columns = columns_of(format)[1]
    three = [matrix(format, rows, columns, seed=rows) for rows in (40, 8, 19)]
    weight = torch.cat([all_values(one) for one in three])
    for rows in (1, 3):
        x = inputs(rows, columns, torch.float32)
        check(product(three, x), x, weight)


@pytest.mark.parametrize("format", FORMATS)
def test_gate_and_residual_in_one_launch(format: str) -> None:
    columns, rows = columns_of(format)[1], 37
    one, other = (matrix(format, rows, columns, seed) for seed in (1, 2))
    x, residual = inputs(1, columns, torch.float32), inputs(1, rows, torch.float32, 4)
    a, b = (x.double() @ all_values(some).T for some in (one, other))
    torch.testing.assert_close(
        product([one], x, residual).double(), a + residual.double(), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(gated(one, other, x).double(), F.silu(a) * b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_norm_of_a_row(dtype: torch.dtype) -> None:
    for columns in (64, 100):
        x, gain = inputs(1, columns, dtype), inputs(1, columns, dtype, 3)[0]
        want = Ops().norm(x.double(), gain.double(), 1e-5)
        torch.testing.assert_close(norm(x, gain, 1e-5).double(), want, rtol=3e-3, atol=3e-3)


def test_what_does_not_go_together_is_refused() -> None:
    one = matrix("float32", 8, 64)
    with pytest.raises(ValueError, match="64 columns"):
        product([one], inputs(9, 64, torch.float32))
    with pytest.raises(ValueError, match="differ"):
        product([one, matrix("float16", 8, 64)], inputs(1, 64, torch.float32))


def test_the_options_of_a_launch_are_those_of_triton_for_cuda() -> None:
    """The interpreter takes any."""
    from triton.backends.nvidia.compiler import CUDAOptions

    assert set(FUSED) <= {field.name for field in fields(CUDAOptions)}
