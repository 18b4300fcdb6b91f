"""The saved conversations: listed, searched, tended."""

from __future__ import annotations

import random
import re
import sqlite3
import threading
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.engine.events import Reason
from core.errors import UserError
from core.history.records import Chat
from core.history.search import excerpt, query_of
from core.history.store import History
from core.history.title import clean_title, title_of
from tests import many_chats
from tests.core.saved_chats import WORDS, chat, drawn_chat, reply, user


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    found = History(tmp_path / "data" / "history.db")
    yield found
    found.close()


def test_a_conversation_comes_back_as_it_was(history: History) -> None:
    first = history.add(chat(user(1, None, "only to move the numbers")))
    talk = chat(
        user(3, None, "Why?"),
        reply(4, 3, "Because."),
        reply(6, 3, "So.", reason=Reason.LENGTH),
        user(9, 6, "Go on"),
        title="  Why\n\x1b[31mso? ",
        updated=5.0,
        head=6,
    )
    number = history.add(talk)
    found = history.load(number)
    assert (number, found.id, found.title, found.head) == (
        first + 1,
        number,
        "Why [31mso?",
        found.messages[2].message.id,
    )
    assert (found.updated, found.model, found.launch) == (5.0, "llama", {"checkpoint": "/models/llama"})
    new = {
        saved.message.id: back.message.id for saved, back in zip(talk.messages, found.messages, strict=True)
    }
    for saved, back in zip(talk.messages, found.messages, strict=True):
        parent = saved.message.parent
        message = replace(
            saved.message, id=new[saved.message.id], parent=None if parent is None else new[parent]
        )
        assert back == replace(saved, message=message)
    assert found.system == "Be kind."
    assert [row.id for row in history.rows()] == [number, first]
    assert history.rows()[0].messages == 4


def test_only_a_tree_is_saved(history: History) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        history.add(chat(user(3, 5, "before its parent"), user(5, None, "a")))
    assert history.rows() == []
    assert history.latest() is None


def test_the_list_is_paged_newest_first(history: History) -> None:
    times = [float(i) for i in random.Random(3).sample(range(1000), 120)]
    numbers = {history.add(chat(user(1, None, "hi"), updated=when)): when for when in times}
    expected = sorted(numbers, key=lambda number: -numbers[number])
    assert [row.id for row in history.rows()] == expected[:50]
    assert [row.id for row in history.rows(100)] == expected[100:]
    assert history.rows(120) == []
    assert history.latest() == expected[0]


def test_rename_delete_restore(history: History) -> None:
    one, two = (history.add(chat(user(1, None, "the moon"), updated=i)) for i in (1.0, 2.0))
    history.rename(one, " A  new\tname\x07 ")
    assert history.load(one).title == "A new name"
    assert [row.id for row in history.search("new na")] == [one]
    history.delete(one)
    assert [row.id for row in history.rows()] == [row.id for row in history.search("moon")] == [two]
    assert history.search("name") == []
    with pytest.raises(KeyError):
        history.load(one)
    history.restore(one)
    assert [row.id for row in history.rows()] == [two, one]
    for change in (history.delete, history.restore, lambda number: history.rename(number, "x")):
        with pytest.raises(KeyError):
            change(999)
    with pytest.raises(UserError, match="title"):
        history.rename(one, " \x1b ")


# --- search -----------------------------------------------------------------------------------------


