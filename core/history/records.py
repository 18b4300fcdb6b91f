"""What the history hands out: lines of the list, and whole conversations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.engine.conversation import Message
from core.engine.events import Reply

Excerpt = tuple[tuple[str, bool], ...]
"""Pieces of a text, each with whether it is what was searched for."""


@dataclass(frozen=True, slots=True)
class ChatRow:
    """A line of the list. Times are seconds since 1970; `model` is that of the newest reply.

    `excerpt` shows what a search found: a piece of a message, or of the title.
    """

    id: int
    title: str
    created: float
    updated: float
    messages: int
    model: str
    excerpt: Excerpt = ()


@dataclass(frozen=True, slots=True)
class PastLaunch:
    """A way in which a model was started: `given` by the names of the command line, and when it was last."""

    given: Mapping[str, Any]
    model: str
    updated: float


@dataclass(frozen=True, slots=True)
class SavedMessage:
    """A message with what is kept beside it. All but `message` and `created` belongs to replies.

    `settings` are the sampling parameters by key and "system", as they were at its end; `reply` is None
    while it has not ended.
    """

    message: Message
    created: float
    model: str = ""
    chat_format: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    reply: Reply | None = None


@dataclass(frozen=True, slots=True)
class Chat:
    """A whole conversation. The ids of its messages are those of their rows, and grow from parent to child.

    `launch` is what its model was last started with, by the names of the command line.
    """

    id: int
    title: str
    created: float
    updated: float
    head: int | None
    model: str
    launch: Mapping[str, Any]
    messages: tuple[SavedMessage, ...]

    @property
    def system(self) -> str | None:
        """The system prompt of the newest reply on the way to the head; None for the format's own."""
        by_id = {saved.message.id: saved for saved in self.messages}
        at = self.head
        while at is not None:
            saved = by_id[at]
            if saved.settings:
                return saved.settings.get("system")
            at = saved.message.parent
        return None
