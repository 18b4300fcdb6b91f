"""Codes of four bits, 16 rows beside each other: between plain rows and the layout in layouts.py.

Shapes: R rows, a multiple of 16; K columns; G groups of a row. Codes are uint8, 0 to 15. Four columns are
handled at once as one 32-bit number, so that nothing here needs more than a byte a value.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.weights.layouts import ROWS

_LOW_HALVES = 0x0F0F0F0F
_CHUNK = 2**18  # values; with what is computed on them they stay near a core


def rows_at_once(columns: int) -> int:
    """How many rows of a matrix are packed at once: a multiple of 16."""
    return max(1, _CHUNK // (columns * ROWS)) * ROWS


def padded(rows: int) -> int:
    """The next multiple of 16."""
    return -(-rows // ROWS) * ROWS


def put_codes(codes: Tensor, home: Tensor) -> None:
    """Codes [R, K] into `home`, uint8 [R / 16, K / 8, 16, 4]."""
    rows, columns = codes.shape
    pairs = codes.view(torch.int32).view(rows, columns // 8, 2)
    packed = (pairs[..., 1] << 4).bitwise_or_(pairs[..., 0])
    home.view(torch.int32).squeeze(-1).copy_(packed.view(-1, ROWS, columns // 8).transpose(1, 2))


def put_groups(numbers: Tensor, home: Tensor) -> None:
    """One number for each group, [R, G], into `home`, [R / 16, G, 16]."""
    home.copy_(numbers.view(-1, ROWS, numbers.shape[-1]).transpose(1, 2))


def codes_of(packed: Tensor) -> Tensor:
    """The codes [R, K] of rows whose bytes lie behind each other: int32 [R, K / 8] of any strides."""
    codes = torch.empty((*packed.shape, 2), dtype=torch.int32, device=packed.device)
    codes[..., 0] = packed
    torch.bitwise_right_shift(packed, 4, out=codes[..., 1])
    return codes.bitwise_and_(_LOW_HALVES).view(torch.uint8).view(packed.shape[0], -1)


def in_rows(values: Tensor) -> Tensor:
    """Blocks as they lie, uint8 [R / 16, K / 8, 16, 4], as int32 [R, K / 8] in a copy."""
    packed = values.view(torch.int32).squeeze(-1)
    return packed.transpose(1, 2).reshape(-1, packed.shape[1])


def groups_in_rows(numbers: Tensor) -> Tensor:
    """Numbers of groups as they lie, [R / 16, G, 16], as [R, G] in a copy."""
    return numbers.transpose(1, 2).reshape(-1, numbers.shape[1])
