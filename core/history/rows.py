"""Messages as rows of the database, and back; whole conversations out of it."""

from __future__ import annotations

import json
import sqlite3
import sys
from array import array
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from core.engine.conversation import Message
from core.engine.events import Reason, Reply, Stats
from core.history.records import Chat, SavedMessage
from core.text.sanitize import without_surrogates

RUNNING = "running"
"""The status of a reply that has not ended, as far as the database was told."""

_REASONS = {RUNNING: Reason.CANCELLED} | {str(reason): reason for reason in Reason}

COLUMNS = (
    "id", "parent", "role", "created", "status", "mu", "start", "vocabulary", "model", "chat_format",
    "settings", "stats", "text", "tokens", "surprise",
)  # fmt: skip
"""What `to_message` takes, in order."""


class Damaged(sqlite3.DatabaseError):
    """What a row holds was never written there."""


def to_row(saved: SavedMessage) -> dict[str, Any]:
    """The columns of a message but for its place in the tree."""
    message = saved.message
    reply = message.role == "assistant"
    stats = {} if saved.reply is None else saved.reply.as_json()
    for key in ("text", "tokens", "surprise"):  # they have columns of their own
        stats.pop(key, None)
    return {
        "role": message.role,
        "created": saved.created,
        "status": (message.reason or RUNNING) if reply else None,
        "mu": message.mu,
        "vocabulary": message.tokenizer,
        "model": saved.model,
        "chat_format": saved.chat_format,
        "settings": json.dumps(dict(saved.settings)),
        "stats": json.dumps(stats),
        "text": without_surrogates(message.text),
        "tokens": _pack("i", message.tokens),
        "surprise": _pack("f", message.surprise),
    }


def to_message(row: tuple[Any, ...]) -> SavedMessage:
    """The message of a row with COLUMNS. A reply that has not ended counts as one that was stopped.

    Raises Damaged.
    """
    (
        id, parent, role, created, status, mu, start, vocabulary, model, chat_format, settings, stats, text,
        packed, bits,
    ) = row  # fmt: skip
    tokens, surprise = _unpack("i", packed), _unpack("f", bits)
    reason = None
    if role == "assistant":
        reason = _REASONS.get(status)
    if role not in ("user", "assistant") or (role == "assistant" and reason is None):
        raise Damaged(f"message {id} has the role {role!r} and the status {status!r}")
    message = Message(id, parent, role, text, tokens, surprise, mu, reason, start, vocabulary)
    return SavedMessage(message, created, model, chat_format, mapping(settings), _reply(message, stats))


def _reply(message: Message, stats: str) -> Reply | None:
    known = mapping(stats)
    if message.reason is None or not known:
        return None
    named = {field.name for field in fields(Stats)}
    times = known.get("stats") or {}
    return Reply(
        text=message.text,
        tokens=message.tokens,
        surprise=message.surprise,
        finish_reason=message.reason,
        seed=known.get("seed", 0),
        mu=message.mu,
        prompt_tokens=known.get("prompt_tokens", 0),
        cached_tokens=known.get("cached_tokens", 0),
        stats=Stats(**{key: value for key, value in times.items() if key in named}),
    )


def mapping(text: str) -> Mapping[str, Any]:
    """The JSON object of a column; nothing where a damaged page has left something else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _pack(code: str, values: tuple[Any, ...]) -> bytes:
    """Numbers of 32 bits, little end first."""
    packed = array(code, values)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _unpack(code: str, data: bytes) -> tuple[Any, ...]:
    packed = array(code)
    packed.frombytes(data[: len(data) // packed.itemsize * packed.itemsize])
    if sys.byteorder == "big":
        packed.byteswap()
    return tuple(packed)


def read_chat(db: sqlite3.Connection, chat: int) -> Chat:
    """A whole conversation, deleted or not. KeyError where it is not there; Damaged."""
    query = "SELECT title, created, updated, head, model, launch FROM chats WHERE id = ?"
    row = db.execute(query, (chat,)).fetchone()
    if row is None:
        raise KeyError(chat)
    title, created, updated, head, model, launch = row
    query = f"SELECT {', '.join(COLUMNS)} FROM messages WHERE chat = ? ORDER BY id"
    messages: dict[int | None, SavedMessage] = {}
    last = 0
    for found in db.execute(query, (chat,)):
        saved = to_message(found)
        id, parent = saved.message.id, saved.message.parent
        if id <= last or (parent is not None and parent not in messages):
            raise Damaged(f"message {id} stands behind {parent} and {last}")
        messages[id] = saved
        last = id
    if head is not None and head not in messages:
        raise Damaged(f"chat {chat} ends at {head}")
    return Chat(chat, title, created, updated, head, model, mapping(launch), tuple(messages.values()))
