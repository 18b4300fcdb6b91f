"""bitsandbytes' mixed decomposition: against bitsandbytes itself, and against float64."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from core.errors import UserError
from core.weights import bnb_kernel
from core.weights.bnb import offline, pack_int8
from core.weights.bnb_kernel import THRESHOLD, MixedKernel, mixed_kernel
from core.weights.matrix import Matrix
from tests.core.matrices import all_values, matrix_in, random_memory

CPU = torch.device("cpu")
N, K = 83, 176
TYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def kernel() -> MixedKernel:
    return mixed_kernel(CPU)


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    """Weights as bitsandbytes quantises them."""
    made = matrix_in("int8", N, K, random_memory("int8", N, K))
    weight = torch.randn(N, K, generator=torch.Generator().manual_seed(1)) * 0.05
    pack_int8(weight, made.pieces["values"], made.pieces["scales"])
    return made


def states(rows: int, outliers: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Rows with some columns of large numbers, as those of large models have."""
    generator = torch.Generator().manual_seed(rows + outliers)
    x = torch.randn(rows, K, generator=generator).clamp(-5, 5)
    x[:, torch.randperm(K, generator=generator)[:outliers]] *= 40
    x[-1, torch.randint(K, (1,), generator=generator)] = 7.0 if outliers else 0.5
    return x.to(dtype)


@torch.no_grad()
def theirs(matrix: Matrix, x: Tensor) -> Tensor:
    """By the library's own way in."""
    with offline():
        import bitsandbytes

        state: Any = bitsandbytes.MatmulLtState()
        state.threshold, state.has_fp16_weights = 6.0, False
        state.is_training = False  # in training it multiplies floats on the CPU
        state.CB, state.SCB = matrix.pieces["values"], matrix.pieces["scales"]
        out: Tensor = bitsandbytes.matmul(x.clone(), state.CB, state=state)
    return out


def off(out: Tensor, matrix: Matrix, x: Tensor) -> float:
    """The largest error of an output, of the norms of its two factors."""
    weight = all_values(matrix)
    norms = x.double().norm(dim=1)[:, None] * weight.norm(dim=1)[None]
    return ((out.double() - x.double() @ weight.T).abs() / norms).max().item()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("outliers", [0, 5])
def test_the_same_bits_as_bitsandbytes(
    kernel: MixedKernel, matrix: Matrix, outliers: int, dtype: torch.dtype
) -> None:
    for rows in (1, 3, 70):
        x = states(rows, outliers, dtype)
        assert bool((x.abs() >= THRESHOLD).any()) == (outliers > 0)
        before = x.clone()
        out = kernel.product(matrix, x)
        assert out.dtype == dtype
        assert torch.equal(out, theirs(matrix, x))
        assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", TYPES)
def test_outliers_cost_no_precision(kernel: MixedKernel, matrix: Matrix, dtype: torch.dtype) -> None:
    """In 8 bits without a decomposition, numbers beside an outlier would be rounded away."""
    limit = {torch.float32: 3e-3, torch.float16: 3e-3, torch.bfloat16: 6e-3}[dtype]
    for rows, outliers in product((1, 3, 70), (0, 5)):
        x = states(rows, outliers, dtype)
        assert off(kernel.product(matrix, x), matrix, x) <= limit
        calm = x.masked_fill(x.abs() >= THRESHOLD, 0)  # what is left where the outliers are
        rest = kernel.product(matrix, x).double() - (x - calm).double() @ all_values(matrix).T
        if dtype is torch.float32:
            assert off(rest, matrix, calm) <= limit


def test_one_scale_for_a_row_with_outliers_would_be_worse(
    matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above notices when nothing is decomposed."""
    monkeypatch.setattr(bnb_kernel, "THRESHOLD", 1e9)
    x = states(3, 5)
    calm = x.masked_fill(x.abs() >= THRESHOLD, 0)
    rest = mixed_kernel(CPU).product(matrix, x).double() - (x - calm).double() @ all_values(matrix).T
    assert off(rest, matrix, calm) > 1e-2


@pytest.mark.parametrize("dtype", TYPES)
def test_rows_of_zeros_and_of_nothing_but_outliers(
    kernel: MixedKernel, matrix: Matrix, dtype: torch.dtype
) -> None:
    """Their largest number in 8 bits is 0, by which bitsandbytes divides."""
    x = states(4, 0, dtype)
    x[0] = 0
    x[2] = torch.linspace(6, 50, K).to(dtype)
    out = kernel.product(matrix, x)
    assert out.isfinite().all()
    assert not out[0].any()
    assert torch.equal(out, theirs(matrix, x))
    assert off(out[1:], matrix, x[1:]) <= 6e-3
    assert not kernel.product(matrix, torch.zeros(1, K, dtype=dtype)).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_numbers_beyond_float16_are_outliers_like_others(
    kernel: MixedKernel, matrix: Matrix, dtype: torch.dtype
) -> None:
    for rows in (1, 3):
        x = states(rows, 0, dtype)
        x[0, 7], x[0, 90], x[-1, 90] = 3e5, -1e9, 70_000
        assert x.half().isinf().any()
        out = kernel.product(matrix, x)
        assert out.isfinite().all()
        assert off(out, matrix, x) <= 6e-3
    assert kernel.product(matrix, x.fill_(float("nan"))).isnan().all()  # what is wrong stays in sight


def test_states_with_gaps_between_their_rows(kernel: MixedKernel, matrix: Matrix) -> None:
    wide = states(3, 5).repeat(1, 2)
    for part in (wide[:, K:], wide[:, :K].T.contiguous().T):
        assert torch.equal(kernel.product(matrix, part), kernel.product(matrix, part.contiguous()))


@pytest.mark.parametrize("outliers", [0, 5])
def test_large_matrices_are_multiplied_in_tiles(
    kernel: MixedKernel, matrix: Matrix, outliers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made of the weights stays in the workspace that a plan has for it."""
    x = states(3, outliers)
    want = kernel.product(matrix, x)
    seen: list[int] = []
    real = torch.ops.bitsandbytes.int8_mixed_scaled_mm

    def noted(*given: Any) -> Any:
        seen.append(len(given[2]))
        return real(*given)

    monkeypatch.setattr(torch.ops.bitsandbytes, "int8_mixed_scaled_mm", noted)
    monkeypatch.setattr(bnb_kernel, "TILE_VALUES", 40 * K)
    found = kernel.product(matrix, x)
    assert seen == [32, 32, 19]
    assert (found - want).norm() <= 1e-6 * want.norm()


def test_who_cannot_compute_there_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kernel: MixedKernel, matrix: Matrix, x: Tensor) -> Tensor:
        raise RuntimeError("no kernel image\nmore of it")

    monkeypatch.setattr(MixedKernel, "product", refuse)
    with pytest.raises(
        UserError, match=r"does not compute on cpu here \(no kernel image\); take --quant int8"
    ):
        mixed_kernel(CPU)

    def full(kernel: MixedKernel, matrix: Matrix, x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(MixedKernel, "product", full)
    with pytest.raises(torch.OutOfMemoryError):
        mixed_kernel(CPU)
