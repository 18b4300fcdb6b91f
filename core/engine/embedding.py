"""The embedding: rows of a matrix in any format, from wherever its bytes are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from core.weights.formats import rows, views
from core.weights.layouts import FLOATS, pieces_of
from core.weights.needs import Needs, matrix_bytes

Read = Callable[[int, Tensor], None]
"""Puts the bytes of a weight from an offset on into memory."""


@dataclass(frozen=True, slots=True)
class _Tile:
    """Rows of a matrix with tensors of their own: from `start` to `stop`, `offset` bytes behind its begin."""

    start: int
    stop: int
    offset: int


class EmbeddingRows:
    """Rows of an embedding of `dim` columns, which lies whole in `memory`, or where `read` finds it."""

    def __init__(self, needs: Needs, dim: int, vocabulary: int, memory: Tensor | None, read: Read) -> None:
        self._format, self._dtype, self._dim = needs.embedding_format, getattr(torch, needs.dtype), dim
        # A head of floats is one matrix, whatever its tiles; others have tensors for each tile.
        whole = not needs.tied or needs.embedding_format in FLOATS
        bounds = (0, vocabulary) if whole else needs.tile_rows
        self._tiles, offset = [], 0
        for start, stop in pairwise(bounds):
            self._tiles.append(_Tile(start, stop, offset))
            offset += matrix_bytes(self._format, stop - start, dim)
        self._views = None
        if memory is not None:
            self._views = [self._view(tile, memory[tile.offset :]) for tile in self._tiles]
        self._read = read

    def __call__(self, numbers: Sequence[int]) -> Tensor:
        """[T, dim] in the model's float type, on the device of the memory or else on the CPU."""
        if self._views is None:
            return torch.cat([self._from_afar(number) for number in numbers])
        if len(self._tiles) == 1:
            return self._from_tile(0, numbers)
        places = [next(i for i, tile in enumerate(self._tiles) if number < tile.stop) for number in numbers]
        found = [self._from_tile(i, [n]) for i, n in zip(places, numbers, strict=True)]
        return torch.cat(found)

    @property
    def device(self) -> torch.device | None:
        """Where the memory is, if the matrix lies in memory at all."""
        return None if self._views is None else self._views[0]["values"].device

    def at(self, numbers: Tensor) -> Tensor:
        """[T, dim] for int32 [T] where the memory is, without a look at what stands there."""
        assert self._views is not None
        found: Tensor | None = None
        for tile, pieces in zip(self._tiles, self._views, strict=True):
            own = (numbers - tile.start).clamp(0, tile.stop - tile.start - 1)
            some = rows(self._format, pieces, own, self._dim, dtype=self._dtype)
            found = some if found is None else torch.where((numbers >= tile.start)[:, None], some, found)
        assert found is not None
        return found

    def _view(self, tile: _Tile, memory: Tensor) -> dict[str, Tensor]:
        return views(self._format, tile.stop - tile.start, self._dim, memory)

    def _from_tile(self, i: int, numbers: Sequence[int]) -> Tensor:
        assert self._views is not None
        wanted = torch.tensor([number - self._tiles[i].start for number in numbers])
        pieces = self._views[i]
        wanted = wanted.to(pieces["values"].device)
        return rows(self._format, pieces, wanted, self._dim, dtype=self._dtype)

    def _from_afar(self, number: int) -> Tensor:
        """One row, of which only its own bytes are read, or those of the rows that lie between them."""
        tile = next(tile for tile in self._tiles if number < tile.stop)
        row = number - tile.start
        pieces, row_in_block = {}, 0
        for piece in pieces_of(self._format, tile.stop - tile.start, self._dim):
            slice_bytes = piece.nbytes // piece.shape[0]
            memory = torch.empty(slice_bytes, dtype=torch.uint8)
            self._read(tile.offset + piece.offset + row // piece.rows * slice_bytes, memory)
            pieces[piece.name] = memory.view(getattr(torch, piece.dtype)).view(1, *piece.shape[1:])
            row_in_block = row % piece.rows
        return rows(self._format, pieces, torch.tensor([row_in_block]), self._dim, dtype=self._dtype)


class RowEmbedding(nn.Module):
    """An embedding of which only the rows that are asked for come to the device, as states of a type.

    `arrived` is told the bytes of rows that come from elsewhere.
    """

    def __init__(
        self, source: EmbeddingRows, device: torch.device, states: torch.dtype, arrived: Callable[[int], None]
    ) -> None:
        super().__init__()
        self._source, self._device, self._states, self._arrived = source, device, states, arrived

    @property
    def on_device(self) -> bool:
        """Whether its rows can be found on the device alone."""
        return self._source.device == self._device

    def rows_of(self, tokens: Tensor) -> Tensor:
        """States for int32 [T] on the device, where `on_device`; nothing waits for anything."""
        return self._source.at(tokens).to(self._states)

    def forward(self, tokens: Tensor) -> Tensor:
        found = self._source(tokens.tolist())
        self._arrived(found.nbytes)
        return found.to(self._device).to(self._states)
