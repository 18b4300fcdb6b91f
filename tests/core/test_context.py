"""What leaves the context, against the rule tried one exchange after another."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from core.engine.context import Exchange, TooLong, exchanges, fit, room
from core.engine.conversation import Message


def talk(sizes: Sequence[int]) -> list[Exchange]:
    """Exchanges whose prompts have these lengths."""
    return [
        (Message(2 * i, None, "user", "x" * size), Message(2 * i + 1, 2 * i, "assistant", ""))
        for i, size in enumerate(sizes)
    ]


def encode(turns: Sequence[Exchange]) -> list[int]:
    """Three tokens for the system prompt, and one for each letter."""
    return [1, 1, 1, *(user.id for user, _ in turns for _ in user.text)]


def naive(turns: Sequence[Exchange], first: int, capacity: int, free: int) -> int | None:
    """The index of the exchange to begin with; None where not even the last fits."""
    if len(encode(turns[first:])) + free <= capacity:
        return first
    if first == len(turns) - 1:
        return first if len(encode(turns[first:])) < capacity else None
    for k in range(first + 1, len(turns)):
        if len(encode(turns[k:])) <= 0.6 * capacity:
            return k
    return len(turns) - 1 if len(encode(turns[-1:])) < capacity else None


def test_the_fewest_of_the_oldest_leave() -> None:
    rng = random.Random(5)
    seen = set()
    for _ in range(3000):
        turns = talk([rng.randint(1, rng.choice((10, 40, 130))) for _ in range(rng.randint(1, 12))])
        first, capacity = rng.randrange(len(turns)), rng.choice((64, 100, 101, 128))
        free = room(capacity, rng.choice((1, 8, 512)))
        start = turns[first][0].id if first else None
        expected = naive(turns, first, capacity, free)
        if expected is None:
            with pytest.raises(TooLong) as error:
                fit(turns, start, encode, capacity, free)
            assert error.value.tokens == len(encode(turns[-1:])) >= capacity
            seen.add("too long")
            continue
        prompt = fit(turns, start, encode, capacity, free)
        assert prompt.left == expected - first
        assert prompt.tokens == encode(turns[expected:])
        assert prompt.start == (turns[expected][0].id if expected else None)
        seen.add(min(prompt.left, 2))
    assert seen == {"too long", 0, 1, 2}


def test_room_for_a_reply() -> None:
    assert room(4096, 512) == 512
    assert room(1024, 512) == 128
    assert room(1024, 3) == 3
    assert room(4, 512) == 1


def test_messages_and_their_replies() -> None:
    a, b, c = (Message(i, i - 1 or None, "user" if i % 2 else "assistant", "") for i in (1, 2, 3))
    assert exchanges([a, b, c]) == [(a, b), (c, None)]
    assert exchanges([]) == []
