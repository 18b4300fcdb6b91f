"""What is saved of conversations as they pass, whatever the user and the disk do."""

from __future__ import annotations

import queue
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from core.engine.commands import Command, Configure, Load, OpenChat, Resume, Rewind, Stop, Submit
from core.engine.conversation import Conversation, Message
from core.engine.events import Event, Notice, Reason, Saved
from core.history import recorder as module
from core.history.recorder import Recorder
from core.history.records import Chat
from core.history.store import History
from core.options import LoadOptions, Sampling
from tests.fake_backend import FakeBackend

LAUNCH = {"checkpoint": "/models/fake"}
WORDS = "one two three four five six seven eight nine ten"


class Run:
    """A program with a fake engine that saves; its clock is the fake's, the history's thread is real."""

    def __init__(
        self, path: Path, replies: tuple[str, ...] = (WORDS, "yes", "no more"), **options: Any
    ) -> None:
        self.engine = FakeBackend(replies)
        self.recorder = Recorder(self.engine, path, LAUNCH, **options)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.seen: list[Event] = []
        self.number = 0
        self.recorder.start(self.events.put)
        self.send(Configure(Sampling(temperature=0.25), "Be kind."), Load(LoadOptions("nowhere")))
        self.engine.advance(5)

    def send(self, *commands: Command) -> None:
        for command in commands:
            self.recorder.submit(command)

    def say(self, text: str, seconds: float = 5) -> None:
        self.number += 1
        self.send(Submit(self.number, text))
        self.engine.advance(seconds)

    def resume(self, seconds: float = 5) -> None:
        self.number += 1
        self.send(Resume(self.number))
        self.engine.advance(seconds)

    def of(self, kind: type[Event]) -> list[Any]:
        while not self.events.empty():
            self.seen.append(self.events.get())
        return [event for event in self.seen if isinstance(event, kind)]

    def notices(self) -> list[str]:
        return [notice.text for notice in self.of(Notice)]

    def until(self, met: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not met():
            assert time.monotonic() < deadline, (self.of(Notice), self.recorder.failure)
            time.sleep(0.005)

    def saved(self) -> None:
        """Wait until nothing is unsaved."""
        mark = module._Item(Notice("once this has been taken, so has all before it"), Configure(Sampling()))
        self.recorder._queue.put(mark)
        self.until(mark.written.is_set)
        self.until(lambda: self.recorder._queue.empty() and self.recorder._due is None)

    def close(self) -> None:
        self.recorder.close(5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def start(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    monkeypatch.setattr(module, "_PAUSES_S", (0.05,))
    runs: list[Run] = []

    def begin(*args: Any, **options: Any) -> Run:
        runs.append(Run(path, *args, **options))
        return runs[-1]

    yield begin
    for run in runs:
        run.close()


def shape(talk: Conversation) -> list[tuple[Any, ...]]:
    """A tree without its numbers: each message by its place in the order, and the head."""
    order = {id: i for i, id in enumerate(talk.messages)}
    found: list[tuple[Any, ...]] = [
        (m.role, m.text, m.tokens, m.surprise, m.reason, None if m.parent is None else order[m.parent])
        for m in talk.messages.values()
    ]
    return [*found, ("head", None if talk.head is None else order[talk.head])]


def tree(chat: Chat) -> Conversation:
    return Conversation([saved.message for saved in chat.messages], chat.head)


def only_chat(path: Path) -> Chat:
    history = History(path)
    (row,) = history.rows()
    found = history.load(row.id)
    history.close()
    return found


def test_a_conversation_is_saved_from_its_first_message_on(start: Callable[..., Run], path: Path) -> None:
    run = start()
    run.say("Why do foxes\nhunt alone?", 0.05)  # in the middle of the prefill
    run.saved()
    assert run.of(Saved) == [Saved(1, "Why do foxes hunt alone?")]
    chat = only_chat(path)
    assert [(m.message.text, m.message.reason) for m in chat.messages] == [
        ("Why do foxes\nhunt alone?", None),
        ("", Reason.CANCELLED),
    ]
    run.engine.advance(5)
    run.close()
    chat = only_chat(path)
    reply = chat.messages[1]
    assert shape(tree(chat)) == shape(run.engine._talk)
    assert (chat.model, chat.launch, chat.system) == ("fake-135m", LAUNCH, "Be kind.")
    assert (reply.model, reply.chat_format) == ("fake-135m", "chatml")
    assert (reply.settings["temperature"], reply.settings["system"]) == (0.25, "Be kind.")
    assert reply.reply is not None
    assert (reply.reply.finish_reason, reply.reply.seed) == (Reason.STOP, 7)
    assert reply.reply.stats.decode_tok_s == 10
    assert run.notices() == []
    assert run.recorder.failure is None


def test_a_reply_is_written_while_it_grows(start: Callable[..., Run], path: Path) -> None:
    run = start(every=0.02)
    run.say("count", 0.55)
    run.until(lambda: run.of(Saved))
    run.until(lambda: only_chat(path).messages[1].message.text == "one two three four")
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT status FROM messages WHERE role = 'assistant'").fetchall() == [("running",)]
    message = only_chat(path).messages[1].message
    assert (message.tokens, message.cut_off) == ((0, 1, 2, 3), True)
    assert message.surprise == (2.0,) * 4


def test_whatever_the_user_does_the_database_has_the_engines_tree(
    start: Callable[..., Run], path: Path
) -> None:
    rng = random.Random(4)
    run = start(every=0.001)
    trees: list[list[tuple[Any, ...]]] = []
    for step in range(400):
        talk = run.engine._talk
        deed = rng.random()
        if deed < 0.4:
            run.say(f"message {step}", rng.choice((0.05, 0.3, 0.7, 5)))
        elif deed < 0.6 and talk.messages:
            message = rng.choice([m for m in talk.messages.values() if m.role == "user" or m.reason])
            run.send(Rewind(rng.choice((message.id, message.parent))))
        elif deed < 0.75 and talk.head is not None and not run.engine._running:
            run.resume(rng.choice((0.3, 5)))
        elif deed < 0.9:
            run.send(Stop(run.number))
            run.engine.advance(1)
        elif deed < 0.93:
            run.send(Stop(run.number))
            run.engine.advance(30)
            if run.engine._talk.messages:
                trees.append(shape(run.engine._talk))
            run.send(OpenChat())
    run.send(Stop(run.number))
    run.engine.advance(30)
    trees.append(shape(run.engine._talk))
    run.close()
    history = History(path)
    found = [shape(tree(history.load(row.id))) for row in history.rows(0, 1000)]
    assert len(trees) > 5
    assert sorted(map(repr, found)) == sorted(map(repr, trees))
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def resumed(run: Run, path: Path) -> Chat:
    chat = only_chat(path)
    messages = tuple(saved.message for saved in chat.messages)
    run.send(OpenChat(messages, chat.head, chat.id))
    return chat


def test_a_chat_that_is_opened_again_goes_on_in_its_place(start: Callable[..., Run], path: Path) -> None:
    first = start()
    first.say("count", 0.65)
    first.send(Stop(first.number))
    first.engine.advance(1)
    first.close()
    second = start()
    before = resumed(second, path)
    assert before.messages[1].message.text == "one two three four five"
    second.resume()
    second.say("and now?")
    second.close()
    after = only_chat(path)
    assert after.id == before.id
    assert [saved.message.id for saved in after.messages[:2]] == [
        saved.message.id for saved in before.messages
    ]
    assert [saved.message.text for saved in after.messages] == [
        "count",
        f"one two three four five {WORDS}",
        "and now?",
        "yes",
    ]
    assert second.of(Saved) == []


# --- two programs -----------------------------------------------------------------------------------


def test_two_programs_in_one_chat_lose_nothing(start: Callable[..., Run], path: Path) -> None:
    first = start()
    first.say("count", 0.65)
    first.saved()  # and goes on in the first program
    second = start(("from the second",))
    resumed(second, path)
    second.resume()  # what the second takes for a reply that was cut off
    second.say("more of the second")
    second.saved()
    first.engine.advance(5)
    first.say("more of the first")
    first.saved()
    texts = [saved.message.text for saved in only_chat(path).messages]
    assert WORDS in texts
    assert any(text.endswith(" from the second") for text in texts)
    assert {"more of the first", "more of the second"} <= set(texts)
    parents = {saved.message.text: saved.message.parent for saved in only_chat(path).messages}
    assert parents["more of the first"] != parents["more of the second"]


def test_a_chat_that_was_deleted_elsewhere_and_goes_on_is_there_again(
    start: Callable[..., Run], path: Path
) -> None:
    run = start()
    run.say("hello")
    run.saved()
    history = History(path)
    history.delete(1)
    run.say("still there?")
    run.saved()
    assert [row.messages for row in history.rows()] == [4]
    history._database.write(lambda db: db.execute("DELETE FROM chats"))  # and gone for good
    run.say("and now?")
    run.saved()
    (row,) = history.rows()
    assert (row.messages, row.title) == (6, "hello")
    assert run.of(Saved) == [Saved(1, "hello"), Saved(2, "hello", before=1)]
    assert shape(tree(history.load(row.id))) == shape(run.engine._talk)
    history.close()


def test_what_was_deleted_a_day_ago_is_gone(start: Callable[..., Run], path: Path) -> None:
    history = History(path)
    first = start()
    for text in ("a", "b"):
        first.say(text)
        first.send(OpenChat())
    first.close()
    history.delete(1)
    now = time.time()
    start(clock=lambda: now + 86_000).saved()
    history.restore(1)
    history.delete(1)
    late = start(clock=lambda: now + 86_500)
    late.until(
        lambda: history._database.read(lambda db: db.execute("SELECT id FROM chats").fetchall()) == [(2,)]
    )
    with pytest.raises(KeyError):
        history.restore(1)
    history.close()


# --- what a disk does -------------------------------------------------------------------------------


def test_without_a_place_to_save_the_chat_goes_on_and_says_so_once(
    start: Callable[..., Run], path: Path
) -> None:
    path.mkdir()
    run = start()
    run.until(lambda: run.recorder.failure)
    for text in ("a", "b"):
        run.say(text)
    run.send(OpenChat())
    run.say("another chat")
    time.sleep(0.3)  # several tries
    assert len(run.notices()) == 1
    assert "not saved" in run.notices()[0]
    assert "cannot be opened" in run.notices()[0]
    path.rmdir()
    run.until(lambda: run.recorder.failure is None)
    assert run.notices()[1:] == ["the conversation is saved again"]
    history = History(path)
    assert sorted((row.title, row.messages) for row in history.rows()) == [("a", 4), ("another chat", 2)]
    history.close()


@pytest.mark.alone
def test_a_locked_database_is_waited_for(start: Callable[..., Run], path: Path) -> None:
    run = start()
    run.recorder._database._patience = 0.02
    run.say("before")
    run.saved()
    run.recorder._database.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        run.say("meanwhile")
        assert time.monotonic() - began < 1  # the engine is not held up
        run.until(lambda: run.recorder.failure)
        assert ["locked by another program" in notice for notice in run.notices()] == [True]
        other.execute("COMMIT")
    run.until(lambda: run.recorder.failure is None)
    assert [saved.message.text for saved in only_chat(path).messages] == ["before", WORDS, "meanwhile", "yes"]


def test_a_full_disk(start: Callable[..., Run], path: Path) -> None:
    run = start((WORDS * 500,))
    run.say("before", 500)
    run.saved()
    data = run.recorder._database
    data.read(lambda db: db.execute("PRAGMA max_page_count = 1").fetchone())  # as many as there are
    run.say("too much", 500)
    run.until(lambda: run.recorder.failure)
    assert ["the disk is full" in notice for notice in run.notices()] == [True]
    assert only_chat(path).messages[0].message.text == "before"
    data.read(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone())
    run.until(lambda: run.recorder.failure is None)
    assert len(only_chat(path).messages) == 4


def test_damage_in_the_middle_of_a_chat(start: Callable[..., Run], path: Path) -> None:
    run = start()
    run.say("before")
    run.saved()
    with path.open("r+b") as file:
        file.write(b"\xa5" * path.stat().st_size)
    path.with_name("history.db-wal").write_bytes(b"")
    run.recorder._database.close()
    run.say("after")
    run.saved()
    assert len(run.notices()) == 1
    assert "set aside" in run.notices()[0]
    assert shape(tree(only_chat(path))) == shape(run.engine._talk)
    assert run.recorder.failure is None


def test_a_newer_database_is_left_alone(start: Callable[..., Run], path: Path) -> None:
    History(path).rows()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    run = start()
    run.say("hello")
    run.until(lambda: run.recorder.failure)
    run.close()
    assert len(run.notices()) == 1
    assert "newer llama-tui" in run.notices()[0]
    assert "kept in memory" not in run.notices()[0]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM messages").fetchone() == (0,)
    assert "newer" in str(run.recorder.failure)


@pytest.mark.alone
def test_who_leaves_in_the_middle_finds_what_was_said(start: Callable[..., Run], path: Path) -> None:
    run = start()
    run.say("count", 0.75)
    began = time.monotonic()
    run.close()
    assert time.monotonic() - began < 1
    assert only_chat(path).messages[1].message.text == "one two three four five six"


@pytest.mark.alone
def test_leaving_waits_for_no_disk_that_hangs(
    start: Callable[..., Run], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_END_S", 0.1)
    run = start()
    hang = threading.Event()
    run.saved()
    monkeypatch.setattr(module, "save", lambda *args: hang.wait(5))
    run.say("hello")
    began = time.monotonic()
    run.recorder.close(0.1)
    assert time.monotonic() - began < 1
    assert "in time" in str(run.recorder.failure)
    hang.set()


def test_tokens_of_another_vocabulary_stay_until_the_reply_goes_on(
    start: Callable[..., Run], path: Path
) -> None:
    first = start()
    first.say("count", 0.65)
    first.send(Stop(first.number))
    first.engine.advance(1)
    first.close()
    second = start()
    chat = only_chat(path)
    user, reply = (saved.message for saved in chat.messages)
    anew = Message(
        reply.id, reply.parent, "assistant", reply.text, (90, 91), (), None, Reason.CANCELLED, None, "other"
    )
    second.send(OpenChat((user, anew), reply.id, chat.id))
    second.send(Rewind(None), Rewind(reply.id))
    second.saved()
    assert only_chat(path).messages[1].message == reply
    second.resume()
    second.saved()
    after = only_chat(path).messages[1].message
    assert (after.id, after.tokens[:2]) == (reply.id, (90, 91))
