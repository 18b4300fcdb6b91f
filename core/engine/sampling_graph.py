"""Choosing a token as a CUDA graph: sixty small kernels launched at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from core.engine.decode_graph import Replay, captured
from core.sampling.on_device import SamplingBuffers, choose

log = logging.getLogger(__name__)


class CapturedChoice:
    """`choose`, by a graph as soon as logits come from one place time and again, as those of a graph do."""

    def __init__(self, capture: Callable[[Callable[[], None], torch.device], Replay] = captured) -> None:
        self._capture = capture
        self._place = 0  # where the last logits lay
        self._replay: Replay | None = None
        self._failed = False

    def __call__(self, buffers: SamplingBuffers, logits: Tensor) -> None:
        """See `choose`."""
        place = logits.data_ptr()
        if place != self._place:
            self._place, self._replay = place, None
        elif self._replay is None and not self._failed:
            self._replay = self._made(buffers, logits)
        if self._replay is None:
            choose(buffers, logits)
        else:
            self._replay()

    def _made(self, buffers: SamplingBuffers, logits: Tensor) -> Replay | None:
        try:
            return self._capture(partial(choose, buffers, logits), buffers.device)
        except RuntimeError as error:  # also where memory is short: it goes without
            log.warning("no CUDA graph of the sampler", exc_info=error)
            self._failed = True
            return None
