"""The pass of one token as CUDA graphs: what stays on the card is launched in one go."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from core.engine.backend import Sink
from core.engine.embedding import RowEmbedding
from core.engine.events import Notice
from core.engine.placing import Placement
from core.model.cache import KVCache
from core.model.transformer import Step, Transformer, Unit, never
from core.weights.needs import UnitNeed
from core.weights.plan import Place, Plan

if TYPE_CHECKING:
    from core.gpu.units import FastUnits

log = logging.getLogger(__name__)

Replay = Callable[[], None]
Capture = Callable[[Callable[[], None], torch.device, Any], Replay]


@torch.inference_mode()
def captured(work: Callable[[], None], device: torch.device, pool: Any = None) -> Replay:
    """`work` as a CUDA graph; it has run before. Raises what CUDA raises.

    Graphs of one `pool` share their memory: they are run in the order in which they were captured.
    """
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize(device)
    stream = torch.cuda.current_stream(device)
    try:
        # Other threads of the process may go on with CUDA meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            work()
    finally:
        torch.cuda.set_stream(stream)  # a capture that fails at its end leaves its own behind
    replay: Replay = graph.replay
    return replay


@dataclass(slots=True, eq=False)
class Run:
    """Units that follow each other and stay on the card, and the graph of them once it is made.

    `ends` is True with the output head behind them. `given` [1, dim] is what they begin with; without it
    they begin with the token. `made` is what came of them: states [1, dim], or logits [1, V].
    """

    units: list[Unit] = field(default_factory=list)
    ends: bool = False
    given: Tensor | None = None
    made: Tensor = field(default_factory=lambda: torch.empty(0))
    replay: Replay | None = None


class DecodeGraph:
    """Runs one token by a graph for each run of units that the plan in force leaves on the card.

    What is streamed or computed on the CPU comes between them, unit by unit. Where everything stays, all is
    one graph, from the token to its logits. Graphs are made when they are first needed, and anew when
    weights have moved. Where one cannot be made, the reason is told once for each placement, and `__call__`
    leaves the token to whoever asked. `capture` turns work that has run into what repeats it.
    """

    def __init__(
        self,
        model: Transformer,
        cache: KVCache,
        fast: FastUnits,
        placement: Placement,
        emit: Sink,
        capture: Capture = captured,
    ) -> None:
        self._model, self._cache, self._fast = model, cache, fast
        self._placement, self._emit, self._capture = placement, emit, capture
        self._binding: int | None = None
        self._runs: dict[str, Run] = {}  # by the names of their units
        self._head: Run | None = None  # the run that ends with the output head
        self._pool: Any = None
        device = cache.layer(0, 0).keys.device
        self._device = device
        with torch.inference_mode(False):
            self._host = torch.zeros(2, dtype=torch.int32, pin_memory=device.type == "cuda")
            self._inputs = torch.zeros(2, dtype=torch.int32, device=device)  # a position, and the token there

    def __call__(self, token: int, cancelled: Callable[[], bool] = never) -> Tensor | None:
        """Logits [1, V] behind `token`, which the next call overwrites; None where there is no graph.

        The token's rows are in the cache then, and count once the caller commits them. Raises Cancelled.
        """
        if self._placement.bound != self._binding:
            self._cut(self._placement.plan)
            self._binding = self._placement.bound
        if not self._runs and self._head is None:
            return None
        self._stage(token)
        try:
            return self._logits(token, cancelled)
        except _NotCaptured as error:
            self._runs, self._head = {}, None
            log.warning("no CUDA graph", exc_info=error.reason)
            reason = str(error.reason).splitlines()[0][:200]
            self._emit(Notice(f"each kernel is launched by itself, which is slower: {reason}", "warning"))
            return None

    def _cut(self, plan: Plan) -> None:
        """Find the runs under a plan."""
        self._runs, self._head = {}, None
        self._fast.attender.position = self._inputs[:1]
        model, run = self._model, None
        for need, unit in zip(plan.needs.units, model.units, strict=False):
            if not (unit.name in self._fast.names and _stays(need, plan)):
                run = None
                continue
            run = run or Run()
            run.units.append(unit)
            self._runs[unit.name] = run
        if plan.places["output"] is Place.GPU:
            self._head = run = run or Run()
            run.ends = True
        begins = self._runs.get(model.units[0].name) if self._embeds else None
        with torch.inference_mode(False):
            for one in {*self._runs.values(), *([self._head] if self._head else ())}:
                if one is not begins:
                    one.given = torch.zeros(1, model.config.dim, dtype=self._fast.states, device=self._device)
        self._pool = torch.cuda.graph_pool_handle() if self._device.type == "cuda" else None

    @property
    def _embeds(self) -> bool:
        """Whether the token's states can be found on the card."""
        embedding = self._model.tok_embeddings
        return isinstance(embedding, RowEmbedding) and embedding.on_device

    def _stage(self, token: int) -> None:
        """Bring to the device what differs from token to token."""
        self._cache.layer(0, 1)  # ValueError where there is no room
        position = self._cache.length
        self._host[0], self._host[1] = position, token
        self._inputs.copy_(self._host, non_blocking=True)
        self._fast.attender.was_moved_to(position)

    def _logits(self, token: int, cancelled: Callable[[], bool]) -> Tensor:
        model = self._model
        first = self._runs.get(model.units[0].name)
        x = self._inputs  # not looked at where the first run begins with the token
        if first is None or first.given is not None:
            x = model.tok_embeddings(torch.tensor([token]))
        step = self._step_at(self._cache.length)
        for unit in model.units.walk(cancelled):
            run = self._runs.get(unit.name)
            if run is None:
                x = unit.run(x, step)
            elif unit is run.units[0]:
                x = self._made(run, x)
        if self._head is None:
            return model.head(x, cancelled)
        return x if self._head.units else self._made(self._head, x)

    def _step_at(self, position: int) -> Step:
        model = self._model
        return Step(self._cache, model.rope[position : position + 1], None, model.ops)

    def _made(self, run: Run, x: Tensor) -> Tensor:
        """What a run makes of states x [1, dim]."""
        if run.given is not None:
            run.given.copy_(x)
        if run.replay is None:
            with self._fast.attender.moved_by_others():
                try:
                    self._work(run)  # compiles what is not compiled yet
                    run.replay = self._capture(lambda: self._work(run), self._device, self._pool)
                except torch.OutOfMemoryError:
                    raise
                except RuntimeError as error:
                    raise _NotCaptured(error) from error
        run.replay()
        return run.made

    def _work(self, run: Run) -> None:
        x = run.given
        if x is None:
            embedding = self._model.tok_embeddings
            assert isinstance(embedding, RowEmbedding)
            x = embedding.rows_of(self._inputs[1:])
        step = self._step_at(0)  # the units of one row find what they need by the position on the card
        for unit in run.units:
            x = unit.run(x, step)
        run.made = self._model.head(x) if run.ends else x


class _NotCaptured(Exception):
    def __init__(self, reason: RuntimeError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _stays(unit: UnitNeed, plan: Plan) -> bool:
    """Whether every matrix of a unit is on the card for good."""
    return all(plan.places[weight.name] is Place.GPU for weight in unit.weights)
