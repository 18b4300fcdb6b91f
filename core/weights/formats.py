"""What the formats in layouts.py mean: from floats or GGUF blocks to plain tensors, and back to floats.

N rows (outputs), K columns (inputs), G groups of a row, M rows of x, T numbers of rows, R rows at once.
Everything but quantising works on any device. Values come from float32 arithmetic in the order that
layouts.py writes, so they are the same bits wherever they are computed, and are cast at the end.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from core.checkpoint.source import Blocks
from core.weights.bnb import pack_int8, pack_nf4
from core.weights.int4 import pack_int4
from core.weights.layouts import BLOCK_FORMATS, FLOATS, GROUPS, NIBBLES, ROWS, pieces_of
from core.weights.nibbles import (
    codes_of,
    groups_in_rows,
    in_rows,
    padded,
    put_codes,
    put_groups,
    rows_at_once,
)

__all__ = ["multiply", "pack", "pack_blocks", "rows", "temporary_bytes", "values", "views"]

Pieces = Mapping[str, Tensor]
"""The tensors of a matrix by their names."""

_PER_UNIT = 0.007874015718698502  # bitsandbytes' 1 / 127
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""What the codes of "nf4" stand for: Dettmers et al. 2023, QLoRA, appendix E."""

# Packed rows, codes, indices, float32, and scales as float32, rounded up.
_TEMPORARY = {"int8": 4, "q8_0": 5, "int4": 6, "int4-128": 6, "q4_0": 6, "q4_1": 6, "nf4": 8}


def views(format: str, rows: int, columns: int, memory: Tensor) -> dict[str, Tensor]:
    """The tensors of a matrix as views of `memory`, uint8 [at least its size], aligned to 4 bytes."""
    return {
        piece.name: memory[piece.offset : piece.offset + piece.nbytes]
        .view(getattr(torch, piece.dtype))
        .view(piece.shape)
        for piece in pieces_of(format, rows, columns)
    }


def pack(format: str, weight: Tensor, pieces: Pieces) -> None:
    """Write `weight` [N, K], float16 or float32 on the CPU, into the tensors of a matrix in `format`.

    "int8" and "nf4" are always quantised from float16 by bitsandbytes on the CPU, so that the codes are the
    same everywhere. Rows that only fill up a block become zeros; nothing is written between the tensors.
    Raises ValueError for formats that only GGUF files have, and, in all that are not floats, where a value
    is not finite in float16; UserError where bitsandbytes is needed and missing.
    """
    if format in FLOATS:
        pieces["values"].copy_(weight)
    elif format == "int8":
        pack_int8(weight, pieces["values"], pieces["scales"])
    elif format == "nf4":
        pack_nf4(weight, pieces["values"], pieces["scales"])
    elif format in ("int4", "int4-128"):
        pack_int4(format, weight, pieces["values"], pieces["scales"], pieces["minima"])
    else:
        raise ValueError(f"floats are not quantised to {format}")


