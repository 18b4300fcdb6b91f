"""A long dialogue: every turn runs just what is new, and says what it says when all is prefilled anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core.engine.events import Configure, Cut, Ready, Reason
from core.options import Sampling
from core.text.dialogue import Turn
from tests.core.engine import Engine

WORDS = ("a", "I", "it", "no", "so", "go")


@pytest.mark.parametrize(("format", "count"), [("llama2", 25), ("none", 30)])  # as many as fit
def test_tokens_run_anew_over_many_turns(start: Callable[..., Engine], format: str, count: int) -> None:
    """The new ids, the last sampled id where the reply was cut off, and the ids that end it."""
    cached, anew = (start(Sampling(temperature=0), chat_format=format, context=512) for _ in range(2))
    for engine in (cached, anew):
        engine.until(Ready)
    real: Any = cached.backend._engine
    slate: Any = anew.backend._engine
    turns: list[Turn] = []
    stopped = False
    for i in range(count):
        settings = Configure(Sampling(temperature=0, max_tokens=1 + i % 3))
        for engine in (cached, anew):
            engine.send(settings)
        slate.cache.tokens.clear()
        text = WORDS[i % len(WORDS)]
        first, second = cached.reply(text), anew.reply(text)
        assert first.tokens == second.tokens
        assert second.cached_tokens == 0
        turns.append(Turn(text))
        prompt = real.format.encode(turns, None)
        if i:
            ended = turns[-2].reply
            assert ended is not None
            before = real.format.encode([*turns[:-2], Turn(turns[-2].user)], None)
            sampled = [*before, *ended]  # the end of the turn and the new message come behind these
            assert prompt[: len(sampled)] == sampled
            never_run = 0 if stopped else 1
            assert first.prompt_tokens - first.cached_tokens == len(prompt) - len(sampled) + never_run
        turns[-1] = Turn(text, first.tokens)
        stopped = first.finish_reason is Reason.STOP
    assert not [event for event in cached.seen if isinstance(event, Cut)]  # all of it, from the first turn on
