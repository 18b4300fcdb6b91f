"""What can still be read of a damaged database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FURTHEST = 2**40  # no row has a higher number


@dataclass(frozen=True, slots=True)
class Saved:
    """How much of a damaged database is in the new one."""

    chats: int
    messages: int


def salvage(damaged: Path, connection: sqlite3.Connection) -> Saved:
    """Copy every row that can be read into the database behind `connection`, under its own number.

    A message whose predecessor is lost stands at the start of its chat; a chat whose own row is lost gets
    one from its messages.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        with closing(sqlite3.connect(damaged, isolation_level=None)) as old:
            old.text_factory = lambda data: data.decode("utf-8", "replace")
            with suppress(sqlite3.DatabaseError, UnicodeDecodeError):
                old.execute("PRAGMA writable_schema = ON")  # a trigger that is damaged matters no more
            heads = _copy_chats(old, connection)
            messages = _copy_messages(old, connection, heads)
            _set_heads(connection, heads)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return Saved(len(heads), messages)


def _copy_chats(old: sqlite3.Connection, new: sqlite3.Connection) -> dict[int, Any]:
    """The heads of the chats that could be copied; they wait for their messages."""
    columns = _columns(new, "chats")
    heads: dict[int, Any] = {}
    for row in _rows(old, "chats", columns):
        values = dict(zip(columns, row, strict=True))
        if _insert(new, "chats", values | {"head": None}):
            heads[values["id"]] = values["head"]
    return heads


def _copy_messages(old: sqlite3.Connection, new: sqlite3.Connection, heads: dict[int, Any]) -> int:
    columns = _columns(new, "messages")
    chat_of: dict[int, int] = {}
    for row in _rows(old, "messages", columns):
        values = dict(zip(columns, row, strict=True))
        chat = values["chat"]
        if not isinstance(chat, int):
            continue
        if chat not in heads:
            if not _insert(new, "chats", _stand_in(values)):
                continue
            heads[chat] = None
        if chat_of.get(values["parent"]) != chat:
            values["parent"] = None
        if _insert(new, "messages", values):
            chat_of[values["id"]] = chat
    return len(chat_of)


def _stand_in(message: dict[str, Any]) -> dict[str, Any]:
    """A chat for messages whose own is lost."""
    created = message["created"]
    title = f"recovered: {str(message['text'])[:40]}"
    return {
        "id": message["chat"], "title": title, "created": created, "updated": created, "deleted": None,
        "model": message["model"], "head": None, "launch": "{}",
    }  # fmt: skip


def _set_heads(new: sqlite3.Connection, heads: dict[int, Any]) -> None:
    """Each chat where it was, or at its newest message if that is lost."""
    for chat, head in heads.items():
        new.execute(
            "UPDATE chats SET head = coalesce((SELECT id FROM messages WHERE chat = ?1 AND id = ?2), "
            "(SELECT max(id) FROM messages WHERE chat = ?1)) WHERE id = ?1",
            (chat, head),
        )


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def _rows(old: sqlite3.Connection, table: str, columns: list[str]) -> Iterator[tuple[Any, ...]]:
    """The rows of a table that can be read, in order. What cannot is jumped over, ever further."""
    query = f"SELECT {', '.join(columns)} FROM {table} WHERE id > ? ORDER BY id"
    at, step = 0, 1
    while at < _FURTHEST:
        try:
            for row in old.execute(query, (at,)):
                if row[0] <= at:  # pages that refer to each other would go round for ever
                    raise sqlite3.DatabaseError("rows out of order")
                at, step = row[0], 1
                yield row
        except (sqlite3.DatabaseError, UnicodeDecodeError):  # SQLite quotes what it cannot read
            at += step
            step *= 2
        else:
            return


def _insert(new: sqlite3.Connection, table: str, values: dict[str, Any]) -> bool:
    """Whether the row could be taken over: what is in a damaged page may be anything."""
    marks = ", ".join(f":{name}" for name in values)
    try:
        new.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", values)
    except (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.DataError):
        return False
    return True
