"""Every way to multiply with a matrix, against float64."""

from __future__ import annotations

import gc
import weakref
from itertools import product

import pytest
import torch
from torch import Tensor

from core.engine.compute import candidates
from core.native.build import Build
from core.native.library import Library
from core.options import LoadOptions
from core.weights import kernels as module
from core.weights.kernels import (
    DeviceKernel,
    Int8PackKernel,
    Kernel,
    Kernels,
    LinearKernel,
    NativeKernel,
    TileKernel,
    VectorKernel,
    row_class,
)
from core.weights.layouts import FLOATS, FORMATS, GROUPS
from core.weights.matrix import Matrix
from tests.core.matrices import all_values, matrix_in, random_matrix, random_memory

KINDS = (
    "linear", "mv", "int8pack", "native", "device",
    *(f"{way}-{kind}" for way in ("tiles", "tiles-compiled") for kind in ("bfloat16", "float16", "float32")),
)  # fmt: skip
NUMBERS = (1, 4, 40)  # of rows of x

# By which an output may differ, of the norms of its two factors: what rounding to the type takes.
LIMITS = {"float32": 3e-6, "float16": 1e-3, "bfloat16": 6e-3}


@pytest.fixture(scope="session")
def library() -> Library:
    build = Build()
    path = build.wait()
    if path is None:
        pytest.skip(f"no compiled kernels: {build.error}")
    return Library(path)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a matrix has several tiles, the last one shorter."""
    monkeypatch.setattr(module, "TILE_VALUES", 32 * 200)


@pytest.fixture(params=KINDS)
def kernel(request: pytest.FixtureRequest) -> Kernel:
    way, _, kind = request.param.rpartition("-")
    match way or kind:
        case "linear":
            return LinearKernel()
        case "mv":
            return VectorKernel()
        case "int8pack":
            return Int8PackKernel()
        case "device":
            return DeviceKernel()
        case "native":
            return NativeKernel(request.getfixturevalue("library"))
        case "tiles":
            return TileKernel(getattr(torch, kind), FORMATS, None)
    return TileKernel(getattr(torch, kind), FORMATS, request.getfixturevalue("library"))


def columns_of(format: str) -> tuple[int, ...]:
    """Odd ones, where groups allow them."""
    return (GROUPS[format], 3 * GROUPS[format]) if format in GROUPS else (176, 83)


def limit_of(kernel: Kernel, format: str, rows: int) -> float:
    if isinstance(kernel, TileKernel):
        return LIMITS[kernel.name]
    if isinstance(kernel, Int8PackKernel):
        return LIMITS["bfloat16"]
    if isinstance(kernel, NativeKernel):  # what is multiplied as integers is in 16 bits, or 8 for many rows
        return LIMITS["float32"] if format in (*FLOATS, "nf4") else 1e-4 if rows <= 8 else 1e-2
    return LIMITS[format if format in FLOATS else "float32"]


def assert_product(out: Tensor, matrix: Matrix, x: Tensor, limit: float) -> None:
    weight = all_values(matrix)
    norms = x.double().norm(dim=1)[:, None] * weight.norm(dim=1)[None]
    assert out.shape == (x.shape[0], matrix.rows)
    assert out.dtype == x.dtype
    off = ((out.double() - x.double() @ weight.T).abs() / norms).max().item()
    assert off <= limit


@pytest.mark.parametrize("format", FORMATS)
def test_products(kernel: Kernel, format: str) -> None:
    tried = False
    generator = torch.Generator().manual_seed(5)
    for columns, rows, outputs in product(columns_of(format), NUMBERS, (1, 37, 80)):
        if not kernel.takes(format, columns, rows):
            continue
        tried = True
        x = torch.randn(rows, columns + 3, generator=generator)[:, 1:-2]
        matrix = random_matrix(format, outputs, columns, seed=outputs)
        for _ in range(2):  # what is prepared for the first serves the second
            assert_product(kernel.product(matrix, x), matrix, x, limit_of(kernel, format, rows))
    assert tried == takes_some(kernel, format)


def takes_some(kernel: Kernel, format: str) -> bool:
    if isinstance(kernel, LinearKernel | VectorKernel):
        return format in FLOATS
    return format == "int8" or not isinstance(kernel, Int8PackKernel)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("format", ["float32", "float16", "int8", "int4"])
def test_states_in_16_bits(kind: torch.dtype, format: str) -> None:
    """As on a device, where the states have the weights' type. The result has it as well."""
    matrix = random_matrix(format, 37, 64)
    for kernel, rows in product((LinearKernel(), VectorKernel(), Int8PackKernel(), DeviceKernel()), (1, 4)):
        if kernel.takes(format, 64, rows):
            x = torch.randn(rows, 64).to(kind)
            assert_product(kernel.product(matrix, x), matrix, x, 1e-2)


