"""Whole checkpoints read for tests, and tensors put into files."""

from __future__ import annotations

from pathlib import Path

import torch

from core.checkpoint import Checkpoint, find, open_checkpoint
from core.checkpoint.reader import Reader
from core.checkpoint.source import Part, SourceFile


def read(source: Path | Checkpoint, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """Every weight of a path or an opened checkpoint; without `dtype` in the type it is stored in."""
    checkpoint = open_checkpoint(find(str(source))) if isinstance(source, Path) else source
    got = {}
    with Reader() as reader:
        for name, weight in checkpoint.weights.items():
            got[name] = torch.empty(weight.shape, dtype=dtype or weight.float_type)
            reader.fill(weight, got[name])
    return got


def store(path: Path, *tensors: torch.Tensor) -> tuple[Part, ...]:
    """The tensors one behind the other in a file, behind 7 bytes of something else."""
    data, places = b"header:", []
    for tensor in tensors:
        places.append(len(data))
        data += tensor.contiguous().view(torch.uint8).numpy().tobytes()
    path.write_bytes(data)
    file = SourceFile(path)
    return tuple(Part(file, at, tuple(t.shape), t.dtype) for at, t in zip(places, tensors, strict=True))
