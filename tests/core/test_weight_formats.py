"""Formats of weights: against bitsandbytes, gguf, and loops written from the text of layouts.py."""

from __future__ import annotations

import math

import gguf
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.checkpoint.source import Blocks, BlockType
from core.weights import formats, int4, nibbles
from core.weights.bnb import offline
from core.weights.formats import multiply, pack, pack_blocks, rows, temporary_bytes, values, views
from core.weights.layouts import BLOCK_FORMATS, FLOATS, FORMATS, GROUPS, NIBBLES, pieces_of, size_of

ROWS = (1, 16, 17, 40, 172)
QUANTISED = ("int8", "int4", "int4-128", "nf4")
ALL_QUANTISED = (*QUANTISED, *BLOCK_FORMATS.values())


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small matrices are packed in several goes, the last one shorter."""
    monkeypatch.setattr(nibbles, "_CHUNK", 32 * 128)


def normal(count: int, columns: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(count, columns, generator=generator) * 0.05).half()


def blank(format: str, count: int, columns: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Memory full of something else, longer than needed, and its views."""
    memory = torch.full((size_of(format, count, columns) + 100,), 0xA5, dtype=torch.uint8)
    return memory, views(format, count, columns, memory)


def random_blocks(name: str, count: int, columns: int) -> Blocks:
    """Blocks of every code, with finite scales of both signs."""
    values_, nbytes = gguf.GGML_QUANT_SIZES[Type[name]]
    generator = torch.Generator().manual_seed(3)
    data = torch.randint(256, (count, columns // values_, nbytes), dtype=torch.uint8, generator=generator)
    numbers = torch.randn(count, columns // values_, 2, generator=generator).half()
    data[..., :2] = numbers[..., :1].contiguous().view(torch.uint8)
    if name == "Q4_1":
        data[..., 2:4] = numbers[..., 1:].contiguous().view(torch.uint8)
    return Blocks(BlockType(name, values_, nbytes), (count, columns), data.flatten(1))


def packed(format: str, count: int, columns: int, seed: int = 0) -> dict[str, Tensor]:
    _, pieces = blank(format, count, columns)
    if format in BLOCK_FORMATS.values():
        (name,) = (name for name, theirs in BLOCK_FORMATS.items() if theirs == format)
        pack_blocks(random_blocks(name, count, columns), format, pieces)
    else:
        pack(format, normal(count, columns, seed), pieces)
    return pieces


def read_slowly(format: str, memory: bytes, count: int, columns: int) -> list[list[float]]:
    """Every value, byte by byte, as layouts.py has it, in float64."""

    def number(name: str, index: int) -> float:
        piece = next(piece for piece in pieces_of(format, count, columns) if piece.name == name)
        size = 4 if piece.dtype == "float32" else 2
        at = piece.offset + index * size
        kind = torch.float32 if size == 4 else torch.float16
        return torch.frombuffer(bytearray(memory[at : at + size]), dtype=kind).item()

    group, result = GROUPS.get(format, columns), []
    for n in range(count):
        line = []
        for k in range(columns):
            if format in ("int8", "q8_0"):
                code = int.from_bytes(memory[n * columns + k :][:1], signed=True)
                scale = number("scales", n * (columns // group) + k // group)
                line.append(code * scale / 127 if format == "int8" else code * scale)
                continue
            block, row, eight, column = n // 16, n % 16, k // 8, k % 8
            byte = memory[((block * (columns // 8) + eight) * 16 + row) * 4 + column % 4]
            code = byte & 15 if column < 4 else byte >> 4
            place = (block * (columns // group) + k // group) * 16 + row
            scale = number("scales", place)
            if format == "nf4":
                line.append(formats.NF4[code] * scale)
            elif format == "q4_0":
                line.append((code - 8) * scale)
            else:
                line.append(code * scale + number("minima", place))
        result.append(line)
    return result


@pytest.mark.parametrize("format", ALL_QUANTISED)
def test_bytes_mean_what_the_layout_says(format: str) -> None:
    count, columns = 19, 128
    memory = torch.randint(256, (size_of(format, count, columns),), dtype=torch.uint8)
    pieces = views(format, count, columns, memory)
    for name in pieces.keys() - {"values"}:
        pieces[name].copy_(torch.randn(pieces[name].shape))
    expected = torch.tensor(read_slowly(format, memory.numpy().tobytes(), count, columns)).double()
    found = values(format, pieces, count, columns, 0, count)
    torch.testing.assert_close(found.double(), expected, rtol=3e-7, atol=1e-6)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("count", ROWS)
def test_views_are_the_memory(format: str, count: int) -> None:
    memory, pieces = blank(format, count, 128)
    for piece in pieces_of(format, count, 128):
        view = pieces[piece.name]
        assert tuple(view.shape) == piece.shape
        assert str(view.dtype) == f"torch.{piece.dtype}"
        assert view.data_ptr() == memory.data_ptr() + piece.offset


@pytest.mark.parametrize("format", ALL_QUANTISED)
@pytest.mark.parametrize("count", ROWS)
def test_packing_fills_the_tensors_and_nothing_else(format: str, count: int) -> None:
    memory, pieces = blank(format, count, 128)
    other = memory.clone()
    for piece in pieces_of(format, count, 128):
        other[piece.offset : piece.offset + piece.nbytes] = 0
    if format in BLOCK_FORMATS.values():
        (name,) = (name for name, theirs in BLOCK_FORMATS.items() if theirs == format)
        pack_blocks(random_blocks(name, count, 128), format, pieces)
    else:
        pack(format, normal(count, 128), pieces)
    again = memory.clone()
    for piece in pieces_of(format, count, 128):
        again[piece.offset : piece.offset + piece.nbytes] = 0
        if format in NIBBLES and count % 16:
            last = pieces[piece.name][-1]
            rest = last[:, count % 16 :]  # [K / 8 or G, rows, ...]
            assert not rest.contiguous().view(torch.uint8).any(), piece.name
    assert torch.equal(again, other)


@pytest.mark.parametrize("count", ROWS)
def test_int8_is_that_of_bitsandbytes(count: int) -> None:
    weight = normal(count, 384)
    with offline() as functional:
        codes, scales, _ = functional.int8_vectorwise_quant(weight)
        expected = functional.int8_vectorwise_dequant(codes, scales)
    _, pieces = blank("int8", count, 384)
    pack("int8", weight, pieces)
    assert torch.equal(pieces["values"], codes)
    assert torch.equal(pieces["scales"], scales)
    assert torch.equal(values("int8", pieces, count, 384, 0, count), expected)


@pytest.mark.parametrize("count", ROWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_nf4_is_that_of_bitsandbytes(count: int, dtype: torch.dtype) -> None:
    weight = normal(count, 384)
    with offline() as functional:
        codes, state = functional.quantize_4bit(
            weight, blocksize=64, quant_type="nf4", compress_statistics=False
        )
        state.dtype = torch.float32
        expected = functional.dequantize_4bit(codes, state)
        assert functional.get_4bit_type("nf4", device="cpu").tolist() == [*formats.NF4]
    _, pieces = blank("nf4", count, 384)
    pack("nf4", weight, pieces)
    found = values("nf4", pieces, count, 384, 0, count, dtype)
    assert torch.equal(found, expected.to(dtype))


@pytest.mark.parametrize("format", QUANTISED)
def test_float32_gives_the_codes_of_float16(format: str) -> None:
    weight = normal(40, 128)
    (half, _), (single, _) = (blank(format, 40, 128) for _ in range(2))
    pack(format, weight, views(format, 40, 128, half))
    pack(format, weight.float(), views(format, 40, 128, single))
    assert torch.equal(half, single)


def squared_error(found: Tensor, weight: Tensor) -> float:
    return (found.double() - weight.double()).square().sum().item()


def plainly(weight: Tensor, group: int) -> Tensor:
    """From the minimum to the maximum of each group, in float64 but for the numbers that are kept."""
    groups = weight.double().view(-1, group)
    result = torch.empty_like(groups)
    for i, some in enumerate(groups):
        minimum = some.min().half().double()
        scale = ((some.max() - minimum) / 15).clamp(min=0).half().double()
        codes = ((some - minimum) / scale).round().clamp(0, 15) if scale else torch.zeros_like(some)
        result[i] = codes * scale + minimum
    return result.view(weight.shape)


@pytest.mark.parametrize("format", ["int4", "int4-128"])
@pytest.mark.parametrize("kind", ["normal", "wide", "shifted"])
def test_int4_is_better_than_the_whole_range(format: str, kind: str) -> None:
    weight = normal(40, 512)
    if kind == "wide":
        weight = (weight.float() ** 3 * 100).half()
    if kind == "shifted":
        weight = weight + 0.5
    _, pieces = blank(format, 40, 512)
    pack(format, weight, pieces)
    found = values(format, pieces, 40, 512, 0, 40)
    group = GROUPS[format]
    assert squared_error(found, weight) <= 0.9 * squared_error(plainly(weight, group), weight)
    scale = nibbles.groups_in_rows(pieces["scales"])[:40].double()[..., None]
    minimum = nibbles.groups_in_rows(pieces["minima"])[:40].double()[..., None]
    groups, off = weight.double().view(40, -1, group), (found - weight).double().view(40, -1, group).abs()
    inside = (groups >= minimum) & (groups <= minimum + 15 * scale)
    # Half a step, and the rounding of float32 arithmetic.
    assert (off <= scale * 0.5 + (groups.abs() + scale) * 2e-6)[inside].all()
    assert inside.float().mean() > 0.9


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-65504, 65504, width=16), min_size=32, max_size=32),
    st.sampled_from([1.0, 2.0**-10, 2.0**-20]),
)
def test_int4_of_any_group_is_finite_and_no_worse(numbers: list[float], factor: float) -> None:
    weight = (torch.tensor(numbers) * factor).half()[None]
    _, pieces = blank("int4", 1, 32)
    pack("int4", weight, pieces)
    found = values("int4", pieces, 1, 32, 0, 1)
    assert found.half().isfinite().all()
    if weight.abs().max() <= 60000:  # beyond, steps end where float16 ends
        assert squared_error(found, weight) <= squared_error(plainly(weight, 32), weight) * 1.00001


@pytest.mark.parametrize(
    ("numbers", "most"),
    [
        ([0.0], 0),
        ([-0.0, 0.0], 0),
        ([0.1], 0),
        ([-65504.0], 0),
        ([65504.0, -65504.0], 2e-3),  # the range is beyond float16, its steps are not
        ([65504.0, 65472.0], 1e-3),
        ([65504.0] * 31 + [-60000.0], 2e-3),
        ([6e-8, 1.2e-7], 0),  # closer than 15 steps of float16
        ([6e-8, 0.0, -6e-8], 0),
        ([0.0] * 31 + [1.0], 1e-3),
    ],
)
def test_int4_of_odd_groups(numbers: list[float], most: float) -> None:
    """`most` is the largest error, of the largest value."""
    weight = torch.tensor((numbers * 32)[:32]).half()[None]
    _, pieces = blank("int4", 1, 32)
    pack("int4", weight, pieces)
    found = values("int4", pieces, 1, 32, 0, 1)
    assert found.half().isfinite().all()
    assert (found - weight).abs().max() <= most * weight.float().abs().max()


def test_int4_keeps_what_is_on_sixteen_even_steps() -> None:
    weight = (torch.arange(32).remainder(16) * 0.25 - 3).half().repeat(17, 4)
    _, pieces = blank("int4", 17, 128)
    pack("int4", weight, pieces)
    assert torch.equal(values("int4", pieces, 17, 128, 0, 17, torch.float16), weight)


@pytest.mark.parametrize("format", ["int8", "nf4"])
def test_rows_and_groups_of_zeros(format: str) -> None:
    weight = normal(17, 128)
    weight[3] = 0
    weight[16, :64] = 0
    _, pieces = blank(format, 17, 128)
    pack(format, weight, pieces)
    found = values(format, pieces, 17, 128, 0, 17)
    assert not found[3].any()
    assert not found[16, :64].any()
    assert found[16, 64:].any()
    assert found.isfinite().all()


@pytest.mark.parametrize("format", QUANTISED)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 70000.0])
def test_what_float16_cannot_hold(format: str, bad: float) -> None:
    weight = normal(40, 128).float()
    weight[33, 70] = bad
    with pytest.raises(ValueError, match="not finite in float16"):
        pack(format, weight, blank(format, 40, 128)[1])


@pytest.mark.parametrize("format", BLOCK_FORMATS.values())
def test_floats_do_not_become_formats_of_files(format: str) -> None:
    with pytest.raises(ValueError, match=format):
        pack(format, normal(16, 128), blank(format, 16, 128)[1])


@pytest.mark.parametrize("name", BLOCK_FORMATS)
@pytest.mark.parametrize("count", ROWS)
def test_blocks_are_those_of_gguf(name: str, count: int) -> None:
    blocks, format = random_blocks(name, count, 384), BLOCK_FORMATS[name]
    _, pieces = blank(format, count, 384)
    pack_blocks(blocks, format, pieces)
    expected = torch.from_numpy(gguf.quants.dequantize(blocks.data.numpy(), Type[name]))
    assert torch.equal(values(format, pieces, count, 384, 0, count), expected)


def test_blocks_of_another_format() -> None:
    with pytest.raises(ValueError, match="Q4_0"):
        pack_blocks(random_blocks("Q4_0", 16, 128), "q4_1", blank("q4_1", 16, 128)[1])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("count", ROWS)
def test_some_rows_are_those_of_all(format: str, count: int) -> None:
    pieces = packed(format, count, 128)
    whole = values(format, pieces, count, 128, 0, count)
    assert whole.shape == (count, 128)
    for start in range(0, count, 32):
        for stop in {min(start + 5, count), min(start + 32, count)}:
            assert torch.equal(values(format, pieces, count, 128, start, stop), whole[start:stop])
    numbers = torch.tensor([count - 1, 0, count // 2, 0])
    assert torch.equal(rows(format, pieces, numbers, 128), whole[numbers])
    for dtype in (torch.float16, torch.bfloat16):
        assert torch.equal(rows(format, pieces, numbers, 128, dtype), whole[numbers].to(dtype))
        assert torch.equal(values(format, pieces, count, 128, 0, count, dtype), whole.to(dtype))


def test_blocks_of_rows_begin_at_sixteen() -> None:
    pieces = packed("int4", 40, 128)
    with pytest.raises(ValueError, match="row 8"):
        values("int4", pieces, 40, 128, 8, 24)


@pytest.mark.parametrize("format", ALL_QUANTISED)
def test_a_device_computes_the_same(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of computing on devices, on the CPU."""
    pieces = packed(format, 40, 128)
    kinds = (torch.float32, torch.float16, torch.bfloat16)
    expected = [values(format, pieces, 40, 128, 16, 40, kind) for kind in kinds]
    monkeypatch.setattr(formats, "_in_place", lambda left: False)
    for kind, there in zip(kinds, expected, strict=True):
        assert torch.equal(values(format, pieces, 40, 128, 16, 40, kind), there)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("format", FORMATS)
def test_cuda_gives_the_same_bits(format: str) -> None:
    pieces = packed(format, 4096 + 40, 1024)
    there = {name: piece.cuda() for name, piece in pieces.items()}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        values(format, there, 4096, 1024, 0, 16, dtype)  # the table of nf4 is made once
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        found = values(format, there, 4096 + 40, 1024, 0, 4096, dtype)
        most = torch.cuda.max_memory_allocated() - before - found.nbytes
        assert most <= temporary_bytes(format) * found.numel() + 2**16
        assert torch.equal(found.cpu(), values(format, pieces, 4096 + 40, 1024, 0, 4096, dtype))
    numbers = torch.tensor([4100, 0, 77])
    assert torch.equal(rows(format, there, numbers.cuda(), 1024).cpu(), rows(format, pieces, numbers, 1024))
    x = torch.randn(3, 1024)
    found = multiply(format, there, 4096 + 40, 1024, x.cuda(), 2**20).cpu()
    expected = multiply(format, pieces, 4096 + 40, 1024, x, 2**20)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("count", [17, 172])
@pytest.mark.parametrize("states", [1, 5])
def test_products(format: str, count: int, states: int) -> None:
    pieces = packed(format, count, 256)
    weight = values(format, pieces, count, 256, 0, count).double()
    x = torch.randn(states, 256, generator=torch.Generator().manual_seed(1))
    for dtype, most in ((torch.float32, 1e-6), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)):
        state = x.to(dtype)
        # As sums are rounded by the size of what is summed.
        size = state.double().abs() @ weight.abs().T
        for tile in (1, 256 * 48, 2**20):
            found = multiply(format, pieces, count, 256, state, tile)
            assert found.dtype == dtype
            assert ((found.double() - state.double() @ weight.T).abs() <= most * size).all()


def test_temporary_bytes() -> None:
    assert [temporary_bytes(format) for format in FLOATS] == [0, 0, 0]
    assert all(4 <= temporary_bytes(format) <= 8 for format in ALL_QUANTISED)


def test_the_order_of_the_ends_is_what_was_measured() -> None:
    """81 to 87 % of the squared error of the whole range are left for normal weights."""
    weight = normal(256, 1024)
    for format, most in (("int4", 0.85), ("int4-128", 0.89)):
        _, pieces = blank(format, 256, 1024)
        pack(format, weight, pieces)
        better = squared_error(values(format, pieces, 256, 1024, 0, 256), weight)
        plain = squared_error(plainly(weight, GROUPS[format]), weight)
        assert better <= most * plain, (better / plain, int4._ENDS)
