"""The compiled kernels for matrices against float64, in every format, on weights packed here by the book."""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from core.native import build
from core.native.library import Library, Matrix, matrix_of
from core.weights.layouts import GROUPS, NIBBLES, pieces_of

FORMATS = ("float32", "float16", "bfloat16", "int8", "q8_0", "int4", "int4-128", "q4_1", "q4_0", "nf4")
WHOLE = ("int8", "q8_0", "int4", "int4-128", "q4_1", "q4_0")  # multiplied as whole numbers
PAIRS = ("float16", "bfloat16", "nf4")  # multiplied in bfloat16
FEW = (1, 2, 3, 5, 8)
MANY = (9, 13, 64, 100)
OUTPUTS = (16, 17, 40, 172)
NF4 = torch.tensor(
    [
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
        *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
        *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
        *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ]
)
BUILDS = ("native", "x86-64-v4", "x86-64-v3", "plain")


@cache
def _flags() -> set[str]:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _runs_here(name: str) -> bool:
    needed = {"x86-64-v3": {"avx2", "fma", "f16c", "bmi2"}, "x86-64-v4": {"avx512f", "avx512bw", "avx512vl"}}
    return needed.get(name, set()) <= _flags()


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Library]:
    """All builds that run here, compiled at the same time: "native" as users have it, the others from this
    one source."""
    folder = tmp_path_factory.mktemp("native")
    native = build.Build("native", folder=folder)
    if native.error is not None:
        pytest.skip(native.error)
    native.start()
    source, paths, running = build.HERE / "matrix.cpp", {}, {}
    compiler = build._compiler()
    assert compiler is not None
    for name in BUILDS[1:]:
        if not _runs_here(name):
            continue
        paths[name] = folder / f"{name}.so"
        arch = ["-DPLAIN"] if name == "plain" else [f"-march={name}"]
        # -shared without -fopenmp while linking, as the build itself: two steps in one call.
        command = (
            f'"$@" -c {source} -o {paths[name]}.o && {compiler} -shared {paths[name]}.o -o {paths[name]}'
        )
        running[name] = subprocess.Popen(["sh", "-c", command, "sh", compiler, *build._FLAGS, *arch])
    home = native.wait()
    assert home is not None, native.error
    assert all(process.wait() == 0 for process in running.values())
    return {"native": Library(home), **{name: Library(path) for name, path in paths.items()}}


@pytest.fixture(params=BUILDS)
def library(request: pytest.FixtureRequest, libraries: dict[str, Library]) -> Library:
    if request.param not in libraries:
        pytest.skip(f"this processor does not run {request.param}")
    return libraries[request.param]


@pytest.fixture
def native(libraries: dict[str, Library]) -> Library:
    return libraries["native"]


def columns_of(format: str) -> tuple[int, ...]:
    shapes = (32, 64, 96, 128, 160, 1536) + (() if format in GROUPS else (7, 172))
    return tuple(columns for columns in shapes if columns % GROUPS.get(format, 1) == 0)


