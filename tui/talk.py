"""A conversation that is about to be shown: the session, and what its screen is told at the beginning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.history.records import Chat

if TYPE_CHECKING:
    from core.history.store import History
    from tui.chat_session import ChatSession


@dataclass(frozen=True, slots=True)
class Talk:
    """`history` holds the saved conversations, None where nothing is saved; `chat` is one to go on with."""

    session: ChatSession
    model_name: str
    notes: tuple[str, ...] = ()
    history: History | None = None
    chat: Chat | None = None
