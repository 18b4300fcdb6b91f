"""Streamed equals resident on a CUDA device. Skipped, with the reason, where there is none."""

from __future__ import annotations

import pytest
import torch

from tests.streamed import StreamedSuite, small

__all__ = ["small"]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


class TestCuda(StreamedSuite):
    """The suite over the bus."""

    device = "cuda:0"
