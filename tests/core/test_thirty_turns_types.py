"""A long dialogue in types other than float32: a cache kept over all turns, and all prefilled anew.

The two run other numbers of rows at a time, and so other kernels. The contract: teacher-forced logits then
differ by at most twice the format's own error, which is the distance of its logits from float32's on the same
tokens, both prefilled anew. The norm is the root mean square over all logits of ten turns: each turn is
compared, but one of six tokens says little about rounding.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.engine.load import Engine, load
from core.model.transformer import never
from core.options import LoadOptions
from core.text.dialogue import Turn

WORDS = ("a big red ball", "Tom ran home", "the cat sat", "I see it", "no, do not go")
TURNS, REPLY = 30, 6

Open = Callable[..., Engine]


@pytest.fixture
def opened(stories: Path) -> Iterator[Open]:
    engines: list[Engine] = []

    def begin(**options: str) -> Engine:
        chosen = {"dtype": "float32", "device": "cpu", "chat_format": "none"} | options
        engine = load(LoadOptions(str(stories), context=512, **chosen), lambda event: None, never)  # type: ignore[arg-type]
        engines.append(engine)
        return engine

    yield begin
    for engine in engines:
        engine.placement.close()


@torch.inference_mode()
def kept(engine: Engine, prompt: list[int], reply: tuple[int, ...]) -> Tensor:
    """Logits [len(reply), V] as a reply is made: what is not in the cache yet, then token after token."""
    todo = engine.cache.rewind(prompt)
    rows = []
    for following in (*reply[:-1], None):
        while todo:
            done, logits = engine.runner.run(todo, never)
            todo = todo[done:]
        rows.append(logits)
        if following is not None:
            todo = [following]
    return torch.stack(rows)


@torch.inference_mode()
def anew(engine: Engine, prompt: list[int], reply: tuple[int, ...]) -> Tensor:
    """The same, of all tokens in one pass over an empty cache."""
    engine.cache.tokens.clear()
    return engine.model(torch.tensor([*prompt, *reply[:-1]]), engine.cache, keep=len(reply))


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


def mean(distances: list[float]) -> float:
    """The distance over all turns together, whose replies are alike in length."""
    return math.hypot(*distances) / math.sqrt(len(distances))


def dialogue(engine: Engine) -> Iterator[tuple[list[int], tuple[int, ...]]]:
    """The prompt of each turn, and the reply that all are made to give."""
    chance = random.Random(6)
    turns: list[Turn] = []
    for i in range(TURNS):
        turns.append(Turn(WORDS[i % len(WORDS)]))
        assert engine.format is not None
        prompt = engine.format.encode(turns, None)
        reply = tuple(chance.randrange(3, engine.tokenizer.vocab_size) for _ in range(REPLY))
        yield prompt, reply
        turns[-1] = Turn(turns[-1].user, reply)


@pytest.mark.parametrize(
    ("options", "fine"),
    [
        ({"dtype": "float16"}, True),
        ({"dtype": "bfloat16"}, True),
        ({"quant": "int8"}, True),
        ({"quant": "int8", "dtype": "bfloat16"}, True),
        ({"quant": "int4"}, False),
        ({"quant": "nf4"}, False),
    ],
    ids=lambda given: "-".join(given.values()) if isinstance(given, dict) else "",
)
def test_kept_and_prefilled_anew_differ_less_than_twice_the_formats_error(
    opened: Open, options: dict[str, str], fine: bool
) -> None:
    """`fine`: the bound is so narrow that it tells a cache that lacks a single token."""
    exact, cached, slate = opened(), opened(**options), opened(**options)
    turns = list(dialogue(exact))
    for ten in (turns[:10], turns[10:20], turns[20:]):
        differences, errors = [], []
        for prompt, reply in ten:
            ours, theirs = kept(cached, prompt, reply), anew(slate, prompt, reply)
            assert cached.cache.tokens == [*prompt, *reply[:-1]]
            differences.append(distance(ours, theirs))
            errors.append(distance(theirs, anew(exact, prompt, reply)))
        error = mean(errors)
        assert error > 0
        assert mean(differences) <= 2 * error
    if fine:
        at = len(prompt) - 8  # before the last message
        cached.cache.tokens.clear()
        assert distance(kept(cached, [*prompt[:at], *prompt[at + 1 :]], reply), theirs) > 2 * error
