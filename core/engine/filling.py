"""From a weight in a file to its final format in memory, a few rows at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core.checkpoint.reader import Reader
from core.checkpoint.source import BlockType, Weight, rows_of
from core.errors import UserError
from core.weights.formats import pack, pack_blocks, views
from core.weights.layouts import BLOCK_FORMATS, FLOATS, ROWS

_CHUNK = 4 * 2**20  # weights that are floats at once
_SHARE = 2**19  # of them that a thread quantises at once


def start_filling(reader: Reader, weight: Weight, format: str, memory: Tensor) -> None:
    """Put a matrix into `memory`, uint8 [its bytes] on any device, in `format`.

    Floats are there after the reader's `finish`, everything else at once. Raises what the reader raises, and
    UserError for values that cannot be quantised.
    """
    if format in FLOATS:
        reader.start(weight, memory.view(getattr(torch, format)).view(weight.shape))
        return
    if memory.device.type != "cpu":
        staging = torch.empty(memory.nbytes, dtype=torch.uint8)
        start_filling(reader, weight, format, staging)
        memory.copy_(staging)
        return
    rows, columns = weight.shape
    pieces = views(format, rows, columns, memory)
    step = chunk_rows(weight)
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        part = weight if (start, stop) == (0, rows) else rows_of(weight, start, stop)
        share = {name: _rows(tensor, rows, start, stop) for name, tensor in pieces.items()}
        if isinstance(weight.type, BlockType) and BLOCK_FORMATS.get(weight.type.name) == format:
            pack_blocks(reader.blocks(part), format, share)
        else:
            floats = torch.empty(part.shape, dtype=torch.float16)
            reader.fill(part, floats)
            try:
                _quantise(reader, format, floats, share)
            except ValueError:
                if floats.isfinite().all():
                    raise
                path = weight.parts[0].file.path
                raise UserError(
                    f"{path}: it has values beyond float16, which {format} cannot hold; take --quant none"
                ) from None


def chunk_rows(weight: Weight) -> int:
    """How many rows are floats at once: whole heads, and whole blocks of rows that lie beside each other."""
    least = math.lcm(ROWS, weight.head_dim or 1)
    return max(least, _CHUNK // weight.shape[1] // least * least)


def _quantise(reader: Reader, format: str, floats: Tensor, pieces: dict[str, Tensor]) -> None:
    """All rows of `floats`, by several threads."""
    rows, columns = floats.shape
    step = max(1, _SHARE // (columns * ROWS)) * ROWS

    def work(i: int) -> None:
        start, stop = i * step, min(i * step + step, rows)
        share = {name: _rows(tensor, rows, start, stop) for name, tensor in pieces.items()}
        pack(format, floats[start:stop], share)

    reader.spread(work, -(-rows // step))


def _rows(tensor: Tensor, rows: int, start: int, stop: int) -> Tensor:
    """The share of rows `start` to `stop`, of a tensor that has one entry for each, or for each ROWS."""
    if tensor.shape[0] == rows and rows > 1:
        return tensor[start:stop]
    return tensor[start // ROWS : -(-stop // ROWS)]
