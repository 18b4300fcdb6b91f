"""Whether there is what an action needs. No Textual."""

from __future__ import annotations

from tui.chat_session import ChatSession
from tui.commands import Need


def met(session: ChatSession, need: Need) -> bool:
    """True where what an action needs is there."""
    match need:
        case Need.RUN:
            return session.busy
        case Need.EXCHANGE:
            return session.conversation.last is not None
        case Need.REPLY:
            return session.conversation.last_reply is not None
        case Need.PENDING:
            return session.placement.pending
