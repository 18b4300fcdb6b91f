"""Streamed equals resident on a CUDA device. Skipped, with the reason, where there is none."""

from __future__ import annotations

import pytest
import torch

from tests.streamed import StreamedSuite, greedy, small, start

__all__ = ["small"]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


class TestCuda(StreamedSuite):
    """The suite over the bus."""

    device = "cuda:0"

    @pytest.mark.parametrize(
        "names", [("feed_forward",), ("wq", "w2"), ("output", "embeddings"), ("attention",)]
    )
    def test_what_the_cpu_computes_gives_the_same_tokens(self, names: tuple[str, ...]) -> None:
        """Other kernels, so other bits, but in float32 the same greedy tokens."""
        want = greedy(start(self.device))
        for offload in (False, True):
            assert greedy(start(self.device, offload=offload, cpu_layers=names)) == want

    def test_the_allocator_keeps_to_the_budget(self) -> None:
        """In float16, with a model of 2.2 GB and a budget of 1.2 GB, the driver's context included."""
        engine = start(self.device, "1b", dtype="float16", vram=1_200_000_000, context=512)
        greedy(engine)
        plan = engine.placement.plan
        assert plan.vram is not None
        assert plan.vram <= 1_200_000_000
        assert torch.cuda.max_memory_reserved(0) + plan.budget.context <= 1_200_000_000