def nibbles(codes: Tensor) -> Tensor:
    """Codes [N, K] one by one to where the description says."""
    rows, columns = codes.shape
    blocks = -(-rows // 16)
    n, k = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    place = ((n // 16 * (columns // 8) + k // 8) * 16 + n % 16) * 4 + k % 4
    packed = torch.zeros(blocks * columns * 8, dtype=torch.int32)
    packed.index_add_(0, place.flatten(), (codes.int() << (k % 8 // 4 * 4)).flatten().int())
    return packed.to(torch.uint8).view(blocks, columns // 8, 16, 4)


def grouped(values: Tensor) -> Tensor:
    """Scales or minima [N, G] to [N / 16, G, 16]."""
    rows, groups = values.shape
    packed = torch.zeros(-(-rows // 16), groups, 16, dtype=values.dtype)
    for n in range(rows):
        packed[n // 16, :, n % 16] = values[n]
    return packed


def weight_of(format: str, rows: int, columns: int, **given: Tensor) -> SimpleNamespace:
    """A random weight: its `matrix`, `tensors`, and `values` as torch dequantises it, [N, K] float32.
    `given` fixes codes or scales."""
    group = GROUPS.get(format, columns)
    wide = torch.float32 if format in ("int8", "nf4") else torch.float16
    scales = given.get("scales", torch.rand(rows, columns // group) + 0.1).to(wide)
    each = scales.float().repeat_interleave(group, 1)
    low, high = (-128, 128) if format in ("int8", "q8_0") else (0, 16)
    codes = given.get("codes", torch.randint(low, high, (rows, columns)))
    if format not in NIBBLES and format not in WHOLE:
        stored = torch.randn(rows, columns).to(getattr(torch, format))
        tensors, values = {"values": stored}, stored.float()
    elif format in ("int8", "q8_0"):
        tensors = {"values": codes.to(torch.int8), "scales": scales[:, 0] if format == "int8" else scales}
        values = codes.float() * each
        values = values * 7.874015718698502e-3 if format == "int8" else values
    else:
        tensors = {"values": nibbles(codes), "scales": grouped(scales)}
        if format == "nf4":
            values = NF4[codes] * each
        elif format == "q4_0":
            values = (codes - 8).float() * each
        else:
            minima = (-8 * torch.rand(rows, columns // group)).half()
            tensors["minima"] = grouped(minima)
            values = codes.float() * each
            values = values + minima.float().repeat_interleave(group, 1)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    for piece in pieces_of(format, rows, columns):
        assert tensors[piece.name].shape == piece.shape
    return SimpleNamespace(matrix=matrix_of(format, rows, columns, tensors), tensors=tensors, values=values)


def product(library: Library, x: Tensor, *weights: SimpleNamespace) -> Tensor:
    matrices = (Matrix * len(weights))(*(weight.matrix for weight in weights))
    out = library.matmul(matrices, x, sum(len(weight.values) for weight in weights))
    assert out is not None
    return out


def multiplies_many(library: Library) -> bool:
    return "VNNI" in library.instructions


def multiplies_pairs(library: Library) -> bool:
    return "BF16" in library.instructions


def computes_many(library: Library, format: str) -> bool:
    return (format in WHOLE and multiplies_many(library)) or (format in PAIRS and multiplies_pairs(library))


def rounded(x: Tensor) -> Tensor:
    """x as many rows are multiplied: 8 bits in groups of 32 columns, and 8 more where a group holds a number
    above three times the row's root mean square; in float64."""
    rows, columns = x.shape
    groups = torch.nn.functional.pad(x, (0, -columns % 32)).view(rows, -1, 32)
    largest = groups.abs().amax(2, keepdim=True)
    step = (largest / 127).double()
    numbers = torch.round(groups * torch.where(largest > 0, torch.tensor(127.0) / largest, 0)).double()
    finer = torch.round((groups.double() / step.where(step > 0, 1) - numbers) * 254) / 254
    stands_out = largest > 3 * x.square().mean(1).sqrt()[:, None, None]
    return ((numbers + finer.where(stands_out, 0)) * step).view(rows, -1)[:, :columns]


def assert_close(out: Tensor, x: Tensor, values: Tensor, limit: float) -> None:
    """Every output differs from the float64 product by at most `limit` times the norms of both factors."""
    exact = x.double() @ values.double().T
    norms = x.double().norm(dim=1)[:, None] * values.double().norm(dim=1)[None]
    worst = ((out.double() - exact).abs() - limit * norms).max().item()
    assert worst <= 1e-30, f"{tuple(x.shape)} x {tuple(values.shape)}: {worst} above the limit"


# A group of 32 columns rounded to 16 bits: every column by at most half of a step, sqrt(32) / 2 / 32639.
EXACT = 9e-5

# Where 8 bits more are between two numbers, single precision may take the other one: a column differs by a
# largest number / 127 / 254, which is three root mean squares and more, against the norm of 64 columns.
TIE = 1.5e-5


@pytest.mark.parametrize("format", FORMATS)
def test_few_rows(library: Library, format: str) -> None:
    torch.manual_seed(1)
    for columns in columns_of(format):
        for outputs in OUTPUTS:
            weight = weight_of(format, outputs, columns)
            for rows in FEW:
                x = torch.randn(rows, columns)
                out = product(library, x, weight)
                assert_close(out, x, weight.values, EXACT if format in WHOLE else 2e-6)


@pytest.mark.parametrize("format", WHOLE)
def test_many_rows(libraries: dict[str, Library], format: str) -> None:
    library = libraries["native"]
    if not multiplies_many(library):
        pytest.skip("this processor has no VNNI")
    torch.manual_seed(2)
    for columns in (*columns_of(format), 640, 4352):  # more than one panel deep; more than one at once
        for outputs in OUTPUTS:
            weight = weight_of(format, outputs, columns)
            for rows in MANY:
                x = torch.randn(rows, columns)
                out = product(library, x, weight)
                assert_close(out, rounded(x), weight.values, TIE)
                if columns >= 1536:
                    exact = x.double() @ weight.values.double().T
                    assert (out - exact).norm() < 0.012 * exact.norm()


@pytest.mark.parametrize("format", PAIRS)
def test_many_rows_in_bfloat16(native: Library, format: str) -> None:
    """Both factors rounded to bfloat16, sums in float32."""
    if not multiplies_pairs(native):
        pytest.skip("this processor has no BF16")
    torch.manual_seed(11)
    for columns in (*columns_of(format), 640, 2176):  # more than one panel deep; more than one at once
        for outputs in OUTPUTS:
            weight = weight_of(format, outputs, columns)
            for rows in (*MANY, 523) if outputs == 40 else MANY:
                x = torch.randn(rows, columns)
                out = product(native, x, weight)
                assert_close(out, x.bfloat16(), weight.values.bfloat16(), 4e-6)


def test_kinds_side_by_side(native: Library) -> None:
    if not multiplies_pairs(native):
        pytest.skip("this processor has no BF16")
    torch.manual_seed(12)
    formats = ("float16", "nf4", "int8", "q4_0", "bfloat16", "int4")
    weights = [weight_of(format, 16 + 19 * i, 192) for i, format in enumerate(formats)]
    x = torch.randn(40, 500)[:, 60:252]
    parts = torch.cat([product(native, x, weight) for weight in weights], 1)
    assert torch.equal(product(native, x, *weights), parts)
    assert_close(parts, x, torch.cat([weight.values for weight in weights]), 3e-3)


def test_more_rows_than_are_kept_at_once(native: Library) -> None:
    if not multiplies_many(native):
        pytest.skip("this processor has no VNNI")
    torch.manual_seed(3)
    weights = [weight_of("int4", 48, 2176), weight_of("int8", 33, 2176)]
    x = torch.randn(523, 2176)
    out = product(native, x, *weights)
    assert_close(out, rounded(x), torch.cat([weight.values for weight in weights]), 2e-6)


def test_several_matrices_and_rows_apart(library: Library) -> None:
    torch.manual_seed(4)
    many = multiplies_many(library)
    formats = ("int8", "q8_0", "int4", "q4_0") if many else ("float16", "int8", "int4", "nf4", "float32")
    weights = [weight_of(format, 16 + 19 * i, 192) for i, format in enumerate(formats)]
    values = torch.cat([weight.values for weight in weights])
    for rows in (1, 4, 8, *((40,) if many else ())):
        x = torch.randn(rows, 500)[:, 60:252]
        out = product(library, x, *weights)
        assert_close(out, rounded(x) if rows > 8 else x, values, 2e-6 if rows > 8 else EXACT)
        parts = torch.cat([product(library, x, weight) for weight in weights], 1)
        assert torch.equal(out, parts)


@pytest.mark.parametrize("format", FORMATS)
def test_few_rows_of_any_format_in_one_call_with_others(library: Library, format: str) -> None:
    torch.manual_seed(5)
    weights = [weight_of("bfloat16", 21, 256), weight_of(format, 35, 256), weight_of("nf4", 16, 256)]
    x = torch.randn(2, 256)
    assert_close(product(library, x, *weights), x, torch.cat([one.values for one in weights]), EXACT)


@pytest.mark.parametrize("format", WHOLE)
def test_extreme_codes_and_large_x(library: Library, format: str) -> None:
    """Sums of whole numbers are largest when all are extreme and have the same sign."""
    torch.manual_seed(6)
    extremes = (-128, 127) if format in ("int8", "q8_0") else (0, 15)
    for code in extremes:
        weight = weight_of(format, 16, 1536, codes=torch.full((16, 1536), code))
        for rows in (1, 8, *((30,) if multiplies_many(library) else ())):
            for sign in (-1.0, 1.0):
                x = torch.full((rows, 1536), sign * 3e4)
                assert_close(product(library, x, weight), x, weight.values, 1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_one_huge_column(library: Library, format: str) -> None:
    """A group with an outlier loses its small columns, but no more than the last place of its 16 bits."""
    torch.manual_seed(7)
    weight = weight_of(format, 40, 1536)
    x = torch.randn(3, 1536)
    x[:, 700] = 1e4
    assert_close(product(library, x, weight), x, weight.values, EXACT)
    if format in WHOLE and multiplies_many(library):
        x = x.repeat(5, 1)
        out = product(library, x, weight)
        assert_close(out, rounded(x), weight.values, 2e-6)
        assert_close(out, x, weight.values, EXACT)


@pytest.mark.parametrize("format", WHOLE)
def test_many_rows_some_of_which_have_numbers_that_stand_out(
    libraries: dict[str, Library], format: str
) -> None:
    """In any group of any row, at both ends and on both sides of a panel's edge."""
    library = libraries["native"]
    if not multiplies_many(library):
        pytest.skip("this processor has no VNNI")
    torch.manual_seed(10)
    for columns in (256, 640, 4352):
        weight = weight_of(format, 50, columns)
        for rows in (9, 40, 270):
            x = torch.randn(rows, columns)
            x[torch.rand(rows, columns) < 2 / columns] *= 40
            x[1, 0], x[2, columns - 1], x[4, 127], x[4, 128] = 30.0, -50.0, 60.0, -60.0
            x[7] = 0.01
            out = product(library, x, weight)
            assert_close(out, rounded(x), weight.values, 2e-6)
            alone = product(library, x[1:].clone(), weight)  # whatever stands beside it
            assert rows == 9 or torch.equal(out[1:], alone)


def test_zeros(library: Library) -> None:
    for format in WHOLE:
        groups = 192 // GROUPS.get(format, 192) if format != "int4-128" else 1
        columns = 128 if format == "int4-128" else 192
        weight = weight_of(format, 17, columns, scales=torch.zeros(17, groups))
        for rows in (1, *((9,) if multiplies_many(library) else ())):
            out = product(library, torch.randn(rows, columns), weight)
            if format in ("int8", "q8_0", "q4_0"):
                assert torch.equal(out, torch.zeros(rows, 17))
            other = weight_of(format, 17, columns)
            assert torch.equal(product(library, torch.zeros(rows, columns), other), torch.zeros(rows, 17))


def test_not_a_number_and_infinity_are_seen(library: Library) -> None:
    torch.manual_seed(8)
    for format in FORMATS:
        weight = weight_of(format, 17, 256)
        for rows in (1, 3, *((9,) if computes_many(library, format) else ())):
            for bad in (float("nan"), float("inf"), float("-inf")):
                x = torch.randn(rows, 256)
                x[rows - 1, 77] = bad
                out = product(library, x, weight)
                assert not out[rows - 1].isfinite().any(), f"{format} {rows} {bad}"
                assert out[: rows - 1].isfinite().all()


def test_what_has_no_kernel_for_many_rows(library: Library) -> None:
    for format in FORMATS:
        weight = weight_of(format, 17, 256)
        out = library.matmul((Matrix * 1)(weight.matrix), torch.randn(9, 256), 17)
        assert (out is not None) == computes_many(library, format)


def test_threads_change_no_bit(library: Library) -> None:
    torch.manual_seed(9)
    before = torch.get_num_threads()
    weights = [weight_of(format, 300 + 7 * i, 1536) for i, format in enumerate(FORMATS)]
    many = [one for one, format in zip(weights, FORMATS, strict=True) if computes_many(library, format)]
    try:
        for rows in (1, 2, 5, *((70,) if multiplies_many(library) else ())):
            x = torch.randn(rows, 1536)
            outs = []
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                outs.append(product(library, x, *(many if rows > 8 else weights)))
            assert torch.equal(outs[0], outs[1])
            assert torch.equal(outs[0], outs[2])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("format", FORMATS)
def test_unpacked_as_torch_has_it(library: Library, format: str) -> None:
    torch.manual_seed(10)
    for columns in columns_of(format):
        for rows in (*OUTPUTS, 500):
            weight = weight_of(format, rows, columns)
            for start, stop in ((0, rows), (16, min(rows, 33)), (rows // 32 * 16, rows), (0, 0)):
                for dtype in (torch.float32, torch.float16, torch.bfloat16):
                    out = torch.full((stop - start, columns), 7.0, dtype=dtype)
                    library.unpack(weight.matrix, start, stop, out)
                    assert torch.equal(out, weight.values[start:stop].to(dtype))


def test_every_float16_unpacks(library: Library) -> None:
    """Subnormal numbers, infinities and NaN among them."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.float16).view(64, 1024)
    matrix = matrix_of("float16", 64, 1024, {"values": every})
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        out = torch.empty(64, 1024, dtype=dtype)
        library.unpack(matrix, 0, 64, out)
        assert torch.equal(out.nan_to_num(nan=9.0), every.to(dtype).nan_to_num(nan=9.0))
        assert torch.equal(out.isnan(), every.isnan())


def test_floats_round_as_torch_rounds(library: Library) -> None:
    torch.manual_seed(11)
    bits = torch.randint(-(2**31), 2**31 - 1, (64, 4096), dtype=torch.int32)
    values = bits.view(torch.float32).nan_to_num(nan=1.0)
    values[0, :8] = torch.tensor([65519.0, 65520.0, 2**-24, 2**-25, 3 * 2**-26, 2**-14, 1e-40, -0.0])
    values[1] = torch.randn(4096) * 1e-5
    matrix = matrix_of("float32", 64, 4096, {"values": values})
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        out = torch.empty(64, 4096, dtype=dtype)
        library.unpack(matrix, 0, 64, out)
        assert torch.equal(out, values.to(dtype))


def test_rows_that_there_are_not(native: Library) -> None:
    weight = weight_of("int4", 40, 64)
    for start, stop in ((0, 41), (8, 16), (-16, 0), (32, 16)):
        with pytest.raises(ValueError, match="of 40"):
            native.unpack(weight.matrix, start, stop, torch.empty(64, 64))


def test_tensors_that_no_kernel_can_read() -> None:
    with pytest.raises(ValueError, match="values"):
        matrix_of("float32", 8, 4, {"values": torch.randn(4, 8).T})


def test_a_file_that_is_no_library(tmp_path: Path) -> None:
    path = tmp_path / "broken.so"
    path.write_bytes(b"nothing")
    with pytest.raises(OSError, match="compiled kernels"):
        Library(path)
    assert ctypes.sizeof(Matrix) == 48
