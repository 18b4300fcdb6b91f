"""Weights out of files straight to a CUDA device. Skipped, with the reason, where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from core.checkpoint.reader import Reader
from core.checkpoint.source import Part, SourceFile, Weight

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wanted", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("head_dim", [None, 64])
def test_the_same_values_as_on_the_cpu(
    tmp_path: Path, stored: torch.dtype, wanted: torch.dtype, head_dim: int | None
) -> None:
    source = torch.randn(2048, 1031).to(stored)  # several pieces
    (tmp_path / "f").write_bytes(source.view(torch.uint8).numpy().tobytes())
    part = Part(SourceFile(tmp_path / "f"), 0, (2048, 1031), stored)
    weight = Weight((2048, 1031), (part,), head_dim=head_dim)
    homes = [torch.empty(2048, 1031, dtype=wanted, device=device) for device in ("cpu", "cuda")]
    with Reader() as reader:
        for home in homes:
            reader.fill(weight, home)
    assert torch.equal(homes[0], homes[1].cpu())
