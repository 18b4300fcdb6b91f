"""Replies that go on, versions beside each other, and a context that is full, in the chat."""

from __future__ import annotations

from core.engine.commands import Resume, Rewind
from core.engine.events import Cut
from tests.fake_backend import FakeBackend
from tests.tui.conftest import Driver, Open


async def exchange(driver: Driver, text: str) -> None:
    await driver.say(text)
    await driver.advance(2)


async def test_an_empty_message_goes_on_with_a_reply_that_was_stopped(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["one two three four", "and five"])) as driver:
        await driver.say("count")
        await driver.advance(0.45)
        await driver.press("escape")
        await driver.advance(1)
        said = driver.text_of(1)
        assert said.startswith("one two")
        assert "four" not in said
        await driver.say("")
        assert driver.backend.commands[-1] == Resume(2)
        await driver.advance(2)
        assert driver.text_of(1) == f"{said} and five"
        assert driver.screen_text.count("you ▸") == 1
        before = len(driver.backend.commands)
        await driver.say("")  # it has come to its end
        assert len(driver.backend.commands) == before
        await driver.say("/continue")
        assert len(driver.backend.commands) == before
        assert "come to its end" in driver.status


async def test_versions_of_replies_and_messages(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first", "second", "third", "fourth"])) as driver:
        await exchange(driver, "a")
        await driver.press("alt+left")
        assert "only one version" in driver.status
        await driver.press("ctrl+r")
        await driver.advance(2)
        await exchange(driver, "b")
        assert "third" in driver.screen_text
        await driver.press("alt+left")  # the nearest place with versions is the first reply
        assert driver.backend.commands[-1] == Rewind(1)
        assert "version 1 of 2" in driver.status
        assert "first" in driver.screen_text
        assert "reply ◂ 1/2 ▸" in driver.screen_text
        assert "second" not in driver.screen_text
        assert "third" not in driver.screen_text
        await driver.press("alt+right")  # and back to the end of the other
        assert "third" in driver.screen_text
        assert "second" in driver.screen_text
        await driver.press("alt+right")
        assert "version 2 of 2" in driver.status
        await driver.press("f7")
        await exchange(driver, "c")
        assert driver.sent()[-1].text == "c"
        assert "message ◂ 2/2 ▸" in driver.screen_text
        await driver.say("/previous")
        assert "third" in driver.screen_text
        assert "fourth" not in driver.screen_text


async def test_versions_wait_for_a_reply_that_runs(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first", "second one two three"])) as driver:
        await exchange(driver, "a")
        await driver.press("ctrl+r")
        await driver.advance(0.3)
        await driver.press("alt+left")
        assert "still running" in driver.status
        assert driver.sent(Rewind) == [Rewind(0)]


async def test_where_the_context_was_cut_is_shown(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first", "second", "third"])) as driver:
        await exchange(driver, "a")
        await exchange(driver, "b")
        await driver.say("c")
        begun = driver.chat.session.conversation.running
        assert begun is not None
        reply = driver.chat.session.conversation.tree.messages[5]
        driver.chat.session.conversation.tree.put(type(reply)(5, 4, "assistant", "", start=2))
        driver.backend.emit(Cut(2, 1, 640, 2.0))
        await driver.settle()
        assert "1 oldest" not in driver.status
        assert "oldest exchange leaves the context, 640 tokens run anew, about 2.0 s" in driver.status
        lines = driver.screen_text.split("\n")
        marks = [i for i, line in enumerate(lines) if "no longer sees what stands above" in line]
        first = next(i for i, line in enumerate(lines) if "first" in line)
        second = next(i for i, line in enumerate(lines) if "you ▸ b" in line)
        assert [first < mark < second for mark in marks] == [True]
        await driver.advance(2)
        assert "third" in driver.screen_text
