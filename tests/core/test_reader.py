"""Weights out of files, against plain torch: every pair of types, every way of lying in a file."""

from __future__ import annotations

import itertools
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type

from core.checkpoint import reader as module
from core.checkpoint.reader import Reader
from core.checkpoint.source import BlockType, Part, SourceFile, Weight
from core.errors import Cancelled, UserError
from tests.core.reading import store

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small tensors need many pieces, the last one shorter."""
    monkeypatch.setattr(module, "_PIECE", 1000)
    monkeypatch.setattr(module, "_BLOCKS", 1000)


def fill(weight: Weight, dtype: torch.dtype) -> torch.Tensor:
    home = torch.full(weight.shape, torch.nan, dtype=dtype)
    with Reader() as reader:
        reader.fill(weight, home)
    return home


@pytest.mark.parametrize(("stored", "wanted"), [*itertools.product(FLOATS, FLOATS)])
@pytest.mark.parametrize("shape", [(5,), (1001,), (37, 24), (3, 4001)])
def test_types(tmp_path: Path, stored: torch.dtype, wanted: torch.dtype, shape: tuple[int, ...]) -> None:
    source = torch.randn(shape, dtype=torch.float64).to(stored)
    (part,) = store(tmp_path / "f", source)
    assert torch.equal(fill(Weight(shape, (part,)), wanted), source.to(wanted))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("wanted", [torch.float16, torch.float32])
def test_shards(tmp_path: Path, axis: int, wanted: torch.dtype) -> None:
    source = torch.randn(48, 40).half()
    parts = store(tmp_path / "f", *source.tensor_split([7, 21], dim=axis))
    assert torch.equal(fill(Weight((48, 40), tuple(parts), axis), wanted), source.to(wanted))


@pytest.mark.parametrize("head_dim", [2, 8, 96])
@pytest.mark.parametrize("wanted", [torch.bfloat16, torch.float16, torch.float32])
def test_hugging_faces_rotary_order(tmp_path: Path, head_dim: int, wanted: torch.dtype) -> None:
    meta = torch.randn(96, 33).bfloat16()
    theirs = meta.view(-1, head_dim // 2, 2, 33).transpose(1, 2).reshape(96, 33)
    (part,) = store(tmp_path / "f", theirs)
    assert torch.equal(fill(Weight((96, 33), (part,), head_dim=head_dim), wanted), meta.to(wanted))


READABLE = [
    kind
    for kind in Type
    if kind.name in gguf.quants._type_traits or hasattr(gguf.quants, kind.name)
    if gguf.GGML_QUANT_SIZES[kind][0] > 1
]


@pytest.mark.parametrize("kind", READABLE, ids=lambda kind: kind.name)
def test_blocks(tmp_path: Path, kind: Type) -> None:
    """Every type that the gguf package can make floats of, in pieces and whole; and its bytes as they are."""
    values, nbytes = gguf.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(0)
    data = random.integers(0, 64, (19, 2 * nbytes), dtype=np.uint8)  # scales of 64 and more are not finite
    (tmp_path / "f").write_bytes(data.tobytes())
    shape = (19, 2 * values)
    part = Part(SourceFile(tmp_path / "f"), 0, shape, BlockType(kind.name, values, nbytes))
    wanted = torch.from_numpy(gguf.quants.dequantize(data, kind))
    assert wanted.isfinite().all()
    assert torch.equal(fill(Weight(shape, (part,)), torch.float32), wanted)
    with Reader() as reader:
        blocks = reader.blocks(Weight(shape, (part,)))
    assert (blocks.type.name, blocks.shape) == (kind.name, shape)
    assert np.array_equal(blocks.data.numpy(), data)


def test_floats_are_no_blocks(tmp_path: Path) -> None:
    (part,) = store(tmp_path / "f", torch.zeros(2, 2))
    with Reader() as reader, pytest.raises(ValueError, match=r"torch\.float32"):
        reader.blocks(Weight((2, 2), (part,)))


@pytest.mark.parametrize("wanted", [torch.float32, torch.float16])
def test_ticks_add_up_to_the_bytes(tmp_path: Path, wanted: torch.dtype) -> None:
    (part,) = store(tmp_path / "f", torch.zeros(100, 50))
    ticks: list[int] = []
    with Reader(ticks.append) as reader:
        reader.fill(Weight((100, 50), (part,)), torch.empty(100, 50, dtype=wanted))
    assert len(ticks) >= 20
    assert sum(ticks) == part.nbytes == 20_000


@pytest.mark.parametrize("wanted", [torch.float32, torch.float16])
def test_a_stop_ends_it_at_the_next_piece(tmp_path: Path, wanted: torch.dtype) -> None:
    (part,) = store(tmp_path / "f", torch.ones(100, 50))
    home = torch.zeros(100, 50, dtype=wanted)

    def stop(count: int) -> None:
        raise Cancelled

    with Reader(stop) as reader, pytest.raises(Cancelled):
        reader.fill(Weight((100, 50), (part,)), home)
    rows = int(home.count_nonzero()) // 50
    assert 0 < rows <= 4 * 5  # the pieces that were being read at that moment, of 5 rows each
    before = home.clone()
    assert torch.equal(home, before)


@pytest.mark.parametrize("wanted", [torch.float32, torch.float16])
def test_a_file_that_is_too_short(tmp_path: Path, wanted: torch.dtype) -> None:
    (part,) = store(tmp_path / "f", torch.ones(100, 50))
    with (tmp_path / "f").open("r+b") as file:
        file.truncate(10_000)
    with pytest.raises(UserError, match=r"f: it ends at byte 10000, \d+ too early; it was cut short"):
        fill(Weight((100, 50), (part,)), wanted)


def test_staging_is_used_again(tmp_path: Path) -> None:
    (part,) = store(tmp_path / "f", torch.ones(1000, 50))
    with Reader() as reader:
        for _ in range(3):
            reader.fill(Weight((1000, 50), (part,)), torch.empty(1000, 50, dtype=torch.float16))
        assert len(reader._free) <= 4
