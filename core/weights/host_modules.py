"""Modules for weights that do not lie on the device: computed where they are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class OnHost(nn.Module):
    """A module computed on the CPU, where its weights lie, for states that live on a device.

    `instead` takes the place of what else the module is called with there.
    """

    def __init__(self, module: nn.Module, device: torch.device, *instead: Any) -> None:
        super().__init__()
        self.module = module
        self._device, self._instead = device, instead

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        there = x.to("cpu", torch.float32)
        return self.module(there, *self._instead).to(x.dtype).to(self._device)
