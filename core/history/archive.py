"""Conversations as documents: Markdown to read, and JSON that loses nothing."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from core.history.documents import FORMAT, VERSION
from core.history.documents import from_json as from_json
from core.history.records import Chat, SavedMessage
from core.text.sanitize import one_line, sanitize

_INLINE = re.compile(r"[\\`*_\[\]<>&#~]")
"""What Markdown may take for more than a character within a line."""


# --- Markdown -----------------------------------------------------------------------------------


def markdown(chat: Chat) -> str:
    """`chat` up to its head, to be read.

    Every message is a block quote, so that no heading, fence or tag in it can pass for one of the document.
    """
    return "\n\n".join(_blocks(chat)) + "\n"


def _blocks(chat: Chat) -> Iterator[str]:
    path = _path(chat)
    yield f"# {_plain(chat.title) or 'untitled'}"
    count = f"{len(path)} {'message' if len(path) == 1 else 'messages'}"
    yield " · ".join(filter(None, (date_text(chat.created), _plain(chat.model), count)))
    if chat.system:
        yield "System prompt:"
        yield _quoted(chat.system)
    versions: Counter[int | None] = Counter()
    numbers: dict[int, int] = {}
    for saved in chat.messages:
        versions[saved.message.parent] += 1
        numbers[saved.message.id] = versions[saved.message.parent]
    for saved in path:
        message = saved.message
        name = "You" if message.role == "user" else " · ".join(filter(None, ("Reply", _plain(saved.model))))
        if versions[message.parent] > 1:
            name += f" (version {numbers[message.id]} of {versions[message.parent]})"
        yield f"## {name}"
        yield _quoted(message.text)
        if message.role == "assistant":
            yield _figures(saved)


def _path(chat: Chat) -> list[SavedMessage]:
    """The messages on the way to the head."""
    by_id = {saved.message.id: saved for saved in chat.messages}
    path, at = [], chat.head
    while at is not None:
        path.append(by_id[at])
        at = by_id[at].message.parent
    return path[::-1]


def _figures(saved: SavedMessage) -> str:
    """How many tokens a reply has, how fast they came, and why it ended."""
    parts = [f"{len(saved.message.tokens)} tokens"]
    if saved.reply is not None and saved.reply.stats.decode_tok_s is not None:
        parts.append(f"{saved.reply.stats.decode_tok_s:.3g} tok/s")
    if saved.reply is not None:
        parts.append(f"seed {saved.reply.seed}")
    return f"*{' · '.join([*parts, saved.message.reason or 'not ended'])}*"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" if line else ">" for line in sanitize(text).strip("\n").split("\n"))


def _plain(text: str) -> str:
    """`text` in one line in which Markdown finds nothing to interpret."""
    return _INLINE.sub(r"\\\g<0>", one_line(text))


def date_text(seconds: float) -> str:
    """A time in seconds since 1970 as a local date and time: "2026-01-31 09:05"."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):  # of a damaged database
        return "no date"


# --- JSON ---------------------------------------------------------------------------------------


def to_json(chat: Chat) -> dict[str, Any]:
    """`chat` with all that is saved of it but its number, which another database gives anew.

    Plain values that JSON can write. A reply's text, tokens and reason stand for those of its figures.
    """
    return {
        "format": FORMAT,
        "version": VERSION,
        "title": chat.title,
        "created": chat.created,
        "updated": chat.updated,
        "model": chat.model,
        "launch": dict(chat.launch),
        "head": chat.head,
        "messages": [_message_json(saved) for saved in chat.messages],
    }


def json_line(chat: Chat) -> str:
    """The same as text in one line, all of it ASCII, so that many such lines are JSON Lines."""
    return json.dumps(to_json(chat), allow_nan=False)


def _message_json(saved: SavedMessage) -> dict[str, Any]:
    message, reply = saved.message, saved.reply
    common = {
        "id": message.id,
        "parent": message.parent,
        "role": message.role,
        "created": saved.created,
        "text": message.text,
    }
    if message.role == "user":
        return common
    figures = None
    if reply is not None:
        figures = {
            "seed": reply.seed,
            "prompt_tokens": reply.prompt_tokens,
            "cached_tokens": reply.cached_tokens,
            "stats": {key: _finite(value) for key, value in asdict(reply.stats).items()},
        }
    return common | {
        "reason": message.reason,
        "start": message.start,
        "mu": _finite(message.mu),
        "model": saved.model,
        "chat_format": saved.chat_format,
        "settings": dict(saved.settings),
        "figures": figures,
        "vocabulary": message.tokenizer,
        "tokens": list(message.tokens),
        "surprise": [_finite(bits) for bits in message.surprise],
    }


def _finite(value: float | None) -> float | None:
    """A number that JSON can write."""
    return value if value is not None and math.isfinite(value) else None
