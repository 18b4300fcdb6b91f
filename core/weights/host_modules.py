"""Modules for weights that do not lie on the device: computed where they are, or read row by row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Rows = Callable[[list[int], Tensor], None]
"""Copies the rows of these numbers into memory, uint8 [rows, bytes of a row]."""


class OnHost(nn.Module):
    """A module computed on the CPU, where its weights lie, for states that live on a device."""

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.module = module
        self._device = device

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.to("cpu")).to(self._device)


class HostEmbedding(nn.Module):
    """An embedding of which only the rows that are asked for come to the device: T * dim values."""

    def __init__(self, rows: Rows, dim: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self._rows, self._dim, self._dtype, self._device = rows, dim, dtype, device

    def forward(self, tokens: Tensor) -> Tensor:
        memory = torch.empty(len(tokens), self._dim * self._dtype.itemsize, dtype=torch.uint8)
        self._rows(tokens.tolist(), memory)
        return memory.view(self._dtype).to(self._device)
