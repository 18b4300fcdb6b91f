"""The generator: how prompts are cut, when the stop flag is seen, what is never run."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch

from core.engine.generate import generate
from core.engine.runner import Runner
from core.errors import Cancelled, UserError
from core.model.cache import KVCache
from core.model.config import ModelConfig
from core.model.transformer import Transformer
from core.options import Sampling
from core.sampling.sampler import Choice, Sampler

CPU = torch.device("cpu")
SIZES = ModelConfig(
    dim=32, n_layers=4, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=48, vocab_size=61, norm_eps=1e-5
)


class Counting(Transformer):
    """Notes how many rows each pass has."""

    def __init__(self) -> None:
        super().__init__(SIZES)
        self.passes: list[int] = []
        torch.manual_seed(0)
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        self.prepare(128, CPU)

    def forward(self, tokens: torch.Tensor, *arguments: object, **options: object) -> torch.Tensor:
        self.passes.append(len(tokens))
        return super().forward(tokens, *arguments, **options)  # type: ignore[arg-type]


def begin(
    model: Counting, cache: KVCache, prompt: list[int], **options: object
) -> Generator[Choice, None, None]:
    sampler = Sampler(lambda: Sampling(temperature=0), 0)
    runner = Runner(model, cache, options.pop("rows", 64))  # type: ignore[arg-type]
    defaults = {"cancelled": lambda: False, "on_prefill": lambda done: None}
    return generate(runner, prompt, sampler, **(defaults | options))  # type: ignore[arg-type]


def fresh(capacity: int = 128) -> KVCache:
    return KVCache(SIZES, capacity, torch.float32, CPU)


def test_the_prompt_is_run_in_chunks_and_progress_is_told() -> None:
    model, told = Counting(), []
    tokens = begin(model, fresh(), list(range(20)), rows=8, on_prefill=told.append)
    next(tokens)
    assert model.passes == [8, 8, 4]
    assert told == [0, 8, 16, 20]
    next(tokens)
    assert model.passes == [8, 8, 4, 1]
    assert told == [0, 8, 16, 20]


def test_within_a_chunk_progress_is_told_by_units() -> None:
    told: list[int] = []
    tokens = begin(Counting(), fresh(), list(range(24)), rows=16, on_units=told.append)
    first = next(tokens)
    # Four layers are eight units, and the end of a chunk is told by on_prefill.
    assert told == [2, 4, 6, 8, 10, 12, 14, *range(17, 24)]
    next(tokens)
    assert told[-1] == 23  # nothing of what comes behind the prompt
    assert first.token == next(begin(Counting(), fresh(), list(range(24)))).token


def test_chunks_do_not_change_greedy_tokens() -> None:
    runs = []
    for rows in (1, 3, 64):
        tokens = begin(Counting(), fresh(), list(range(20)), rows=rows)
        runs.append([next(tokens).token for _ in range(20)])
    assert runs[0] == runs[1] == runs[2]


def test_nothing_is_run_behind_the_last_token() -> None:
    model = Counting()
    tokens = begin(model, fresh(), [1, 2, 3])
    for _ in range(5):
        next(tokens)
    tokens.close()
    assert model.passes == [3, 1, 1, 1, 1]


def test_a_full_cache_ends_the_text() -> None:
    cache = fresh(8)
    assert len(list(begin(Counting(), cache, [1, 2, 3]))) == 6  # positions 3 to 7, and one that needs none
    assert cache.length == 8


@pytest.mark.parametrize("at", [0, 1, 5, 8, 11])
def test_the_stop_flag_is_seen_before_every_unit(at: int) -> None:
    """A pass has 8 units and the head; a flag raised while unit `at` runs is seen before the next."""
    model, cache, looked = Counting(), fresh(), 0

    def cancelled() -> bool:
        nonlocal looked
        looked += 1
        return looked > at

    with pytest.raises(Cancelled):
        list(begin(model, cache, list(range(20)), rows=10, cancelled=cancelled))
    assert looked == at + 1
    assert cache.length == 10 * (at // 9)  # whole passes only


def test_memory_that_runs_out_is_made_and_the_pass_is_tried_again() -> None:
    """Twice there is none: rows are halved each time, and the tokens are those of a run without trouble."""
    left = 2
    forward = Counting.forward

    def scarce(self: Counting, tokens: torch.Tensor, *rest: object, **options: object) -> torch.Tensor:
        nonlocal left
        if left and len(tokens) > 4:
            left -= 1
            raise torch.OutOfMemoryError("no memory")
        return forward(self, tokens, *rest, **options)

    class Scarce(Counting):
        forward = scarce  # type: ignore[assignment]

    model = Scarce()
    runner = Runner(model, fresh(), 16)

    def relieve() -> bool:
        runner.rows //= 2
        return True

    runner.relieve = relieve
    sampler = Sampler(lambda: Sampling(temperature=0), 0)
    tokens = generate(runner, list(range(20)), sampler, cancelled=lambda: False, on_prefill=lambda done: None)
    got = [next(tokens).token for _ in range(5)]
    whole = begin(Counting(), fresh(), list(range(20)))
    assert got == [next(whole).token for _ in range(5)]
    assert model.passes[:5] == [4, 4, 4, 4, 4]
    runner.relieve = lambda: False
    left, runner.rows = 1, 16
    with pytest.raises(UserError, match="16 tokens in one pass"):
        runner.run(list(range(20)), lambda: False)