def words_of(text: str) -> list[str]:
    """The words of a text without case and accents, in another way than the index."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return [word.lower() for word in re.split(r"[^\w]|_", plain) if word]


def holds(text: str, query: str) -> bool:
    """Whether a text has a phrase for every word of the query whose last word begins with it."""
    have = words_of(text)
    for part in query.split():
        *whole, last = words_of(part) or [""]
        size = len(whole) + 1
        if last and not any(
            have[i : i + size - 1] == whole and have[i + size - 1].startswith(last)
            for i in range(len(have) - size + 1)
        ):
            return False
    return True


def newest_match(chat: Chat, query: str) -> float | None:
    times = [saved.created for saved in chat.messages if holds(saved.message.text, query)]
    return max([*times, chat.updated] if holds(chat.title, query) else times, default=None)


def test_a_search_finds_what_a_plain_look_through_all_texts_finds(history: History) -> None:
    rng = random.Random(11)
    chats: dict[int, Chat] = {}
    for i in range(150):
        drawn = drawn_chat(rng, 100.0 * i)
        chats[history.add(drawn)] = drawn
    found_any = 0
    for _ in range(300):
        query = " ".join(
            w[: rng.randint(1, len(w))] for w in rng.sample([*WORDS, "about", "zzz"], rng.randint(1, 2))
        )
        times = {number: newest_match(drawn, query) for number, drawn in chats.items()}
        expected = sorted((n for n in times if times[n] is not None), key=lambda n: -float(times[n] or 0))
        assert [row.id for row in history.search(query, 0, 1000)] == expected, query
        assert [row.id for row in history.search(query, 3, 4)] == expected[3:7]
        found_any += bool(expected)
        for row in history.search(query, 0, 3):
            assert any(marked for _, marked in row.excerpt), (query, row)
    assert found_any > 150


@pytest.mark.parametrize(
    "typed",
    [
        '"',
        '""',
        "AND",
        "NOT x",
        "a OR b",
        "NEAR(a b)",
        "text:fox",
        "fox*",
        "^fox",
        "(",
        "{a}",
        "-fox",
        "a\0b",
        "'; --",
    ],
)
def test_nothing_that_is_typed_is_an_operator(history: History, typed: str) -> None:
    text = "and near not a b or fox x text"
    number = history.add(chat(user(1, None, text), title="t"))
    expected = holds(text, typed) or not words_of(typed)
    assert [row.id for row in history.search(typed)] == [number] * expected


def test_without_a_word_a_search_shows_all(history: History) -> None:
    number = history.add(chat(user(1, None, "hi")))
    assert query_of(" - … ") is None
    assert [row.id for row in history.search(" -- ")] == [number]


def test_an_excerpt_shows_the_match_in_one_line() -> None:
    text = "word " * 40 + "the Café\n\nof a fox" + " word" * 60
    pieces = excerpt(text, "cafe fo")
    line = "".join(piece for piece, _ in pieces)
    assert line.startswith("…")
    assert line.endswith("…")
    assert "the Café of a fox" in line
    assert "\n" not in line
    assert len(line) < 140
    assert [piece for piece, marked in pieces if marked] == ["Café", "fox"]
    assert excerpt("short", "zzz") == (("short", False),)
    assert excerpt("", "zzz") == ()


def test_a_search_that_is_out_of_date_can_be_ended(history: History) -> None:
    number = history.add(chat(user(1, None, "hi")))
    ended: list[object] = []

    def forever(db: sqlite3.Connection) -> None:
        db.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
        ).fetchone()

    def run() -> None:
        try:
            history._database.read(forever)
        except UserError as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + 10
    while thread.is_alive() and time.monotonic() < deadline:
        history.interrupt()
        time.sleep(0.01)
    thread.join(1)
    assert "not read to the end" in str(ended[0])
    assert history.latest() == number


def test_a_search_that_was_ended_does_not_end_the_next_one(history: History) -> None:
    """Wherever it was ended, and as long as somebody holds the error."""
    for i in range(30):
        history.add(chat(user(1, None, "a fox"), user(2, None, "a hen"), title=f"fox {i}"))
    expected = history.search("fox")
    held: list[UserError] = []
    for step in range(1, 400, 7):
        connection = history._database._connection
        assert connection is not None
        left = iter(range(step))

        def end(left: Iterator[int] = left, connection: sqlite3.Connection = connection) -> None:
            if next(left, None) is None:
                connection.interrupt()

        connection.set_progress_handler(end, 5)
        try:
            history.search("fox")
        except UserError as error:
            held.append(error)
        connection.set_progress_handler(None, 0)
        assert history.search("fox") == expected
    assert len(held) > 20


# --- titles -----------------------------------------------------------------------------------------


def test_titles() -> None:
    assert title_of("Why do foxes\n hunt  alone?") == "Why do foxes hunt alone?"
    long = title_of("some words " * 30)
    assert long.endswith(("words…", "some…"))
    assert len(long) <= 61
    assert title_of("x" * 500) == "x" * 60 + "…"
    assert title_of(" \x1b\n") == "untitled"
    assert clean_title("a" * 999) == "a" * 200


def test_reading_waits_for_no_writer(tmp_path: Path) -> None:
    """The list opens while another program is in the middle of a write."""
    path = tmp_path / "history.db"
    history = History(path)
    number = history.add(chat(user(1, None, "hi")))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE chats SET title = 'changed'")
    assert [row.title for row in history.rows()] == ["a chat"]
    other.execute("COMMIT")
    other.close()
    assert history.load(number).title == "changed"
    history.close()


def test_lists_and_searches_take_what_they_show_not_what_there_is(history: History) -> None:
    """The steps of the database for one page, with ten times as many conversations."""
    rng = random.Random(6)
    words = many_chats.vocabulary(rng, 2000)
    steps: dict[int, list[int]] = {}
    for chats, more in ((60, 60), (600, 540)):
        many_chats.fill(history, more, words, rng)
        steps[chats] = [_steps(history, query) for query in ("", "e", words[0], f"{words[1]} {words[2]}")]
    for few, many in zip(steps[60], steps[600], strict=True):
        assert many < 4 * few, steps


def _steps(history: History, query: str) -> int:
    """How often a search went through the database's machine, in hundreds of instructions."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    history._database.read(lambda db: db.set_progress_handler(step, 100))
    assert len(history.search(query)) == 50
    history._database.read(lambda db: db.set_progress_handler(None, 0))
    return count
