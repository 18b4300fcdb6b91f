"""Choosing a token as a CUDA graph: sixty small kernels launched at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from torch import Tensor

from core.engine.decode_graph import Capture, captured
from core.sampling.on_device import SamplingBuffers, choose

log = logging.getLogger(__name__)


class CapturedChoice:
    """`choose`, by a graph as soon as logits come from one place time and again, as those of a graph do.

    Each graph that their moving on made useless doubles how often they have to come from the next place, so
    that logits which wander about cost few graphs.
    """

    def __init__(self, capture: Capture = captured) -> None:
        self._capture = capture
        self._place = 0  # where the last logits lay
        self._times = 0  # how often they lay there in a row
        self._patience = 2
        self._replay: Callable[[], None] | None = None
        self._failed = False

    def __call__(self, buffers: SamplingBuffers, logits: Tensor) -> None:
        """See `choose`."""
        place = logits.data_ptr()
        if place != self._place:
            if self._replay is not None:
                self._patience *= 2
            self._place, self._times, self._replay = place, 0, None
        self._times += 1
        if self._replay is None and self._times >= self._patience and not self._failed:
            self._replay = self._made(buffers, logits)
        if self._replay is None:
            choose(buffers, logits)
        else:
            self._replay()

    def _made(self, buffers: SamplingBuffers, logits: Tensor) -> Callable[[], None] | None:
        try:
            return self._capture(partial(choose, buffers, logits), buffers.device, None)
        except RuntimeError as error:  # also where memory is short: it goes without
            log.warning("no CUDA graph of the sampler", exc_info=error)
            self._failed = True
            return None
