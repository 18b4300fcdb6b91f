"""A conversation as a tree of messages, so that an edit or another answer is a sibling, not a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `tokens` and `mu` (Mirostat's state at its end) belong to replies.

    A reply is kept as token ids: decoding and encoding again need not give the same ones.
    """

    id: int
    parent: int | None
    role: Literal["user", "assistant"]
    text: str
    tokens: tuple[int, ...] = ()
    mu: float | None = None


class Conversation:
    """All messages by id, and the head: where the next one goes."""

    def __init__(self) -> None:
        self.messages: dict[int, Message] = {}
        self.head: int | None = None

    def add(
        self,
        role: Literal["user", "assistant"],
        text: str,
        tokens: tuple[int, ...] = (),
        mu: float | None = None,
    ) -> Message:
        """Append behind the head, which moves to the new message."""
        message = Message(len(self.messages), self.head, role, text, tokens, mu)
        self.messages[message.id] = message
        self.head = message.id
        return message

    def rewind(self, message_id: int | None) -> None:
        """Move the head. KeyError for an unknown message."""
        if message_id is not None and message_id not in self.messages:
            raise KeyError(message_id)
        self.head = message_id

    def path(self) -> list[Message]:
        """From the first message to the head."""
        found: list[Message] = []
        at = self.head
        while at is not None:
            found.append(self.messages[at])
            at = self.messages[at].parent
        return found[::-1]

    @property
    def mu(self) -> float | None:
        """Mirostat's state at the head: that of the last reply on the path that has one."""
        return next((message.mu for message in reversed(self.path()) if message.mu is not None), None)
