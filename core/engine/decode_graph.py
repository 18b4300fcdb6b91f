"""The pass of one token as a CUDA graph: launched at once, where every weight stays on the card."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.engine.backend import Sink
from core.engine.embedding import RowEmbedding
from core.engine.events import Notice
from core.engine.placing import Placement
from core.model.cache import KVCache
from core.model.transformer import Step, Transformer
from core.weights.ledger import Ledger
from core.weights.plan import Place, Plan

if TYPE_CHECKING:
    from core.gpu.units import FastUnits

log = logging.getLogger(__name__)

Replay = Callable[[], None]


@torch.inference_mode()
def captured(work: Callable[[], None], device: torch.device) -> Replay:
    """`work` as a CUDA graph; it has run before. Raises what CUDA raises."""
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize(device)
    # Other threads of the process may go on with CUDA meanwhile.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    replay: Replay = graph.replay
    return replay


class DecodeGraph:
    """Runs one token by a graph where the plan in force leaves every matrix on the card.

    Made anew when weights have moved. Where it cannot be made, the reason is told once and `__call__` leaves
    the token to whoever asked. `capture` turns work that has run into what repeats it.
    """

    def __init__(
        self,
        model: Transformer,
        cache: KVCache,
        fast: FastUnits,
        placement: Placement,
        ledger: Ledger,
        emit: Sink,
        capture: Callable[[Callable[[], None], torch.device], Replay] = captured,
    ) -> None:
        self._model, self._cache, self._fast, self._ledger = model, cache, fast, ledger
        self._placement, self._emit, self._capture = placement, emit, capture
        self._plan: Plan | None = None
        self._replay: Replay | None = None
        device = cache.layer(0, 0).keys.device
        self._device = device
        with torch.inference_mode(False):
            self._host = torch.zeros(2, dtype=torch.int32, pin_memory=device.type == "cuda")
            self._inputs = torch.zeros(2, dtype=torch.int32, device=device)  # the token, and its position
        self._states: Tensor | None = None  # what the embedding gave, where that lies elsewhere
        self._logits = torch.empty(0)

    def __call__(self, token: int) -> Tensor | None:
        """Logits [1, V] behind `token`, which the next call overwrites; None where there is no graph.

        The token's rows are in the cache then, and count once the caller commits them.
        """
        plan = self._placement.plan
        if plan is not self._plan:
            self._plan, self._replay = plan, None
            if stays(plan):
                self._replay = self._made(token)
        if self._replay is None:
            return None
        self._stage(token)
        self._ledger.computed, self._ledger.computing = None, True
        try:
            self._replay()
        finally:
            self._ledger.computing = False
        return self._logits

    def _made(self, token: int) -> Replay | None:
        try:
            self._stage(token)
            with self._fast.attender.moved_by_others():
                self._work()  # compiles what is not compiled yet
                return self._capture(self._work, self._device)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            log.warning("no CUDA graph", exc_info=error)
            reason = str(error).splitlines()[0][:200]
            self._emit(Notice(f"each kernel is launched by itself, which is slower: {reason}", "warning"))
            return None

    def _stage(self, token: int) -> None:
        """Bring to the device what differs from token to token."""
        self._cache.layer(0, 1)  # ValueError where there is no room
        position = self._cache.length
        self._host[0], self._host[1] = token, position
        self._inputs.copy_(self._host, non_blocking=True)
        self._fast.attender.was_moved_to(position)
        embedding = self._model.tok_embeddings
        if not (isinstance(embedding, RowEmbedding) and embedding.on_device):
            states = embedding(torch.tensor([token]))
            if self._states is None:
                with torch.inference_mode(False):
                    self._states = torch.empty_like(states)
            self._states.copy_(states)

    def _work(self) -> None:
        model, attender = self._model, self._fast.attender
        attender.position.copy_(self._inputs[1:])
        embedding = model.tok_embeddings
        if isinstance(embedding, RowEmbedding) and embedding.on_device:
            x = embedding.rows_of(self._inputs[:1])
        else:
            assert self._states is not None
            x = self._states
        step = Step(self._cache, model.rope[:1], None, model.ops)  # rotations are found by the position
        for unit in model.units:
            x = unit.run(x, step)
        self._logits = model.head(x)


def stays(plan: Plan) -> bool:
    """Whether every matrix that is multiplied with is on the card for good."""
    return all(place is Place.GPU for name, place in plan.places.items() if name != "embeddings")
