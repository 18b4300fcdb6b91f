"""Rows of an embedding in every format, in memory and elsewhere, against the values of the whole."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from core.engine.embedding import EmbeddingRows, RowEmbedding
from core.model.config import ModelConfig
from core.weights.formats import values, views
from core.weights.layouts import FLOATS, NIBBLES, pieces_of
from core.weights.needs import Needs, matrix_bytes, needs_of
from tests.core.matrices import random_memory

DIM = 64
VOCABULARY = 301
BOUNDS = (0, 75, 150, 225, 301)  # of the tiles, none of them a multiple of 16 rows
CONFIG = ModelConfig(
    dim=DIM, n_layers=1, n_heads=4, n_kv_heads=2, head_dim=16, hidden_dim=96, vocab_size=VOCABULARY,
    norm_eps=1e-5, tied=True,
)  # fmt: skip
FORMATS = ("float16", "bfloat16", "float32", "int8", "q8_0", "int4", "q4_0")
NUMBERS = (0, 1, 15, 16, 17, 74, 75, 76, 149, 150, 224, 225, 241, 299, 300, 75, 0)


class Elsewhere:
    """Bytes that are read, and counted."""

    def __init__(self, memory: Tensor) -> None:
        self.memory, self.count, self.calls = memory, 0, 0

    def read(self, offset: int, home: Tensor) -> None:
        assert home.dtype == torch.uint8
        assert 0 <= offset <= offset + home.nbytes <= self.memory.nbytes
        home.copy_(self.memory[offset : offset + home.nbytes])
        self.count, self.calls = self.count + home.nbytes, self.calls + 1


def nothing(offset: int, home: Tensor) -> None:
    raise AssertionError("it is in memory")


def embedding(format: str, dtype: str, *, tied: bool, tiles: bool) -> tuple[Needs, Tensor, Tensor]:
    """Needs, the bytes of an embedding as a plan has them, and all its values."""
    needs = replace(
        needs_of(CONFIG, dtype, 64, 8),
        embedding_format=format,
        tile_rows=BOUNDS if tiles else (0, VOCABULARY),
        embeddings=0 if tied else matrix_bytes(format, VOCABULARY, DIM),
    )
    assert needs.tied == tied
    memory, parts = [], []
    for i, (start, stop) in enumerate(pairwise(BOUNDS if tied and tiles else (0, VOCABULARY))):
        some = random_memory(format, stop - start, DIM, seed=i)
        gap = torch.full((matrix_bytes(format, stop - start, DIM) - some.nbytes,), 0xFF, dtype=torch.uint8)
        memory += [some, gap]
        pieces = views(format, stop - start, DIM, some)
        parts.append(values(format, pieces, stop - start, DIM, 0, stop - start, getattr(torch, dtype)))
    return needs, torch.cat(memory), torch.cat(parts)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(("tied", "tiles"), [(True, True), (True, False), (False, True), (False, False)])
def test_rows(format: str, dtype: str, tied: bool, tiles: bool) -> None:
    needs, memory, expected = embedding(format, dtype, tied=tied, tiles=tiles)
    near = EmbeddingRows(needs, DIM, VOCABULARY, memory, nothing)
    source = Elsewhere(memory)
    far = EmbeddingRows(needs, DIM, VOCABULARY, None, source.read)
    for numbers in (NUMBERS, NUMBERS[-2:], [299], range(VOCABULARY)):
        wanted = expected[torch.tensor(numbers)]
        for found in (near(numbers), far(numbers)):
            assert found.dtype == getattr(torch, dtype)
            assert torch.equal(found, wanted)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("tied", [True, False])
def test_reading_a_row_reads_little(format: str, tied: bool) -> None:
    needs, memory, _ = embedding(format, "float16", tied=tied, tiles=True)
    source = Elsewhere(memory)
    rows = EmbeddingRows(needs, DIM, VOCABULARY, None, source.read)
    assert source.calls == 0
    pieces = pieces_of(format, 16, DIM)
    most = sum(math.ceil(piece.nbytes / 16) for piece in pieces) * (16 if format in NIBBLES else 1)
    for number in (0, 77, 300):
        source.count = source.calls = 0
        rows([number])
        assert source.count == most
        assert source.calls == len(pieces)
    source.count = 0
    rows([3, 200, 3])
    assert source.count == 3 * most


def test_states_and_what_has_arrived() -> None:
    needs, memory, expected = embedding("q8_0", "bfloat16", tied=True, tiles=True)
    arrived: list[int] = []
    rows = EmbeddingRows(needs, DIM, VOCABULARY, memory, nothing)
    module = RowEmbedding(rows, torch.device("cpu"), torch.float32, arrived.append)
    found = module(torch.tensor([300, 0, 75]))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected[[300, 0, 75]].float())
    assert arrived == [3 * DIM * 2]
