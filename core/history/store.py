"""Reading and tending the saved conversations: the list, a search, one of them whole."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

from core.errors import UserError
from core.history.database import Database, Notify
from core.history.launch import MODEL, usable
from core.history.records import Chat, ChatRow, Excerpt, PastLaunch
from core.history.rows import mapping, read_chat
from core.history.search import excerpt, matches, query_of
from core.history.title import clean_title
from core.history.writing import insert_chat, insert_message
from core.text.sanitize import sanitize

_LONGEST_SAID = 10_000  # characters of a message that is offered to be sent again
_LOOKED_AT = 5  # times as many messages as are wanted are looked at, since some are the same
_COUNT = "(SELECT count(*) FROM messages WHERE chat = chats.id)"
_ROW = f"SELECT id, title, created, updated, {_COUNT}, model FROM chats"


class History:
    """The saved conversations in the database at `path`, which is opened at the first call.

    Safe to call from several threads, one call at a time. `notify` is told, in a line for the user, when a
    damaged database was set aside. All methods raise UserError where the database cannot be read or
    written, and KeyError for a chat that is not there.
    """

    def __init__(self, path: Path, notify: Notify = lambda text: None) -> None:
        self._database = Database(path, notify)

    def tell(self, notify: Notify) -> None:
        """From now on `notify` is told."""
        self._database.notify = notify

    def close(self) -> None:
        """Give the file back. A later call opens it again."""
        self._database.close()

    def interrupt(self) -> None:
        """End a call that runs on another thread: it raises UserError. For a search that is out of date."""
        self._database.interrupt()

    # --- reading --------------------------------------------------------------------------------

    def rows(self, skip: int = 0, count: int = 50) -> list[ChatRow]:
        """`count` lines of the list behind the first `skip`, newest first. Deleted chats are not in it."""
        query = f"{_ROW} WHERE deleted IS NULL ORDER BY updated DESC, id DESC LIMIT ? OFFSET ?"
        return self._database.read(lambda db: [ChatRow(*row) for row in db.execute(query, (count, skip))])

    def search(self, words: str, skip: int = 0, count: int = 50) -> list[ChatRow]:
        """The chats whose messages or title have words that begin with all of `words`, newest match first.

        Where `words` holds none, all chats.
        """
        query = query_of(words)
        if query is None:
            return self.rows(skip, count)

        def find(db: sqlite3.Connection) -> list[ChatRow]:
            with closing(matches(db, query)) as found:
                page = list(islice(found, skip, skip + count))
            return [_found(db, match.chat, match.message, words) for match in page]

        return self._database.read(find)

    def latest(self) -> int | None:
        """The chat that was changed last; None where there is none."""
        newest = self.rows(0, 1)
        return newest[0].id if newest else None

    def launches(self, count: int) -> list[PastLaunch]:
        """The last `count` different ways in which models were started, newest first.

        Those that this version does not understand are left out.
        """
        query = "SELECT launch, model, max(updated) AS at FROM chats WHERE deleted IS NULL GROUP BY launch"

        def find(db: sqlite3.Connection) -> list[PastLaunch]:
            found: list[PastLaunch] = []
            for launch, model, updated in db.execute(f"{query} ORDER BY at DESC"):
                given = mapping(launch)
                understood = not given.keys().isdisjoint(MODEL) and usable(given) == given
                if understood and all(past.given != given for past in found):
                    found.append(PastLaunch(given, model, updated))
                    if len(found) == count:
                        break
            return found

        return self._database.read(find)

    def said(self, count: int) -> list[str]:
        """The last `count` different messages of the user's, newest first; long ones are left out."""
        query = (
            "SELECT text FROM messages JOIN chats ON chats.id = messages.chat WHERE role = 'user' AND "
            "deleted IS NULL AND length(text) <= ? ORDER BY messages.id DESC LIMIT ?"
        )

        def find(db: sqlite3.Connection) -> list[str]:
            rows = db.execute(query, (_LONGEST_SAID, _LOOKED_AT * count))
            return list(islice(dict.fromkeys(text for (text,) in rows), count))

        return self._database.read(find)

    def load(self, chat: int) -> Chat:
        """A whole conversation."""

        def find(db: sqlite3.Connection) -> Chat:
            if db.execute("SELECT deleted FROM chats WHERE id = ?", (chat,)).fetchone() != (None,):
                raise KeyError(chat)
            return read_chat(db, chat)

        return self._database.read(find)

    # --- tending --------------------------------------------------------------------------------

    def rename(self, chat: int, title: str) -> None:
        """Give a chat a title: one line, control characters are left out. UserError for an empty one."""
        words = clean_title(title)
        if not words:
            raise UserError("a title needs a word; give one")
        self._change("UPDATE chats SET title = ? WHERE id = ?", (words, chat), chat)

    def delete(self, chat: int) -> None:
        """Take a chat off the list; it is gone for good a day later."""
        self._change("UPDATE chats SET deleted = ? WHERE id = ?", (time.time(), chat), chat)

    def restore(self, chat: int) -> None:
        """Undo `delete`."""
        self._change("UPDATE chats SET deleted = NULL WHERE id = ?", (chat,), chat)

    def add(self, chat: Chat) -> int:
        """Save a conversation under a new number, which is returned; its messages get numbers of their own.

        IntegrityError unless its messages are a tree in which ids grow from parent to child.
        """
        return self.add_all((chat,))[0]

    def add_all(self, chats: Sequence[Chat]) -> list[int]:
        """The same for several, of which all are saved or none."""
        return self._database.write(lambda db: [_insert(db, chat) for chat in chats])

    def _change(self, query: str, values: tuple[object, ...], chat: int) -> None:
        def write(db: sqlite3.Connection) -> None:
            if db.execute(query, values).rowcount == 0:
                raise KeyError(chat)

        self._database.write(write)


def _insert(db: sqlite3.Connection, chat: Chat) -> int:
    number = insert_chat(db, clean_title(chat.title), chat.created, chat.updated, chat.model, chat.launch)
    ids: dict[int | None, int | None] = {None: None}
    for saved in chat.messages:
        message = saved.message
        if message.parent not in ids:
            raise sqlite3.IntegrityError(f"message {message.id} behind {message.parent} is no tree")
        start = ids.get(message.start)
        ids[message.id] = insert_message(db, number, ids[message.parent], start, "", saved)
    db.execute("UPDATE chats SET head = ? WHERE id = ?", (ids[chat.head], number))
    return number


def _found(db: sqlite3.Connection, chat: int, message: int | None, words: str) -> ChatRow:
    row = ChatRow(*db.execute(f"{_ROW} WHERE id = ?", (chat,)).fetchone())
    text = row.title
    if message is not None:
        text = str(db.execute("SELECT text FROM messages WHERE id = ?", (message,)).fetchone()[0])
    pieces: Excerpt = excerpt(sanitize(text), words)
    return ChatRow(row.id, row.title, row.created, row.updated, row.messages, row.model, pieces)
