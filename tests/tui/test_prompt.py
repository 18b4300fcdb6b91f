from __future__ import annotations

from pathlib import Path

from textual import events

from core.engine.commands import Submit
from core.history.store import History
from tests.core.saved_chats import chat, reply, user
from tests.tui.conftest import Driver, Open


async def burst(driver: Driver, *keys: str) -> None:
    """Keys that come in one piece, as an unbracketed paste does."""
    for key in keys:
        driver.app.post_message(events.Key(key, key if len(key) == 1 else None))
    await driver.settle()


async def test_enter_sends_and_ctrl_j_starts_a_line(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.press("a", "ctrl+j", "b", "enter")
        await driver.until(lambda: bool(driver.sent()))
        assert driver.sent() == [Submit(1, "a\nb")]


async def test_an_enter_with_more_input_waiting_is_a_new_line(open_chat: Open) -> None:
    async with open_chat() as driver:
        await burst(driver, "a", "enter", "b", "enter", "enter", "c")
        await driver.pilot.pause(0.05)
        assert driver.chat.prompt.text == "a\nb\n\nc"
        assert driver.sent() == []


async def test_a_paste_with_line_ends_is_not_sent(open_chat: Open) -> None:
    async with open_chat() as driver:
        driver.app.post_message(events.Paste("one\ntwo\n"))
        await driver.pilot.pause(0.05)
        assert driver.chat.prompt.text == "one\ntwo\n"
        assert driver.sent() == []


async def test_an_empty_prompt_sends_nothing(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.say("  \n ")
        assert driver.sent() == []


async def test_up_walks_the_history_and_down_comes_back_to_the_draft(open_chat: Open) -> None:
    async with open_chat() as driver:
        for line in ("first", "second", "/set"):
            await driver.say(line)
        await driver.type("draft")
        seen = []
        for key in ("up", "up", "up", "up", "down", "down", "down", "down"):
            await driver.press(key)
            seen.append(driver.chat.prompt.text)
        assert seen == ["/set", "second", "first", "first", "second", "/set", "draft", "draft"]


async def test_up_inside_a_text_moves_the_cursor(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.say("before")
        await driver.type("one\ntwo")
        await driver.press("up")
        assert driver.chat.prompt.text == "one\ntwo"
        assert driver.chat.prompt.cursor_location[0] == 0
        await driver.press("up")
        assert driver.chat.prompt.text == "before"


async def test_the_prompt_grows_to_eight_rows(open_chat: Open) -> None:
    async with open_chat() as driver:
        assert driver.chat.prompt.size.height == 2
        await driver.type("1\n2\n3\n4")
        await driver.settle()
        assert driver.chat.prompt.size.height == 4
        await driver.type("\n".join(map(str, range(30))))
        await driver.settle()
        assert driver.chat.prompt.size.height == 8
        await driver.type("")
        await driver.settle()
        assert driver.chat.prompt.size.height == 2


async def test_the_editors_own_keys_keep_their_meaning(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.type("one two")
        await driver.press("ctrl+w")
        assert driver.chat.prompt.text == "one "
        await driver.press("ctrl+u")
        assert driver.chat.prompt.text == ""


async def test_what_was_said_in_earlier_chats_comes_back(open_chat: Open, tmp_path: Path) -> None:
    history = History(tmp_path / "history.db")
    history.add(chat(user(1, None, "first"), reply(2, 1, "yes"), user(3, 2, "bad \x1b[2J one")))
    history.add(chat(user(1, None, "first")))
    async with open_chat(history=history) as driver:
        prompt = driver.chat.prompt
        await driver.until(lambda: len(prompt._history) == 2)
        await driver.say("new")
        seen = []
        for _ in range(4):
            await driver.press("up")
            seen.append(prompt.text)
        assert seen == ["new", "first", "bad [2J one", "bad [2J one"]
    history.close()


async def test_a_history_that_comes_late_disturbs_nobody_who_walks_in_it(open_chat: Open) -> None:
    async with open_chat() as driver:
        prompt = driver.chat.prompt
        await driver.say("mine")
        await driver.type("draft")
        await driver.press("up")
        prompt.remember_earlier(["older", "mine"])
        assert prompt.text == "mine"
        await driver.press("up")
        assert prompt.text == "older"
        await driver.press("down", "down")
        assert prompt.text == "draft"
