"""Conversations to save, made up."""

from __future__ import annotations

import random

from core.engine.conversation import Message
from core.engine.events import Reason, Reply, Stats
from core.history.records import Chat, SavedMessage

WORDS = (
    *("fox", "foxes", "hen", "hens", "hunt", "hunter", "alone", "Alone", "night", "moon"),
    *("r\u00edo", "rio", "nai\u0308ve", "\u6771\u4eac", "don't", "x86_64", "\u00df"),
)


def user(id: int, parent: int | None, text: str, created: float = 0.0) -> SavedMessage:
    return SavedMessage(Message(id, parent, "user", text), created)


def reply(
    id: int, parent: int, text: str, created: float = 0.0, reason: Reason = Reason.STOP
) -> SavedMessage:
    """A finished reply with all that is kept of one."""
    tokens, surprise = tuple(range(id, id + len(text))), tuple(i / 4 for i in range(len(text)))
    stats = Stats(ttft_s=0.25, decode_tok_s=12.5, peak_rss_bytes=10**9)
    said = Reply(text, tokens, surprise, reason, 7, 4.5, 20, 12, stats)
    message = Message(id, parent, "assistant", text, tokens, surprise, 4.5, reason, None, "abc")
    return SavedMessage(message, created, "llama", "llama2", {"temperature": 0.5, "system": "Be kind."}, said)


def chat(
    *messages: SavedMessage, title: str = "a chat", updated: float = 0.0, head: int | None = None
) -> Chat:
    head = messages[-1].message.id if messages and head is None else head
    return Chat(0, title, 0.0, updated, head, "llama", {"checkpoint": "/models/llama"}, messages)


def drawn_chat(rng: random.Random, created: float) -> Chat:
    """A tree of messages of a few words each."""
    messages: list[SavedMessage] = []
    for id in range(1, rng.randint(2, 8)):
        parent = rng.choice([None, *(m.message.id for m in messages)])
        text = " ".join(rng.choices(WORDS, k=rng.randint(1, 5)))
        before = next((m.message.role for m in messages if m.message.id == parent), "assistant")
        make = user if before == "assistant" else reply
        messages.append(make(id, parent, text, created + id))  # type: ignore[arg-type]
    title = rng.choice(("", "about the moon", "HUNT"))
    return chat(*messages, title=title, updated=created + 10)