def pack_blocks(blocks: Blocks, format: str, pieces: Pieces) -> None:
    """Write a GGUF file's own blocks, bit for bit, into the tensors of a matrix in their own format.

    Rows stay in the order of the blocks, which is Meta's in every GGUF file of a Llama (see gguf.py). Raises
    ValueError for blocks that are not of this format. Layout of blocks: github.com/ggml-org/ggml,
    src/ggml-common.h.
    """
    count, columns = blocks.shape
    if BLOCK_FORMATS.get(blocks.type.name) != format:
        raise ValueError(f"blocks of {blocks.type} as {format}")
    at_once, group = rows_at_once(columns), GROUPS[format]
    for start in range(0, count, at_once):
        some = blocks.data[start : start + at_once].view(-1, columns // group, blocks.type.nbytes)
        if format == "q8_0":
            _put_bytes(some, {name: piece[start : start + at_once] for name, piece in pieces.items()})
        else:
            part = slice(start // ROWS, padded(start + some.shape[0]) // ROWS)
            _put_nibbles(some, {name: piece[part] for name, piece in pieces.items()})


def _put_bytes(blocks: Tensor, pieces: Pieces) -> None:
    """Q8_0 blocks, uint8 [R, G, 34]: a scale and 32 values."""
    pieces["scales"].copy_(blocks[..., :2].contiguous().view(torch.float16).squeeze(-1))
    pieces["values"].view(blocks.shape[0], -1, 32).copy_(blocks[..., 2:].view(torch.int8))


def _put_nibbles(blocks: Tensor, pieces: Pieces) -> None:
    """Q4_0 and Q4_1 blocks, uint8 [R, G, 18 or 20]: scale, minimum, columns 0-15 low and 16-31 high."""
    count, groups, _ = blocks.shape
    if count % ROWS:
        blocks = F.pad(blocks, (0, 0, 0, 0, 0, padded(count) - count))
    names = [name for name in ("scales", "minima") if name in pieces]
    numbers = blocks[..., : 2 * len(names)].contiguous().view(torch.float16)
    for i, name in enumerate(names):
        put_groups(numbers[..., i], pieces[name])
    halves = blocks[..., 2 * len(names) :]
    codes = torch.stack((halves & 15, halves >> 4), dim=2)
    put_codes(codes.view(-1, groups * 32), pieces["values"])


def values(
    format: str,
    pieces: Pieces,
    rows: int,
    columns: int,
    start: int,
    stop: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The values of the rows from `start` to `stop`, [stop - start, K], where the tensors are.

    `start` is a multiple of 16 in formats of nibbles, else ValueError. Floats of `dtype` are not copied.
    """
    if format not in NIBBLES:
        return _floats(format, {name: piece[start:stop] for name, piece in pieces.items()}, dtype)
    if start % ROWS:
        raise ValueError(f"row {start} is inside a block of {ROWS}")
    part = slice(start // ROWS, padded(stop) // ROWS)
    some = {name: groups_in_rows(pieces[name][part]) for name in ("scales", "minima") if name in pieces}
    some["values"] = in_rows(pieces["values"][part])
    return _floats(format, some, dtype)[: stop - start]


def rows(
    format: str, pieces: Pieces, numbers: Tensor, columns: int, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The values of single rows, [T, K]; `numbers` is int64 [T], on the device of the tensors."""
    if format not in NIBBLES:
        return _floats(format, {name: piece[numbers] for name, piece in pieces.items()}, dtype)
    block, row = numbers // ROWS, numbers % ROWS
    some = {name: pieces[name][block, :, row] for name in ("scales", "minima") if name in pieces}
    some["values"] = pieces["values"].view(torch.int32).squeeze(-1)[block, :, row]
    return _floats(format, some, dtype)


def multiply(format: str, pieces: Pieces, rows: int, columns: int, x: Tensor, tile_values: int) -> Tensor:
    """x [M, K] times the transposed matrix: [M, N] in the type of x, wherever the tensors are.

    About `tile_values` values of the matrix are floats at a time, `temporary_bytes` each, and the result.
    """
    if pieces["values"].dtype == x.dtype:
        return F.linear(x, pieces["values"])
    step = max(1, tile_values // (columns * ROWS)) * ROWS
    if step >= rows:
        return F.linear(x, values(format, pieces, rows, columns, 0, rows, x.dtype))
    out = x.new_empty((x.shape[0], rows))
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        out[:, start:stop] = F.linear(x, values(format, pieces, rows, columns, start, stop, x.dtype))
    return out


def temporary_bytes(format: str) -> int:
    """The most memory that `values` takes for a value besides what it returns: codes, indices, float32."""
    return _TEMPORARY.get(format, 0)


def _floats(format: str, some: Pieces, dtype: torch.dtype) -> Tensor:
    """The values [R, K] of rows that lie behind each other: codes as for `codes_of`, numbers [R, G]."""
    if format in FLOATS:
        return some["values"].to(dtype)
    if format == "int8":
        return _product(_product(some["values"], some["scales"][:, None], torch.float32), _PER_UNIT, dtype)
    scales = some["scales"].float()[..., None]
    shape = (*scales.shape[:2], GROUPS[format])
    if format == "q8_0":
        return _product(some["values"].view(shape), scales, dtype).flatten(1)
    codes = codes_of(some["values"]).view(shape)
    if format == "nf4":
        return _product(_looked_up(codes), scales, dtype).flatten(1)
    if format == "q4_0":
        signed = codes.sub_(8).view(torch.int8)  # the bytes of a negative number, below 0
        return _product(signed, scales, dtype).flatten(1)
    products = _product(codes, scales, torch.float32)
    return _sum(products, some["minima"].float()[..., None], dtype).flatten(1)


def _in_place(left: Tensor) -> bool:
    """Whether to compute in place and cast afterwards: on the CPU, which would do it in copies of its own,
    where a device computes and casts in one pass.
    """
    return left.device.type == "cpu"


def _product(left: Tensor, right: Tensor | float, dtype: torch.dtype) -> Tensor:
    """left * right in float32, as `dtype`; `left` may be overwritten."""
    if _in_place(left):
        return left.float().mul_(right).to(dtype)
    return torch.mul(left, right, out=torch.empty(left.shape, dtype=dtype, device=left.device))


def _sum(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left + right in float32, as `dtype`; `left` may be overwritten."""
    if _in_place(left):
        return left.add_(right).to(dtype)
    return torch.add(left, right, out=torch.empty(left.shape, dtype=dtype, device=left.device))


def _looked_up(codes: Tensor) -> Tensor:
    """What codes of "nf4" stand for, float32; two neighbours at a time."""
    indices = codes.view(torch.int16).to(torch.int32).flatten()
    return _nf4_pairs(codes.device).index_select(0, indices).view(torch.float32).view(codes.shape)


@cache
def _nf4_pairs(device: torch.device) -> Tensor:
    """Two float32 in 64 bits for each two codes in 16 bits: int64 [0x0F0F + 1]."""
    pairs = [
        struct.unpack("<q", struct.pack("<ff", NF4[index & 15], NF4[index >> 8 & 15]))[0]
        for index in range(0x0F0F + 1)
    ]
    return torch.tensor(pairs, dtype=torch.int64, device=device)
