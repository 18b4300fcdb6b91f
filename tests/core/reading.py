"""Whole checkpoints read for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from core.checkpoint import Checkpoint, find, open_checkpoint
from core.checkpoint.reader import Reader


def read(source: Path | Checkpoint, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """Every weight of a path or an opened checkpoint; without `dtype` in the type it is stored in."""
    checkpoint = open_checkpoint(find(str(source))) if isinstance(source, Path) else source
    got = {}
    with Reader() as reader:
        for name, weight in checkpoint.weights.items():
            got[name] = torch.empty(weight.shape, dtype=dtype or weight.float_type)
            reader.fill(weight, got[name])
    return got