def test_int8pack_leaves_out_what_it_reads_beyond() -> None:
    kernel = Int8PackKernel()
    assert [kernel.takes("int8", columns, 4) for columns in (16, 24, 83, 96)] == [True, False, False, True]


@pytest.mark.parametrize("in_bfloat16", [(), ("float16",), ("float16", "bfloat16", "float32", "nf4")])
def test_what_the_compiled_kernel_takes(library: Library, in_bfloat16: tuple[str, ...]) -> None:
    kernel = NativeKernel(library, in_bfloat16)
    for format in FORMATS:
        assert kernel.takes(format, 128, 8)
        many = "VNNI" in library.instructions and format not in (*FLOATS, "nf4")
        many |= "BF16" in library.instructions and format in in_bfloat16 and format != "float32"
        assert kernel.takes(format, 128, 9) == kernel.takes(format, 128, 500) == many


def test_classes_of_rows() -> None:
    assert [row_class(rows) for rows in (1, 2, 8, 9, 64, 65, 4096)] == [0, 1, 1, 2, 2, 3, 3]


def test_tiles_of_other_matrices_in_between(library: Library) -> None:
    """One workspace serves matrices of any size."""
    kernel = TileKernel(torch.float32, FORMATS, library)
    matrices = [random_matrix("int4", 37, 64), random_matrix("int8", 300, 900), random_matrix("nf4", 16, 64)]
    for i, matrix in enumerate((*matrices, *matrices)):
        if i == 4:
            kernel.release()
        x = torch.randn(3, matrix.columns)
        assert_product(kernel.product(matrix, x), matrix, x, LIMITS["float32"])


def test_only_auto_may_change_the_float_type(library: Library) -> None:
    def takes(dtype: str, format: str) -> set[str]:
        kernels = candidates(LoadOptions("some", dtype=dtype), library)
        return {kernel.name for kernel in kernels if kernel.takes(format, 128, 128)}

    assert "bfloat16" in takes("auto", "float16") & takes("auto", "int8")
    assert "bfloat16" not in takes("float16", "float16") | takes("float16", "int8")
    assert "native" not in takes("float16", "float16") | takes("float16", "nf4")
    assert takes("auto", "float32") == takes("float16", "float32") == {"linear"}
    for dtype, format in product(("auto", "float16", "bfloat16", "float32"), FORMATS):
        assert takes(dtype, format), (dtype, format)


def bound(kernels: Kernels, *matrices: Matrix) -> tuple[Matrix, ...]:
    for matrix in matrices:
        matrix.kernels = kernels
    return matrices


FOUR = ("float16", "int8", "int4", "nf4")


