"""What an unloaded model leaves behind, and what can be done with it until it is loaded again."""

from __future__ import annotations

from dataclasses import dataclass

from core.engine.commands import Load, OpenChat
from core.engine.conversation import Conversation
from core.engine.events import Moved, Opened
from core.weights.plan import Plan


@dataclass(slots=True)
class Asleep:
    """How the model was loaded, what was said, and where its weights were (None: as they were loaded)."""

    load: Load
    conversation: Conversation
    plan: Plan | None

    def rewind(self, message_id: int | None) -> Moved:
        """Move the head. KeyError for an unknown message."""
        self.conversation.rewind(message_id)
        return Moved(message_id)

    def open(self, chat: OpenChat) -> Opened:
        """Another conversation. Its replies are looked at by the model, which is not there yet."""
        self.conversation = Conversation(chat.messages, chat.head)
        return Opened(chat.chat, chat.head, chat.messages)
