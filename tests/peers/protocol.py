"""What an engine's process speaks: a JSON object a line on stdin, one a line on stdout.

The first line out is {"ready": {...}}, or {"missing": "why"} where the engine cannot be had here. Then
{"prefill": n} and {"decode": n, "after": position} are answered with {"seconds": s}, timed around the engine
alone, and {"next": n} with {"token": t}, the likeliest one after n tokens. The end of stdin ends the process.

The standard library is all that is imported here: engines run in environments without ours.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol

_FIRST = 300  # behind control and byte tokens


class Engine(Protocol):
    """A loaded model. `about` says what it is: "version", "build" and whatever else is worth printing."""

    about: dict[str, str]

    def prefill(self, count: int) -> float:
        """Seconds for the first `count` tokens, none of them remembered, up to the logits of the last."""
        ...

    def decode(self, count: int, after: int) -> float:
        """Seconds for `count` tokens, one pass each, with `after` tokens before them."""
        ...

    def next(self, count: int) -> int:
        """The likeliest token after the first `count`."""
        ...


class Missing(Exception):
    """This engine cannot be had here; the text says why."""


def token_ids(count: int, vocab_size: int) -> list[int]:
    """The tokens that every engine is given, fixed and without meaning."""
    return [_FIRST + i * 7919 % (vocab_size - _FIRST) for i in range(count)]


def serve(make: Callable[[], Engine]) -> None:
    """Load an engine and answer until stdin ends."""
    # Libraries print what they like where stdout was; the parent must not read that.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def send(reply: dict[str, Any]) -> None:
        replies.write(json.dumps(reply) + "\n")

    try:
        engine = make()
    except ModuleNotFoundError as error:
        send({"missing": f"{sys.executable} has no module {error.name}"})
        return
    except Missing as error:
        send({"missing": str(error)})
        return
    send({"ready": engine.about})
    for line in sys.stdin:
        send(answer(engine, json.loads(line)))


def answer(engine: Engine, request: dict[str, int]) -> dict[str, Any]:
    """The reply to one request. ValueError for one that is none."""
    match request:
        case {"prefill": count}:
            return {"seconds": engine.prefill(count)}
        case {"decode": count, "after": after}:
            return {"seconds": engine.decode(count, after)}
        case {"next": count}:
            return {"token": engine.next(count)}
    raise ValueError(f"no such request: {request}")