@pytest.mark.parametrize("rows", [1, 4, 8])
def test_together_as_one_by_one(library: Library, rows: int) -> None:
    kernels = Kernels(dict.fromkeys(FORMATS, (NativeKernel(library),) * 4))
    matrices = bound(kernels, *(random_matrix(name, 20 + 7 * i, 192) for i, name in enumerate(FOUR)))
    x = torch.randn(rows, 192)
    for _ in range(2):
        found = kernels.together(matrices, x)
        assert [tuple(out.shape) for out in found] == [(rows, matrix.rows) for matrix in matrices]
        for out, matrix in zip(found, matrices, strict=True):
            assert torch.equal(out, kernels.product(matrix, x))
            assert torch.equal(out, matrix(x))
    for some in (matrices[1:3], matrices[:0:-1], matrices[:1]):
        for out, matrix in zip(kernels.together(some, x), some, strict=True):
            assert torch.equal(out, matrix(x))


def test_together_by_several_kernels(library: Library) -> None:
    """Each matrix by that of its own format and of the number of rows."""
    device, native = DeviceKernel(), NativeKernel(library)
    kernels = Kernels({"float16": (device, native, device, device), "int8": (native, native, device, device)})
    assert kernels.names() == {"float16": ("torch", "native", "torch", "torch"),
                               "int8": ("native", "native", "torch", "torch")}  # fmt: skip
    matrices = bound(kernels, random_matrix("float16", 20, 64), random_matrix("int8", 37, 64))
    for rows in (1, 4, 40, 100):
        x = torch.randn(rows, 64)
        for out, matrix in zip(kernels.together(matrices, x), matrices, strict=True):
            assert torch.equal(out, kernels.table[matrix.format][row_class(rows)].product(matrix, x))


@pytest.mark.parametrize("way", ["native", "tiles", "linear"])
def test_nothing_of_the_memory_before_is_used(library: Library, way: str) -> None:
    kernel = {
        "native": NativeKernel(library),
        "tiles": TileKernel(torch.float32, FORMATS, library),
        "linear": LinearKernel(),
    }[way]
    format = "float16" if way == "linear" else "int4"
    kernels = Kernels(dict.fromkeys(FORMATS, (kernel,) * 4))
    matrices = (Matrix(37, 64, format), Matrix(20, 64, format))
    x = torch.randn(4, 64)
    old = [random_memory(format, matrix.rows, 64, seed=1) for matrix in matrices]
    for matrix, memory in zip(matrices, old, strict=True):
        matrix.bind(memory, kernels)
    before = [matrix(x) for matrix in matrices]
    kernels.together(matrices, x)
    for matrix in matrices:
        matrix.release()
    kernels.forget()
    for memory in old:
        memory.fill_(0xFF)  # not a number, as scales and as values
    for matrix in matrices:
        matrix.bind(random_memory(format, matrix.rows, 64, seed=2), kernels)
    found = kernels.together(matrices, x)
    for matrix, out, then in zip(matrices, found, before, strict=True):
        assert torch.equal(matrix(x), out)
        assert not torch.equal(out, then)
        assert_product(out, matrix, x, 1e-3)


def test_bound_anew_without_release(library: Library) -> None:
    matrix = random_matrix("int8", 37, 64, seed=1)
    (matrix,) = bound(Kernels({"int8": (NativeKernel(library),) * 4}), matrix)
    x = torch.randn(1, 64)
    matrix(x)
    memory = random_memory("int8", 37, 64, seed=2)
    matrix.bind(memory, matrix.kernels)
    assert_product(matrix(x), matrix_in("int8", 37, 64, memory), x, 1e-4)


class Bytes(bytearray):
    """Can be watched as it goes."""


def test_released_memory_goes(library: Library) -> None:
    source = random_memory("int4", 37, 64)
    data = Bytes(source.numpy().tobytes())
    gone = weakref.ref(data)
    matrix = Matrix(37, 64, "int4")
    kernels = Kernels(dict.fromkeys(FORMATS, (NativeKernel(library),) * 4))
    matrix.bind(torch.frombuffer(data, dtype=torch.uint8), kernels)
    kernels.together((matrix,), torch.randn(1, 64))
    del data
    assert gone() is not None
    matrix.release()
    kernels.forget()
    gc.collect()
    assert gone() is None
    assert matrix.pieces == {}
    assert matrix.prepared is None
