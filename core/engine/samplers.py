"""The samplers of an engine: where the logits are."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from core.engine.sampling_graph import CapturedChoice
from core.options import Sampling
from core.sampling.device_sampler import DeviceSampler
from core.sampling.on_device import SamplingBuffers
from core.sampling.sampler import Sampler


class Samplers:
    """Makes a sampler for each reply. On a card all work in the same buffers, by the same graph."""

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        """On a CUDA device it takes memory. Raises torch.OutOfMemoryError."""
        self._buffers = SamplingBuffers(vocab_size, device) if device.type == "cuda" else None
        self._choice = CapturedChoice()

    def __call__(
        self,
        settings: Callable[[], Sampling],
        seed: int,
        recent: Iterable[int] = (),
        mu: float | None = None,
    ) -> Sampler | DeviceSampler:
        """See Sampler."""
        if self._buffers is None:
            return Sampler(settings, seed, recent, mu)
        return DeviceSampler(self._buffers, settings, seed, recent, mu, self._choice)
