"""Conversations into the database, as they are and as they grow."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from core.engine.conversation import Conversation, Message
from core.history.records import SavedMessage
from core.history.rows import to_row
from core.history.title import title_of

_DAY_S = 86_400.0


@dataclass(slots=True)
class Talk:
    """A conversation as the engine has it, and what of it is in the database.

    `rows` are the numbers of its messages there; `known` how many tokens a reply had when it was read.
    `dirty` messages are to be written, and where `moved`, the head; `spoken` when anything was last said.
    """

    chat: int | None = None
    title: str = ""
    tree: Conversation = field(default_factory=Conversation)
    saved: dict[int, SavedMessage] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)
    known: dict[int, int] = field(default_factory=dict)
    dirty: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)  # rows of replies that said nothing
    moved: bool = False
    began: bool = False  # since it was last written: then it is no longer deleted
    spoken: float = 0.0
    model: str = ""
    launch: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unsaved(self) -> bool:
        """Whether anything of it is not in the database yet."""
        return bool(self.dirty or self.gone or (self.moved and self.chat is not None))

    def put(self, saved: SavedMessage) -> None:
        """A message as it is now."""
        self.tree.put(saved.message)
        self.saved[saved.message.id] = saved
        self.dirty.add(saved.message.id)

    def discard(self, message_id: int) -> None:
        """A reply that said nothing, at the head of nothing."""
        self.tree.discard(message_id)
        self.saved.pop(message_id, None)
        self.dirty.discard(message_id)
        row = self.rows.pop(message_id, None)
        if row is not None:
            self.gone.add(row)

    def forget(self) -> None:
        """Nothing of it is in the database any more: all of it is to be written, as a new chat."""
        self.chat = None
        self.rows.clear()
        self.gone.clear()
        self.dirty = set(self.saved)


def save(db: sqlite3.Connection, talk: Talk, writer: str) -> Talk:
    """Write what is unsaved, and return how `talk` stands once that is committed.

    `writer` names this program's run. A row that another one has changed meanwhile is left alone; the
    message gets a row of its own beside it. LookupError where the chat is not in the database any more.
    """
    chat, rows, title = talk.chat, dict(talk.rows), talk.title
    if chat is None:
        title = title or title_of(talk.tree.messages[min(talk.saved)].text)
        created = min(saved.created for saved in talk.saved.values())
        chat = insert_chat(db, title, created, talk.spoken, talk.model, talk.launch)
    elif not db.execute("SELECT 1 FROM chats WHERE id = ?", (chat,)).fetchone():
        raise LookupError(chat)
    for number in sorted(talk.dirty):
        saved, row = talk.saved[number], rows.get(number)
        known = talk.known.get(number, -1)
        if row is None or not _update(db, row, known, _start(talk, rows, saved.message), writer, saved):
            parent = saved.message.parent
            above = None if parent is None else rows[parent]
            rows[number] = insert_message(db, chat, above, _start(talk, rows, saved.message), writer, saved)
    head = talk.tree.head
    db.execute(
        "UPDATE chats SET head = ?, updated = max(updated, ?), model = ?, launch = ?, "
        "deleted = CASE WHEN ? THEN NULL ELSE deleted END WHERE id = ?",
        (None if head is None else rows[head], talk.spoken, talk.model, json.dumps(dict(talk.launch)),
         talk.began, chat),
    )  # fmt: skip
    for row in talk.gone:
        db.execute(
            "DELETE FROM messages WHERE id = ? AND writer = ? "
            "AND NOT EXISTS (SELECT 1 FROM messages AS child WHERE child.parent = messages.id)",
            (row, writer),
        )
    return Talk(
        chat, title, talk.tree, talk.saved, rows, talk.known,
        spoken=talk.spoken, model=talk.model, launch=talk.launch,
    )  # fmt: skip


def purge(db: sqlite3.Connection, now: float) -> None:
    """Remove for good what was deleted more than a day ago."""
    db.execute("DELETE FROM chats WHERE deleted < ?", (now - _DAY_S,))


def insert_chat(
    db: sqlite3.Connection, title: str, created: float, updated: float, model: str, launch: Mapping[str, Any]
) -> int:
    """A new chat; its number."""
    cursor = db.execute(
        "INSERT INTO chats (title, created, updated, model, launch) VALUES (?, ?, ?, ?, ?)",
        (title, created, updated, model, json.dumps(dict(launch))),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def insert_message(
    db: sqlite3.Connection, chat: int, parent: int | None, start: int | None, writer: str, saved: SavedMessage
) -> int:
    """A message behind the row `parent`; its number."""
    row = to_row(saved) | {"chat": chat, "parent": parent, "start": start, "writer": writer}
    marks = ", ".join(f":{name}" for name in row)
    cursor = db.execute(f"INSERT INTO messages ({', '.join(row)}) VALUES ({marks})", row)
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _update(
    db: sqlite3.Connection, row: int, known: int, start: int | None, writer: str, saved: SavedMessage
) -> bool:
    """Whether the row could be changed: it is ours, or has `known` tokens still."""
    values = to_row(saved) | {"start": start}
    changes = ", ".join(f"{name} = :{name}" for name in (*values, "writer"))
    values |= {"writer": writer, "row": row, "known": 4 * known}
    cursor = db.execute(
        f"UPDATE messages SET {changes} WHERE id = :row AND (writer = :writer OR length(tokens) = :known)",
        values,
    )
    return cursor.rowcount == 1


def _start(talk: Talk, rows: Mapping[int, int], message: Message) -> int | None:
    """The row of the message that the context of a reply begins with."""
    return None if message.start is None else rows.get(message.start)
