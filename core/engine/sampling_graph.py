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
    """`choose`, by a graph where logits lie in the place from which they came time and again.

    Those of a decode graph always lie in one place; a prompt's first token, and a pass without a graph, have
    them elsewhere now and then, and are chosen from without one. Another place gets the graph after it was
    met so often in a row, which doubles each time: logits that wander about cost few graphs.
    """

    def __init__(self, capture: Capture = captured) -> None:
        self._capture = capture
        self._home = 0  # the place that the graph reads
        self._replay: Callable[[], None] | None = None
        self._place, self._times = 0, 0  # where the last logits without it lay, and how often in a row
        self._patience = 2
        self._failed = False

    def __call__(self, buffers: SamplingBuffers, logits: Tensor) -> None:
        """See `choose`."""
        place = logits.data_ptr()
        if self._replay is not None and place == self._home:
            self._times = 0
            self._replay()
            return
        self._times = self._times + 1 if place == self._place else 1
        self._place = place
        if self._times >= self._patience and not self._failed:
            if self._replay is not None:
                self._patience *= 2
            self._replay, self._home = self._made(buffers, logits), place
            if self._replay is not None:
                self._replay()
                return
        choose(buffers, logits)

    def _made(self, buffers: SamplingBuffers, logits: Tensor) -> Callable[[], None] | None:
        try:
            return self._capture(partial(choose, buffers, logits), buffers.device, None)
        except RuntimeError as error:  # also where memory is short: it goes without
            log.warning("no CUDA graph of the sampler", exc_info=error)
            self._failed = True
            return None
