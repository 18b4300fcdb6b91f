"""The compiled norm, gate and attention against float64, in every build that runs here."""

from __future__ import annotations

import ctypes
import math
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.model.cache import quantised
from core.native import build
from core.native.ops_calls import OpsCalls

BUILDS = {"native": "-march=native", "x86-64-v3": "-march=x86-64-v3", "plain": "-DPLAIN"}
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
TYPES = (*FLOATS, torch.int8)  # of the cache
HEADS = ((1, 1), (4, 1), (9, 3), (32, 4))  # of queries, of keys
SIZES = (64, 80, 128)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """ops.cpp alone for each kind of processor, compiled at the same time."""
    compiler = build._compiler()
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    folder, source = tmp_path_factory.mktemp("ops"), build.HERE / "ops.cpp"
    paths, running = {name: folder / f"{name}.so" for name in BUILDS}, []
    for name, home in paths.items():
        # Two steps, so that OpenMP is not linked: the library is to run on torch's.
        command = f'"$@" -c {source} -o {home}.o && {compiler} -shared {home}.o -o {home}'
        running.append(subprocess.Popen(["sh", "-c", command, "sh", compiler, *build._FLAGS, BUILDS[name]]))
    assert all(process.wait() == 0 for process in running)
    return paths


@pytest.fixture(params=BUILDS)
def calls(request: pytest.FixtureRequest, libraries: dict[str, Path]) -> OpsCalls:
    if request.param == "x86-64-v3":
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
        if not {"avx2", "fma", "f16c", "bmi2"} <= flags:
            pytest.skip("this processor has no AVX2")
    return OpsCalls(ctypes.CDLL(str(libraries[request.param])))


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@dataclass
class Case:
    """The arguments of one call, on a cache with poison wherever nothing is to be read."""

    T: int
    H: int
    K: int
    D: int
    start: int
    dtype: torch.dtype

    def __post_init__(self) -> None:
        T, H, K, D = self.T, self.H, self.K, self.D
        both = torch.randn(T, (H + 2 * K) * D + 3)[:, 3:]  # views of one matrix, as projections give them
        self.q, self.k, self.v = both.split([H * D, K * D, K * D], dim=1)
        angles = torch.rand(T, D // 2, dtype=torch.float64) * 6
        self.rope = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)
        shape, before = (2, K, 2, self.start + T + 5), torch.randn(2, K, self.start, D)
        self.scales = torch.full(shape, math.nan)  # of int8
        if self.dtype is torch.int8:
            self.memory = torch.full((*shape, D), -128, dtype=torch.int8)
            rows = (slice(None), slice(None), 1, slice(self.start))
            self.memory[rows], self.scales[rows] = quantised(before)
        else:
            self.memory = torch.full((*shape, D), math.nan, dtype=self.dtype)
            self.memory[:, :, 1, : self.start] = before.to(self.dtype)
        (self.keys, self.values), (self.key_scales, self.value_scales) = (
            self.memory[:, :, 1], self.scales[:, :, 1],
        )  # fmt: skip

    def run(self, calls: OpsCalls) -> Tensor:
        cache, scales = (self.keys, self.values), (self.key_scales, self.value_scales)
        given = scales if self.dtype is torch.int8 else ()
        return calls.attend(self.q, self.k, self.v, self.rope, *cache, self.start, self.D, *given)

    def rotated(self, x: Tensor) -> Tensor:
        """[T, heads, D] in float64."""
        pairs = x.double().reshape(self.T, -1, self.D // 2, 2)
        turned = torch.complex(pairs[..., 0], pairs[..., 1]) * self.rope.to(torch.complex128)[:, None]
        return torch.stack((turned.real, turned.imag), dim=-1).flatten(2)

    def cached(self) -> tuple[Tensor, Tensor]:
        """Keys and values in the cache, [K, S, D] in float64."""
        S = self.start + self.T
        keys, values = self.keys[:, :S].double(), self.values[:, :S].double()
        if self.dtype is torch.int8:
            keys *= self.key_scales[:, :S, None].double()
            values *= self.value_scales[:, :S, None].double()
        return keys, values

    def expected(self) -> Tensor:
        """Attention over the cache as it is after the call: [T, H * D] in float64."""
        S, repeats = self.start + self.T, self.H // self.K
        keys, values = (x.repeat_interleave(repeats, dim=0) for x in self.cached())
        scores = torch.einsum("thd,hsd->hts", self.rotated(self.q), keys) / math.sqrt(self.D)
        later = torch.arange(S) > self.start + torch.arange(self.T)[:, None]
        weights = scores.masked_fill(later, -math.inf).softmax(-1)
        return torch.einsum("hts,hsd->thd", weights, values).flatten(1)

    def check(self, calls: OpsCalls, tolerance: float = 5e-6) -> None:
        if self.dtype is torch.int8:  # queries and weights are in 16 bits then, far finer than the cache
            tolerance *= 80
        before, scales_before = self.memory.clone(), self.scales.clone()
        out, start, stop = self.run(calls), self.start, self.start + self.T
        assert out.shape == (self.T, self.H * self.D)
        torch.testing.assert_close(out.double(), self.expected(), atol=tolerance, rtol=1e-5, msg=str(self))
        self._check_new_rows(start, stop)
        for all_, new, was in ((self.memory, before, before), (self.scales, scales_before, scales_before)):
            all_[:, :, 1, start:stop] = new[:, :, 1, start:stop]
            assert torch.equal(all_.nan_to_num(7.0), was.nan_to_num(7.0)), "other memory was written"

    def _check_new_rows(self, start: int, stop: int) -> None:
        """What was written is what was given, as precise as the type is."""
        keys, values = (x[:, start:stop].transpose(0, 1) for x in (self.keys, self.values))
        given, turned = self.v.reshape(values.shape), self.rotated(self.k)
        if self.dtype is torch.int8:
            scales = self.key_scales[:, start:stop].T
            torch.testing.assert_close(scales.double(), turned.abs().amax(-1) / 127, atol=0, rtol=1e-6)
            error = (keys * scales.double()[..., None] - turned).abs()
            assert (error <= 0.501 * scales[..., None]).all(), self
            codes, scales = quantised(given)
            assert torch.equal(values, codes), self
            assert torch.equal(self.value_scales[:, start:stop].T, scales), self
            return
        assert torch.equal(values, given.to(self.dtype)), self
        unit = torch.finfo(self.dtype).eps
        torch.testing.assert_close(keys.double(), turned, atol=max(unit / 8, 1e-6), rtol=unit, msg=str(self))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("T", [1, 2, 5, 8])
def test_attention_equals_float64_and_appends_to_the_cache(
    calls: OpsCalls, T: int, dtype: torch.dtype
) -> None:
    for (H, K), D, start in product(HEADS, SIZES, (0, 1, 7, 100)):
        Case(T, H, K, D, start, dtype).check(calls)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_attention_over_a_long_context(calls: OpsCalls, dtype: torch.dtype) -> None:
    for (H, K), (T, D) in product(HEADS, ((1, 64), (2, 80), (8, 16))):
        Case(T, H, K, D, 3000, dtype).check(calls)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_attention_of_many_rows(calls: OpsCalls, dtype: torch.dtype) -> None:
    """So many that the rows of a head are computed in several parts, and a part sees not all keys."""
    for (H, K), (T, D, start) in product(HEADS, ((33, 64, 0), (75, 16, 500), (150, 80, 7), (260, 8, 130))):
        Case(T, H, K, D, start, dtype).check(calls)


def test_attention_of_odd_shapes(calls: OpsCalls) -> None:
    for D, (H, K), start in product((2, 8, 22, 40), ((5, 5), (13, 1), (70, 70)), (0, 33, 500)):
        Case(3, H, K, D, start, torch.float16).check(calls)


def test_scores_far_from_zero(calls: OpsCalls) -> None:
    """e^score alone would overflow, and most weights underflow."""
    for scale, T, dtype in product((30.0, 300.0), (1, 4, 70), (torch.float32, torch.int8)):
        case = Case(T, 4, 2, 64, 700, dtype)
        case.q *= scale
        case.check(calls, tolerance=1e-3)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_what_is_no_number_stays_in_its_row_and_head(calls: OpsCalls, dtype: torch.dtype) -> None:
    for bad, T in product((math.nan, math.inf, -math.inf), (2, 70)):
        case = Case(T, 4, 2, 64, 300, dtype)
        case.q[0, 64 + 5] = bad  # the second head of the first token
        out = case.run(calls).view(T, 4, 64)
        assert out[0, 1].isnan().all()
        finite = out.isfinite().all(-1)
        finite[0, 1] = True
        assert finite.all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_rounding_into_the_cache_is_torchs(calls: OpsCalls, dtype: torch.dtype) -> None:
    """Any float32 there is: ties, what overflows, denormal numbers, infinity and NaN."""
    patterns = (
        torch.randint(-(2**31), 2**31, (1, 4096), dtype=torch.int64).to(torch.int32).view(torch.float32)
    )
    near_half = torch.randint(0x32000000, 0x48000000, (1, 8192), dtype=torch.int32) & -0x1000
    sign = torch.where(torch.rand(1, 8192) < 0.5, -1.0, 1.0)
    special = torch.tensor([[0.0, -0.0, math.inf, -math.inf, math.nan, 65519.0, 65520.0, 1e-45, 3.4e38]])
    some = torch.cat((patterns, near_half.view(torch.float32) * sign, special), dim=1)
    v = torch.nn.functional.pad(some, (0, -some.shape[1] % 64))
    K = v.shape[1] // 64
    cache = torch.zeros(2, K, 3, 64).to(dtype)
    still = torch.ones(1, 32, dtype=torch.complex64)
    calls.attend(torch.zeros(1, K * 64), torch.zeros_like(v), v, still, cache[0], cache[1], 1, 64)
    got, wanted = cache[1, :, 1].flatten(), v[0].to(dtype)
    assert torch.equal(got.isnan(), wanted.isnan())
    assert torch.equal(got[~got.isnan()].float(), wanted[~wanted.isnan()].float())
    assert torch.equal(got.signbit()[~got.isnan()], wanted.signbit()[~wanted.isnan()])


def test_the_number_of_threads_changes_no_bit(calls: OpsCalls) -> None:
    shapes = (
        (1, 4, 1, 64, 3000),
        (1, 32, 4, 64, 900),
        (8, 9, 3, 80, 400),
        (150, 9, 3, 64, 300),
        (2, 32, 32, 128, 65),
    )
    for shape, dtype in product(shapes, TYPES):
        case, results = Case(*shape, dtype), []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results += [case.run(calls) for _ in range(2)]
        assert all(torch.equal(results[0], other) for other in results), case
    x, weight = torch.randn(70, 700), torch.randn(700)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results.append((calls.norm(x, weight, 1e-5), calls.gate(x, x + 1)))
    assert all(torch.equal(a, results[0][0]) and torch.equal(b, results[0][1]) for a, b in results)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_norm_equals_float64(calls: OpsCalls, dtype: torch.dtype) -> None:
    for rows, columns, scale in product((1, 3, 40), (2, 5, 16, 77, 576, 2049), (1e-6, 1.0, 1e6)):
        x, weight = torch.randn(rows, columns) * scale, torch.randn(columns).to(dtype)
        root = (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(
            calls.norm(x, weight, 1e-5).double(), x.double() / root * weight.double(), atol=0, rtol=1e-6
        )


def test_gate_equals_float64_at_every_size(calls: OpsCalls) -> None:
    for rows, columns in product((1, 3, 30), (1, 15, 16, 100, 1025, 5632)):
        a, b = (torch.randn(rows, 2 * columns + 1) * 5).split([columns, columns + 1], dim=1)
        b = b[:, 1:]
        expected = a.double() / (1 + (-a.double()).exp()) * b.double()
        torch.testing.assert_close(calls.gate(a, b).double(), expected, atol=1e-30, rtol=1e-6)


def test_gate_far_from_zero(calls: OpsCalls) -> None:
    a = torch.linspace(-150, 150, 100_001)[None]
    expected = a.double() / (1 + (-a.double()).exp())
    torch.testing.assert_close(calls.gate(a, torch.ones_like(a)).double(), expected, atol=1e-36, rtol=1e-6)
    ends = torch.tensor([[math.inf, -math.inf, math.nan, 1e38, -1e38, 0.0]])
    out = calls.gate(ends, torch.ones_like(ends))
    assert torch.equal(out[0, [0, 3, 5]], ends[0, [0, 3, 5]])
    assert out[0, 2].isnan()
    assert abs(out[0, 4]) < 1e-30
