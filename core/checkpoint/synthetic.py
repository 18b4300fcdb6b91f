"""Models without a file: the shapes of real Llamas, filled with fixed random bytes at memory speed."""

from __future__ import annotations

import ctypes
import hashlib
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

from core.checkpoint.source import Part, SourceFile, Weight
from core.errors import UserError
from core.model.config import ModelConfig
from core.model.shapes import SHAPES
from core.text.dialogue import ChatHints
from core.text.ids import IdTokenizer

if TYPE_CHECKING:
    import torch

REVISION = 1
"""Which function of name and shape the bytes are; raised whenever it changes."""

# Values before they repeat. A prime, so that no two rows of a matrix begin at the same one, and few
# enough bytes to stay in a processor's cache.
_PERIOD = 499_979
_VALUE_BYTES = 2  # float16
_NORM_SPREAD = 0.05
# What is added to the residual is small beside the embedding: else attention, which averages, makes all
# positions alike within some tens of layers, and every prompt is answered by the same token.
_ADDED = 0.25


class SyntheticCheckpoint:
    """A Checkpoint in the shape of a Llama, `name` "1b", "7b", "13b" or "70b", in float16.

    Values are normally distributed: those of matrices around 0 with variance 1 / columns, so that products
    have the size of what went in, of wo and w2 with less, of the embedding with variance 1; norms lie
    around 1. The bytes of a weight follow from its name and shape alone.
    """

    def __init__(self, name: str) -> None:
        """Raises UserError for a name that is not in SHAPES."""
        if name not in SHAPES:
            raise UserError(f"--synthetic {name}: there is no such shape; choose {', '.join(SHAPES)}")
        self.name = f"synthetic-{name}"
        self.config: ModelConfig = SHAPES[name]
        tables: dict[tuple[float, float], bytes] = {}
        self.weights: Mapping[str, Weight] = {
            key: self._weight(key, shape, tables) for key, shape in self.config.shapes().items()
        }
        self.notes: tuple[str, ...] = (
            f"{self.name} has random weights: prompts and replies are token ids joined by blanks, "
            "and mean nothing",
        )

    @property
    def stored_dtype(self) -> torch.dtype:
        """float16."""
        import torch

        return torch.float16

    def tokenizer(self) -> IdTokenizer:
        """Ids joined by blanks."""
        return IdTokenizer(self.config.vocab_size)

    def chat(self) -> ChatHints:
        """Those of a base model: none."""
        return ChatHints()

    def close(self) -> None:
        """Nothing is open."""

    def _weight(self, name: str, shape: tuple[int, ...], tables: dict[tuple[float, float], bytes]) -> Weight:
        mean, spread = _distribution(name, shape)
        if (mean, spread) not in tables:
            tables[mean, spread] = _table(mean, spread)
        start = zlib.crc32(f"{name} {shape}".encode()) % _PERIOD * _VALUE_BYTES
        file = SyntheticFile(Path(self.name), tables[mean, spread], start)
        part = Part(file, 0, shape, self.stored_dtype)
        file.size = part.nbytes
        return Weight(shape, (part,))


class SyntheticFile(SourceFile):
    """What stands for the file of one weight: a table of bytes, repeated from a place in it on.

    `path` is the model's name and lies nowhere. Any number of threads may read.
    """

    def __init__(self, path: Path, table: bytes, start: int) -> None:
        self.path = path
        self.size = 0
        self._table, self._start = table, start

    def read_into(self, buffer: memoryview | bytearray, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on. ValueError beyond the end."""
        count = len(buffer)
        if offset < 0 or offset + count > self.size:
            raise ValueError(f"{count} bytes at {offset} of {self.size}")
        if not count:
            return
        source = ctypes.cast(ctypes.c_char_p(self._table), ctypes.c_void_p).value
        home = ctypes.addressof(ctypes.c_ubyte.from_buffer(buffer))
        assert source is not None
        done, at = 0, (self._start + offset) % len(self._table)
        while done < count:
            length = min(count - done, len(self._table) - at)
            # Not by slices: they would keep Python's lock, and the other reading thread out.
            ctypes.memmove(home + done, source + at, length)
            done, at = done + length, 0

    def close(self) -> None:
        """Nothing is open."""


def _distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of a weight's values."""
    if len(shape) == 1:
        return 1.0, _NORM_SPREAD
    if name == "tok_embeddings.weight":
        return 0.0, 1.0
    return 0.0, shape[-1] ** -0.5 * (_ADDED if name.endswith((".wo.weight", ".w2.weight")) else 1.0)


def _table(mean: float, spread: float) -> bytes:
    """_PERIOD float16 numbers, little-endian, about normally distributed.

    The upper byte of each (sign, exponent, two bits of the fraction) is drawn from 256 quantiles of the
    distribution, the lower eight bits of the fraction evenly: fast without numpy, and the same everywhere.
    """
    quantiles = (NormalDist(mean, spread).inv_cdf((i + 0.5) / 256) for i in range(256))
    upper = bytes(struct.pack("<e", value)[1] for value in quantiles)
    noise = hashlib.shake_128(b"llama-tui").digest(2 * _PERIOD)
    table = bytearray(noise)
    table[1::2] = noise[1::2].translate(upper)
    return bytes(table)
