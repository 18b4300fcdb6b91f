"""A saved conversation on the screen: as it was left, whatever runs at that moment."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from core.engine.commands import Configure, OpenChat, Resume, Rewind, Stop, Submit
from core.engine.conversation import Message
from core.engine.events import Reason, Saved
from core.history.records import Chat, SavedMessage
from core.history.store import History
from core.options import LoadOptions
from tests.core.saved_chats import chat, reply, user
from tests.fake_backend import FakeBackend
from tests.tui.conftest import Open
from tui import app
from tui.chat_session import ChatSession
from tui.outcome import Outcome, resume_command
from tui.settings import Settings
from tui.talk import Talk


def foxes(reason: Reason = Reason.STOP) -> Chat:
    """Two replies to the first message, and an exchange behind the second; numbers as of a database."""
    return replace(
        chat(
            user(11, None, "why do foxes hunt"),
            reply(12, 11, "first answer"),
            reply(15, 11, "second answer"),
            user(16, 15, "and hens?"),
            reply(19, 16, "they do not", reason=reason),
            title="Foxes",
        ),
        id=7,
    )


def session() -> ChatSession:
    session = ChatSession(FakeBackend(), LoadOptions("x"), Settings({}))
    session.start(lambda event: None)
    return session


def commands(session: ChatSession) -> list[object]:
    assert isinstance(session.backend, FakeBackend)
    return session.backend.commands[2:]  # behind Load and Configure


def test_the_exchanges_are_those_on_the_way_to_the_head() -> None:
    talk = session()
    talk.open(foxes())
    assert [(e.user, e.reply) for e in talk.conversation.exchanges] == [
        ("why do foxes hunt", "second answer"),
        ("and hens?", "they do not"),
    ]
    last = talk.conversation.exchanges[-1]
    assert (last.user_id, last.reply_id, last.parent_id) == (16, 19, 15)
    assert last.done is not None
    assert last.done.stats.decode_tok_s == 12.5
    assert talk.conversation.context_used == 20 + len("they do not")
    assert talk.conversation.place(talk.conversation.exchanges[0]) == "reply ◂ 2/2 ▸"
    assert (talk.chat, talk.title) == (7, "Foxes")
    [opened] = commands(talk)
    assert opened == OpenChat(tuple(saved.message for saved in foxes().messages), 19, 7)


@pytest.mark.parametrize("saved", [True, False])
def test_a_reply_that_was_cut_off_can_go_on(saved: bool) -> None:
    talk = session()
    kept = foxes(Reason.CANCELLED)
    if not saved:  # it never ended
        kept = replace(kept, messages=(*kept.messages[:-1], replace(kept.messages[-1], reply=None)))
    talk.open(kept)
    assert talk.go_on()
    assert commands(talk)[-1] == Resume(3)


def test_a_message_that_was_never_answered_is_shown() -> None:
    talk = session()
    talk.open(replace(foxes(), head=16))
    last = talk.conversation.last
    assert last is not None
    assert (last.user, last.reply, last.done) == ("and hens?", "", None)
    assert not talk.go_on()


def test_what_runs_is_stopped_first() -> None:
    talk = session()
    talk.send("a")
    talk.send("b")
    talk.open(foxes())
    assert [type(command) for command in commands(talk)] == [Submit, Submit, Stop, OpenChat]
    assert commands(talk)[2] == Stop(2)
    assert [e.user for e in talk.conversation.exchanges] == ["why do foxes hunt", "and hens?"]


def test_messages_that_are_no_tree_change_nothing() -> None:
    talk = session()
    talk.send("a")
    broken = SavedMessage(Message(3, 2, "user", "x"), 0.0)
    with pytest.raises(ValueError, match="does not grow a tree"):
        talk.open(replace(foxes(), messages=(broken,), head=3))
    assert [e.user for e in talk.conversation.exchanges] == ["a"]
    assert talk.chat is None
    assert commands(talk) == [Submit(1, "a")]


def test_the_number_of_a_chat_that_was_left_is_not_that_of_the_open_one() -> None:
    talk = session()
    talk.open(foxes())
    assert not talk.saved(Saved(6, "left behind"))
    talk.new_chat()
    assert (talk.chat, talk.title) == (None, "")
    assert not talk.saved(Saved(6, "left behind"))


async def test_a_chat_that_is_asked_for_at_start_is_there_before_the_model(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["more"]), ready=False, chat=foxes(Reason.LENGTH)) as driver:
        assert "they do not" in driver.screen_text
        assert "Foxes" in driver.screen_text.splitlines()[0]
        await driver.press("up")
        assert driver.chat.prompt.text == "and hens?"
        await driver.type("")
        await driver.say("")  # goes on, once it can
        await driver.advance(4)
        assert "they do not more" in driver.screen_text
        kinds = [type(command) for command in driver.backend.commands]
        assert kinds.index(OpenChat) < kinds.index(Resume)


async def test_it_opens_while_a_message_waits_for_the_model(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["fine"]), ready=False) as driver:
        await driver.say("too early")
        driver.chat._chosen(foxes())
        await driver.settle()
        assert "too early" not in driver.screen_text
        assert "they do not" in driver.screen_text
        await driver.advance(4)
        assert "fine" not in driver.screen_text
        await driver.say("how are they?")
        await driver.advance(2)
        assert "fine" in driver.screen_text
        assert "idle" in driver.status


async def test_the_chats_system_prompt_becomes_the_setting(open_chat: Open) -> None:
    async with open_chat(values={"system": "Be brief."}, chat=foxes()) as driver:
        assert driver.sent(Configure)[-1].system == "Be brief."  # what the start has made of it stays
        driver.chat._chosen(foxes())
        assert driver.sent(Configure)[-1].system == "Be kind."
        driver.chat._chosen(replace(foxes(), messages=(user(1, None, "x"),), head=1))  # it does not say
        assert driver.sent(Configure)[-1].system == "Be kind."


async def test_versions_regenerate_and_figures_work_as_for_new_replies(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["third answer"]), chat=foxes(), size=(200, 40)) as driver:
        assert "11 tok · 12.5 tok/s · first 0.25 s · cached 12 · stop" in driver.screen_text
        await driver.say("/debug")
        assert "perplexity 2.38" in driver.screen_text  # 2 ** mean(i / 4 for i in range(11))
        await driver.press("alt+left")
        assert driver.backend.commands[-1] == Rewind(12)
        assert "first answer" in driver.screen_text
        assert "they do not" not in driver.screen_text
        await driver.press("ctrl+r")
        await driver.advance(2)
        assert "reply ◂ 3/3 ▸" in driver.screen_text


@pytest.mark.alone
async def test_a_thousand_messages_show_their_end_at_once(open_chat: Open) -> None:
    said = "Foxes are **solitary**:\n\n- one\n- two\n\n```python\nprint(1)\n```\n\nand so on. " * 3
    messages = [user(1, None, "begin")]
    for id in range(2, 1002, 2):
        messages += [reply(id, id - 1, said), user(id + 1, id, f"question {id}")]
    async with open_chat() as driver:
        before = time.process_time()
        driver.chat._chosen(replace(chat(*messages, title="long"), id=3))
        await driver.settle()
        assert time.process_time() - before < 0.3
        assert "question 1000" in driver.screen_text


async def test_a_damaged_chat_is_refused(open_chat: Open) -> None:
    async with open_chat(chat=foxes()) as driver:
        driver.chat._chosen(replace(foxes(), id=8, head=99))
        assert "damaged and cannot be opened: the head 99 is none of 5 messages" in driver.status
        assert driver.chat.session.chat == 7


def test_the_command_that_goes_on_can_be_copied_as_a_whole() -> None:
    line = resume_command(12, "Foxes\nand \x1b[31mhens")
    assert line == 'llama-tui --resume 12   # goes on with "Foxes and [31mhens"'


def test_whoever_leaves_a_saved_chat_is_told_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def leave(self: app.LlamaApp, **options: object) -> Outcome:
        self._chat.session.start(lambda event: None)
        self._chat.session.open(foxes())
        return Outcome()

    monkeypatch.setattr(app.LlamaApp, "run", leave)
    for history, command in ((History(tmp_path / "h.db"), resume_command(7, "Foxes")), (None, "")):
        session = ChatSession(FakeBackend(), LoadOptions("x"), Settings({}))
        outcome = app.show(Talk(session, "fake", history=history))
        assert outcome == Outcome(command=command)


async def test_the_title_gives_way_first_where_the_header_is_narrow(open_chat: Open) -> None:
    titled = replace(foxes(), title="\u6771\u4eac [b]" + "x" * 300)
    async with open_chat(chat=titled) as driver:
        header = driver.screen_text.splitlines()[0]
        assert "cpu   \u6771\u4eac [b]xxx" in header
        assert "x\u2026   " in header
        assert header.endswith("/4096")
        await driver.pilot.resize_terminal(60, 16)
        await driver.settle()
        header = driver.screen_text.splitlines()[0]
        assert "\u6771" not in header
        assert "fake-135m" in header
        assert header.endswith("/4096")
