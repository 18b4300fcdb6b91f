"""How a matrix lies in memory in each format: plain tensors, one behind the other. No torch.

N rows (outputs), K columns (inputs). The same bytes lie in memory, in slots and in the packed file, and
cross the bus; kernels of every processor read them as they are.

- "float32", "float16", "bfloat16": `values` [N, K].
- "int8" (bitsandbytes' row-wise absmax): `values` int8 [N, K], `scales` float32 [N], the largest
  magnitude of a row; w = v * scale / 127.
- "q8_0" (GGUF's own): `values` int8 [N, K], `scales` float16 [N, K / 32]; w = v * scale.
- "int4", "int4-128" (groups of 32 and 128 columns) and "q4_1" (GGUF's own, the same as "int4"):
  `values` in nibbles, `scales` and `minima` float16 [N / 16, K / group, 16]; w = q * scale + minimum.
- "q4_0" (GGUF's own, groups of 32): `values` in nibbles, `scales` as above; w = (q - 8) * scale.
- "nf4" (bitsandbytes' 4-bit NormalFloat, groups of 64): `values` in nibbles, `scales` float32
  [N / 16, K / 64, 16], the largest magnitude of a group; w = NF4[q] * scale.

Nibbles are uint8 [N / 16, K / 8, 16, 4]: 16 rows by 8 columns are 64 bytes, one cache line. Byte i of a row
has column i in its low half and column i + 4 in its high half, so that one mask gives four neighbours, and
rows lie beside each other as vector units want them. Where N is no multiple of 16, rows of zeros follow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

ROWS = 16  # that lie beside each other in formats of nibbles
_ALIGN = 64  # bytes; where a tensor begins

_ITEM = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}
FLOATS = ("float32", "float16", "bfloat16")
GROUPS = {"q8_0": 32, "int4": 32, "int4-128": 128, "q4_0": 32, "q4_1": 32, "nf4": 64}
"""The formats that have a scale for so many columns of a row."""
QUANTISER = 1
"""Which way weights are quantised; raised whenever the same weights would become other bytes."""
NIBBLES = ("int4", "int4-128", "q4_0", "q4_1", "nf4")
BLOCK_FORMATS = {"Q8_0": "q8_0", "Q4_0": "q4_0", "Q4_1": "q4_1"}
"""The formats that hold a GGUF file's own blocks, by ggml's names."""
FORMATS = (*FLOATS, "int8", *GROUPS)


@dataclass(frozen=True, slots=True)
class Piece:
    """One plain tensor of a matrix: torch's name of its type, its shape, and where it begins, in bytes.

    An entry of its first dimension holds `rows` rows of the matrix.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    rows: int

    @property
    def nbytes(self) -> int:
        """Its own size."""
        return math.prod(self.shape) * _ITEM[self.dtype]


def fits(format: str, columns: int) -> bool:
    """Whether rows of `columns` values can be in `format`: groups never cross the end of a row."""
    return columns % GROUPS.get(format, 1) == 0


def pieces_of(format: str, rows: int, columns: int) -> tuple[Piece, ...]:
    """The tensors of a matrix. ValueError for a format that there is not, or that does not fit."""
    if format not in FORMATS or not fits(format, columns):
        raise ValueError(f"{rows} x {columns} in {format}")
    if format in FLOATS:
        return (Piece("values", format, (rows, columns), 0, 1),)
    if format == "int8":
        parts = [("values", "int8", (rows, columns), 1), ("scales", "float32", (rows,), 1)]
    elif format == "q8_0":
        groups = (rows, columns // GROUPS[format])
        parts = [("values", "int8", (rows, columns), 1), ("scales", "float16", groups, 1)]
    else:
        blocks = -(-rows // ROWS)
        grouped = (blocks, columns // GROUPS[format], ROWS)
        scale = "float32" if format == "nf4" else "float16"
        parts = [("values", "uint8", (blocks, columns // 8, ROWS, 4), ROWS), ("scales", scale, grouped, ROWS)]
        if format not in ("q4_0", "nf4"):
            parts.append(("minima", scale, grouped, ROWS))
    pieces, offset = [], 0
    for name, dtype, shape, many in parts:
        pieces.append(Piece(name, dtype, shape, offset, many))
        offset += -(-pieces[-1].nbytes // _ALIGN) * _ALIGN
    return tuple(pieces)


def size_of(format: str, rows: int, columns: int) -> int:
    """Bytes of a matrix, the gaps between its tensors included."""
    last = pieces_of(format, rows, columns)[-1]
    return last.offset + last.nbytes
