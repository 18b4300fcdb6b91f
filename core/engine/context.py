"""What of a conversation a prompt holds: all of it, or what is left once the oldest exchanges have gone."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.engine.conversation import Message

KEPT = 0.6
"""The most of the context that is used once exchanges have left it, so that the next turns fit again."""

Exchange = tuple[Message, Message | None]
"""A message and its reply, None while it has none."""


class TooLong(Exception):
    """Not even the last message alone fits: `tokens` of prompt are for a context of `capacity`."""

    def __init__(self, tokens: int, capacity: int) -> None:
        super().__init__(f"{tokens} tokens for a context of {capacity}")
        self.tokens, self.capacity = tokens, capacity


@dataclass(frozen=True, slots=True)
class Prompt:
    """`tokens` to be in the cache before the next is sampled. `start` is the message they begin with, None
    for the first one of all; `left` of the exchanges after the former start had to go.
    """

    tokens: list[int]
    start: int | None
    left: int = 0


def exchanges(path: Sequence[Message]) -> list[Exchange]:
    """The messages of a path with their replies."""
    pairs: list[Exchange] = []
    for message in path:
        if message.role == "user":
            pairs.append((message, None))
        elif pairs:
            pairs[-1] = (pairs[-1][0], message)
    return pairs


def room(capacity: int, max_tokens: int) -> int:
    """How many tokens must be free for a reply, or exchanges leave: an eighth of the context at most."""
    return max(1, min(max_tokens, capacity // 8))


def fit(
    turns: Sequence[Exchange],
    start: int | None,
    encode: Callable[[Sequence[Exchange]], list[int]],
    capacity: int,
    free: int,
) -> Prompt:
    """The prompt of `turns` from the message `start` on, with `free` tokens of `capacity` left for the reply.

    Where that is not to be had, the fewest of the oldest exchanges leave after which at most KEPT of the
    context is used; the last one always stays, whatever room it leaves. Raises TooLong.
    """
    last = len(turns) - 1
    first = next((i for i, (user, _) in enumerate(turns) if user.id == start), 0)
    tokens = encode(turns[first:])
    if len(tokens) + free <= capacity or (first == last and len(tokens) < capacity):
        return Prompt(tokens, start)
    if first == last:
        raise TooLong(len(tokens), capacity)
    bound = int(capacity * KEPT)
    # Prompts get shorter from each exchange to the next; True sorts behind False.
    candidates = range(first + 1, last)
    k = candidates.start + bisect_left(candidates, True, key=lambda i: len(encode(turns[i:])) <= bound)
    tokens = encode(turns[k:])
    if len(tokens) >= capacity:
        raise TooLong(len(tokens), capacity)
    return Prompt(tokens, turns[k][0].id, k - first)
