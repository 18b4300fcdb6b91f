"""A long dialogue: every turn runs just what is new, and says what it says when all is prefilled anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from core.engine.commands import Configure
from core.engine.events import Cut, Ready, Reason
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


def test_the_work_of_a_turn_does_not_grow(
    start: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message is encoded once in its life, and only what is new is run."""
    engine = start(Sampling(temperature=0, max_tokens=3), chat_format="llama2", context=512)
    engine.until(Ready)
    real: Any = engine.backend._engine
    encoded: list[str] = []
    ran: list[int] = []
    encode, run = real.tokenizer.encode, real.runner.run

    def counted_encode(text: str, *, continues: bool = False) -> list[int]:
        encoded.append(text)
        ids: list[int] = encode(text, continues=continues)
        return ids

    def counted_run(tokens: list[int], *rest: Any) -> Any:
        ran.append(len(tokens))
        return run(tokens, *rest)

    monkeypatch.setattr(real.tokenizer, "encode", counted_encode)
    monkeypatch.setattr(real.runner, "run", counted_run)
    for i, letter in enumerate("abcdefghijklmnopqrst"):
        encoded.clear()
        ran.clear()
        engine.reply(letter)
        texts = [text for text in encoded if text != "[INST] Go on. [/INST]"]  # asked whether it would fit
        assert texts == [f"[INST] {letter} [/INST]"]
        assert len(encoded) - len(texts) <= 1
        message = len(real.format.encode([Turn(letter)], None))
        assert ran[0] == message + (2 if i else 0)  # the last sampled id and EOS before it
        assert ran[1:] == [1, 1]
    assert real.cache.length > real.cache.capacity // 2  # where the next turn is looked ahead to
