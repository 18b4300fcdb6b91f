"""A conversation as a tree of messages, so that an edit or another answer is a sibling, not a loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from core.engine.events import Reason

Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message. All from `tokens` on belongs to replies.

    A reply is kept as token ids: decoding and encoding again need not give the same ones. `surprise` is in
    bits, one for each of them; `mu` is Mirostat's state at its end; `reason` says why it ended, None while
    it has not. `start` is the message that its prompt began with, where older ones had left the context.
    `tokenizer` is the fingerprint of the vocabulary that the ids belong to.
    """

    id: int
    parent: int | None
    role: Role
    text: str
    tokens: tuple[int, ...] = ()
    surprise: tuple[float, ...] = ()
    mu: float | None = None
    reason: Reason | None = None
    start: int | None = None
    tokenizer: str | None = None

    @property
    def cut_off(self) -> bool:
        """Whether it is a reply that ended before its end, so that the model can go on with it."""
        return self.reason in (Reason.LENGTH, Reason.CANCELLED, Reason.ERROR)


class Conversation:
    """All messages by id, and the head: where the next one goes. A parent's id is smaller than its own."""

    def __init__(self, messages: Iterable[Message] = (), head: int | None = None) -> None:
        """ValueError unless the messages are a tree and the head is one of them."""
        self.messages: dict[int, Message] = {}
        self._children: dict[int | None, list[int]] = {}
        for message in messages:
            if message.id in self.messages:
                raise ValueError(f"two messages with the number {message.id} are no tree")
            self.put(message)
        if head is not None and head not in self.messages:
            raise ValueError(f"the head {head} is none of {len(self.messages)} messages")
        self.head = head

    def add(self, role: Role, text: str) -> Message:
        """Append behind the head, which moves to the new message."""
        message = Message(max(self.messages, default=-1) + 1, self.head, role, text)
        self.put(message)
        self.head = message.id
        return message

    def put(self, message: Message) -> None:
        """A message under its own id, in place of what was there. ValueError where its parent is not."""
        if message.parent is not None and message.parent not in self.messages:
            raise ValueError(f"message {message.id} behind {message.parent} does not grow a tree")
        if message.id not in self.messages:
            self._children.setdefault(message.parent, []).append(message.id)
        self.messages[message.id] = message

    def discard(self, message_id: int) -> None:
        """Forget a message that nothing follows. KeyError for an unknown one; ValueError for another."""
        if self.children(message_id) or self.head == message_id:
            raise ValueError(f"message {message_id} is in use")
        self._children[self.messages.pop(message_id).parent].remove(message_id)

    def rewind(self, message_id: int | None) -> None:
        """Move the head. KeyError for an unknown message."""
        if message_id is not None and message_id not in self.messages:
            raise KeyError(message_id)
        self.head = message_id

    def path(self, head: int | None = None) -> list[Message]:
        """From the first message to `head`, or to the head of the conversation."""
        found: list[Message] = []
        at = self.head if head is None else head
        while at is not None:
            found.append(self.messages[at])
            at = self.messages[at].parent
        return found[::-1]

    def children(self, message_id: int | None) -> list[Message]:
        """What was said behind a message, or at the start, in the order in which it was."""
        return [self.messages[id] for id in self._children.get(message_id, ())]

    def siblings(self, message_id: int) -> list[Message]:
        """A message and what else was said in its place, in order."""
        return self.children(self.messages[message_id].parent)

    def leaf(self, message_id: int) -> Message:
        """The end of what was said behind a message, along the newest one each time."""
        message = self.messages[message_id]
        while children := self.children(message.id):
            message = children[-1]
        return message

    @property
    def mu(self) -> float | None:
        """Mirostat's state at the head: that of the last reply on the path that has one."""
        return next((message.mu for message in reversed(self.path()) if message.mu is not None), None)

    @property
    def start(self) -> int | None:
        """The message that the context begins with at the head; None where nothing has left it."""
        replies = (message for message in reversed(self.path()) if message.role == "assistant")
        return next((message.start for message in replies), None)
