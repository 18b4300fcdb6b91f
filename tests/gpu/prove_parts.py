"""What the parts of the proof share: engines on random weights, times, ceilings, and tables."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import core.engine.bind
import core.engine.compute
import core.engine.load
from core.checkpoint.reader import Reader
from core.checkpoint.source import Weight
from core.engine.events import Event, Notice
from core.engine.filling import start_filling
from core.engine.generate import generate
from core.engine.load import Engine, load
from core.options import LoadOptions, Sampling
from core.weights.formats import views
from core.weights.host import CudaRegistrar, HostBlock
from core.weights.layouts import FLOATS
from core.weights.plan import Rate, Rates

RATES = Rates(Rate(50), Rate(2500), Rate(50), Rate(1))
DEVICE = torch.device("cuda", 0)
_CODES = torch.randint(0, 256, (9_999_991,), dtype=torch.uint8)  # a prime: no two rows begin alike
PROMPT = [1 + i * 16_411 % 31_000 for i in range(64)]


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure, and what it has to reach."""

    words: str
    figure: float
    least: float

    @property
    def met(self) -> bool:
        """Whether it does."""
        return self.figure >= self.least


class Clock:
    """How long the proof may take, in seconds."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self._end


class Table:
    """Rows under a head, printed in Markdown as they come, and the bounds that they are held to."""

    def __init__(self, title: str, head: tuple[str, ...], note: str = "") -> None:
        self.bounds: list[Bound] = []
        self._started = time.perf_counter()
        print(f"### {title}\n\n{note}\n\n{_row(head)}\n{_row(('---',) * len(head))}", flush=True)

    def add(self, *cells: str) -> None:
        """A row."""
        print(_row(cells), flush=True)

    def end(self) -> list[Bound]:
        """Print what was held and what was not; the bounds that were missed."""
        print(f"\n{time.perf_counter() - self._started:.0f} s\n")
        for bound in self.bounds:
            word = "met" if bound.met else "**missed**"
            print(f"- {word}: {bound.words}: {bound.figure:.3f} (>= {bound.least:g})")
        print(flush=True)
        return [bound for bound in self.bounds if not bound.met]


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def quick_filling(reader: Reader, weight: Weight, format: str, memory: Tensor) -> None:
    """Floats as they are; packed formats as random bytes with small scales, where quantising takes minutes.

    What a product takes does not depend on what stands there.
    """
    if format in FLOATS:
        start_filling(reader, weight, format, memory)
        return
    for name, piece in views(format, *weight.shape, memory).items():
        if name == "values":
            for part in piece.view(torch.uint8).flatten().split(_CODES.numel()):
                part.copy_(_CODES[: part.numel()])
        else:
            step = (1.0 if format in ("int8", "nf4") else 0.2) / weight.shape[1] ** 0.5
            piece.fill_(-7.5 * step if name == "minima" else step)


@contextmanager
def engine_of(model: str, **options: Any) -> Iterator[tuple[Engine, list[str]]]:
    """An engine on a model of random weights, and what it warns of; afterwards all memory is given back."""
    told: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, Notice):
            told.append(event.text)

    # Neither what weights are nor how fast they were found to move at load is what is proved here.
    core.engine.bind.start_filling = quick_filling  # type: ignore[attr-defined]
    core.engine.load.rates_of = lambda *given: RATES  # type: ignore[attr-defined]
    core.engine.compute.choose = _no_choice  # type: ignore[attr-defined]
    own = {"device": "cuda", "dtype": "float16", "raw": True, "context": 1024, "kernels": "torch"}
    settings: dict[str, Any] = own | options
    engine = load(LoadOptions("", synthetic=model, **settings), emit, lambda: False)
    try:
        yield engine, told
    finally:
        engine.placement.close()
        del engine
        gc.collect()
        torch.cuda.empty_cache()


def _no_choice(sizes: Any, candidates: Any, *others: Any, **more: Any) -> Any:
    """Kernels of the CPU, which computes nothing here and so need not be measured."""
    return dict.fromkeys(sizes, (candidates[-1],) * 4)


def decoded(engine: Engine, count: int, prompt: list[int] = PROMPT) -> tuple[list[int], float]:
    """Greedy tokens after a prompt, and seconds for each after the first."""
    engine.cache.tokens.clear()
    sampler = engine.samplers(lambda: Sampling(temperature=0), 0)
    tokens, times = [], []
    run = generate(engine.runner, prompt, sampler, cancelled=lambda: False, on_prefill=lambda done: None)
    with closing(run):
        for choice in run:
            tokens.append(choice.token)
            times.append(time.perf_counter())
            if len(tokens) == count:
                break
    return tokens, (times[-1] - times[0]) / (count - 1)


def eagerly(engine: Engine, count: int) -> tuple[list[int], float]:
    """As `decoded`, each kernel launched by itself."""
    graphs, engine.runner.decode = engine.runner.decode, lambda token, cancelled: None
    try:
        return decoded(engine, count)
    finally:
        engine.runner.decode = graphs


def median_of(times: int, run: Callable[[], float]) -> float:
    """The middle one of some runs."""
    return statistics.median(run() for _ in range(times))


def device_copy_rate() -> float:
    """Bytes read and written by a copy within the card's memory, each second."""
    source = torch.zeros(2 * 10**9, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)
        torch.cuda.synchronize()

    copy()
    return 2 * source.numel() / min(_seconds(copy) for _ in range(5))


def pinned_copy_rate() -> float:
    """Bytes that one plain copy after the other brings from pinned memory, each second."""
    block = HostBlock(512 * 2**20)
    block.tensor.fill_(1)
    if not block.pin(CudaRegistrar(DEVICE)):
        raise RuntimeError("memory cannot be pinned here")
    home = torch.empty(block.nbytes, dtype=torch.uint8, device=DEVICE)

    def copy() -> None:
        for _ in range(4):
            home.copy_(block.tensor, non_blocking=True)
        torch.cuda.synchronize()

    copy()
    rate = 4 * block.nbytes / min(_seconds(copy) for _ in range(3))
    block.close()
    return rate


def _seconds(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
