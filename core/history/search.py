"""Which chats hold some words: full-text search, newest match first."""

from __future__ import annotations

import heapq
import re
import sqlite3
import unicodedata
from collections.abc import Generator
from contextlib import closing
from typing import NamedTuple

from core.history.records import Excerpt

_BEFORE, _AFTER = 30, 90  # characters of a text that are shown around a match
_WORD = re.compile(r"\w+")


class Match(NamedTuple):
    """When, in which chat, and in which message; None is its title."""

    time: float
    chat: int
    message: int | None


def query_of(words: str) -> str | None:
    """The full-text query for texts with words that begin with all of `words`; None where there are none.

    Every word is quoted, so that nothing that a user types is read as an operator.
    """
    parts = [
        word.replace('"', '""')
        for word in unicodedata.normalize("NFC", words).replace("\0", " ").split()
        if any(character.isalnum() for character in word)
    ]
    return " ".join(f'"{part}"*' for part in parts) or None


def matches(connection: sqlite3.Connection, query: str) -> Generator[Match, None, None]:
    """Each chat with a match once, by its newest: a message counts by its time, a title by its chat's.

    To be closed: a query that is left half-way, held by an error perhaps, would end the next one too once
    the connection has been interrupted.
    """
    seen: set[int] = set()
    with closing(_in_messages(connection, query)) as said, closing(_in_titles(connection, query)) as titles:
        streams = ((Match(*row) for row in cursor) for cursor in (said, titles))
        for match in heapq.merge(*streams, key=lambda match: -match.time):
            if match.chat not in seen:
                seen.add(match.chat)
                yield match


def _in_messages(connection: sqlite3.Connection, query: str) -> sqlite3.Cursor:
    # In the order of their numbers, which is that of their times: so nothing has to be sorted, and the
    # first matches are there before the last are looked for.
    return connection.execute(
        "SELECT messages.created, messages.chat, messages.id FROM message_words "
        "CROSS JOIN messages ON messages.id = message_words.rowid "
        "CROSS JOIN chats ON chats.id = messages.chat "
        "WHERE message_words MATCH ? AND chats.deleted IS NULL ORDER BY message_words.rowid DESC",
        (query,),
    )


def _in_titles(connection: sqlite3.Connection, query: str) -> sqlite3.Cursor:
    return connection.execute(
        "SELECT chats.updated, chats.id, NULL FROM title_words "
        "CROSS JOIN chats ON chats.id = title_words.rowid "
        "WHERE title_words MATCH ? AND chats.deleted IS NULL ORDER BY chats.updated DESC",
        (query,),
    )


def excerpt(text: str, words: str) -> Excerpt:
    """The surroundings of the first match in `text` in one line, what matches marked."""
    begins = tuple(_folded(part) for word in words.split() for part in _WORD.findall(word))
    found = [word.span() for word in _WORD.finditer(text) if begins and _folded(word[0]).startswith(begins)]
    first = found[0][0] if found else 0
    start, stop = max(0, first - _BEFORE), first + _AFTER
    pieces: list[tuple[str, bool]] = [("…", False)] if start else []
    at = start
    for begin, end in found:
        if end > stop:
            break
        pieces += [(text[at:begin], False), (text[begin:end], True)]
        at = end
    pieces.append((text[at:stop] + ("…" if stop < len(text) else ""), False))
    return tuple((re.sub(r"\s+", " ", piece), marked) for piece, marked in pieces if piece)


def _folded(word: str) -> str:
    """A word as the index compares it: without case and accents."""
    plain = unicodedata.normalize("NFKD", word.casefold())
    return "".join(character for character in plain if not unicodedata.combining(character))
