"""Transcript mode in the chat: every key of it, driven as a user would."""

from __future__ import annotations

import pytest
from textual import events

from core.engine.commands import Resume, Rewind, Stop, Submit
from tests.fake_backend import FakeBackend
from tests.tui.conftest import Driver, Open
from tui import clipboard
from tui.commands import BY_ID
from tui.widgets.setting_row import SettingRow

CODE = "Look:\n\n```py\nx = 1\n```\n\nor\n\n```\ny\n```\n"


async def exchange(driver: Driver, text: str) -> None:
    await driver.say(text)
    await driver.advance(4)


async def talk(driver: Driver, *texts: str) -> None:
    for text in texts:
        await exchange(driver, text)


def bar(driver: Driver) -> str:
    return driver.screen_text.splitlines()[-1]


async def test_going_there_and_back(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first", "second"])) as driver:
        await driver.press("shift+tab")
        assert "nothing has been sent yet" in driver.status
        await talk(driver, "a", "b")
        for key in ("shift+tab", "alt+up"):
            await driver.press(key)
            assert driver.chat.walking
            assert bar(driver).startswith(
                " Esc back  Up/Down message  c copy  f code  e edit  r answer again  [/] version  Space fold"
            )
            await driver.press("escape")
            assert not driver.chat.walking
            assert driver.chat.transcript.current is None
            assert driver.chat.focused is driver.chat.prompt
            assert "Space fold" not in bar(driver)
        await driver.say("/messages")
        assert driver.chat.walking
        await driver.press("alt+up")  # as Up, so that it can be held
        assert driver.chat.transcript.current == 4
        await driver.press("x")  # what is no key is meant for the prompt
        assert driver.chat.prompt.text == "x"
        assert not driver.chat.walking


async def test_up_and_down(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first", "second"])) as driver:
        await talk(driver, "a", "b")
        await driver.press("shift+tab")
        seen = []
        for key in ("up", "up", "up", "up", "down", "down", "down", "down"):
            seen.append(driver.chat.transcript.current)
            await driver.press(key)
        assert seen == [5, 4, 3, 2, 2, 3, 4, 5]
        assert driver.chat.transcript.following


async def test_letters_are_letters_where_nothing_is_marked(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first"])) as driver:
        await exchange(driver, "a")
        for key in ("c", "r"):
            await driver.pilot.click("#transcript", offset=(30, 8))  # a click takes the focus there
            assert driver.chat.focused is driver.chat.transcript
            await driver.press(key)
        assert driver.chat.prompt.text == "cr"
        assert len(driver.sent()) == 1
        await driver.press("ctrl+t")
        first = driver.chat.focused
        await driver.press("down", "shift+tab")  # in the settings that is the row above
        assert isinstance(first, SettingRow)
        assert driver.chat.focused is first


async def test_words_that_are_typed_fast_are_no_keys(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first"])) as driver:
        await exchange(driver, "a")
        before = len(driver.backend.commands)
        await driver.press("shift+tab")
        for key in "/regenerate":
            driver.app.post_message(events.Key(key, key))
        await driver.settle()
        assert driver.chat.prompt.text == "/regenerate"
        assert len(driver.backend.commands) == before
        assert not driver.chat.walking


async def test_copying_a_message_and_a_block_of_code(open_chat: Open) -> None:
    async with open_chat(FakeBackend([CODE])) as driver:
        await exchange(driver, "a question")
        await driver.press("shift+tab", "c")
        assert driver.app.clipboard == CODE
        await driver.until(lambda: f"copied the message, {len(CODE)} characters, through" in driver.status)
        await driver.press("f")
        assert "block of code 1 of 2 · c copies it" in driver.status
        await driver.press("c")
        assert driver.app.clipboard == "x = 1"
        await driver.press("f", "c")
        assert driver.app.clipboard == "y"
        await driver.until(lambda: "copied the block of code, 1 character, through" in driver.status)
        await driver.press("f", "c")
        assert driver.app.clipboard == "x = 1"
        await driver.press("up", "f")
        assert "no block of code in this message" in driver.status
        await driver.press("c")
        assert driver.app.clipboard == "a question"


async def test_the_way_of_a_copy_is_named(open_chat: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_chat(FakeBackend(["one two"])) as driver:
        await exchange(driver, "a")
        await driver.press("f6")
        await driver.until(
            lambda: (
                driver.status
                == "copied the last reply, 7 characters, through the terminal (OSC 52), which may ignore it"
            )
        )

        async def run(*_: object) -> bool:
            return True

        monkeypatch.setattr(clipboard, "routes", lambda _: [clipboard.Route(("wl-copy",))])
        monkeypatch.setattr(clipboard, "_run", run)
        await driver.press("f6")
        await driver.until(lambda: driver.status == "copied the last reply, 7 characters, with wl-copy")
        await driver.type("word")
        driver.chat.prompt.select_all()
        await driver.press("ctrl+c")
        await driver.until(lambda: driver.status == "copied 4 characters with wl-copy")


async def test_editing_the_last_message(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first", "second"])) as driver:
        await exchange(driver, "a")
        await driver.press("shift+tab", "e")
        assert driver.chat.prompt.text == "a"
        assert driver.chat.focused is driver.chat.prompt
        assert "replaces the last message and its reply" in driver.status
        await exchange(driver, "b")
        assert driver.backend.commands[-2:] == [Rewind(None), Submit(2, "b")]
        assert "you ▸ a" not in driver.screen_text
        assert "message ◂ 2/2 ▸" in driver.screen_text


async def test_editing_a_message_further_up(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first", "second", "third", "fourth"])) as driver:
        await talk(driver, "a", "b", "c")
        await driver.type("a draft")
        await driver.press("shift+tab", "up", "up", "e")  # at the reply to b
        assert driver.chat.prompt.text == "b"
        assert "replaces this message and all that follows it" in driver.status
        await exchange(driver, "b, in other words")
        assert driver.backend.commands[-2:] == [Rewind(1), Submit(4, "b, in other words")]
        tree = driver.chat.session.conversation.tree
        assert [message.text for message in tree.path()] == ["a", "first", "b, in other words", "fourth"]
        assert [message.text for message in tree.children(1)] == ["b", "b, in other words"]
        said = [line.strip() for line in driver.screen_text.splitlines()]
        assert not any("you ▸ c" in line or "third" in line or line == "you ▸ b" for line in said)
        assert "message ◂ 2/2 ▸" in driver.screen_text
        await driver.press("up", "up")  # the draft is in the history
        assert driver.chat.prompt.text == "a draft"


async def test_leaving_a_message_as_it_was(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first", "second"])) as driver:
        await talk(driver, "a", "b")
        before = len(driver.backend.commands)
        await driver.press("alt+up", "up", "up", "up", "e", "escape")
        assert driver.chat.prompt.text == ""
        assert "the message stays as it was" in driver.status
        await exchange(driver, "c")
        assert driver.backend.commands[before:] == [Submit(3, "c")]


async def test_answering_again(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first", "second", "third", "fourth", "fifth"])) as driver:
        await talk(driver, "a", "b")
        await driver.press("shift+tab", "r")  # the last reply
        await driver.advance(2)
        assert driver.backend.commands[-2:] == [Rewind(2), Resume(3)]
        assert "third" in driver.screen_text
        assert "second" not in driver.screen_text
        assert driver.chat.focused is driver.chat.prompt
        await driver.press("shift+tab", "up", "up", "up", "r")  # the first message: what follows goes
        await driver.advance(2)
        assert driver.backend.commands[-2:] == [Rewind(0), Resume(4)]
        assert [one.user for one in driver.chat.session.conversation.exchanges] == ["a"]
        for gone in ("▸ first", "you ▸ b", "third"):
            assert gone not in driver.screen_text
        assert "fourth" in driver.screen_text
        assert "reply ◂ 2/2 ▸" in driver.screen_text
        await exchange(driver, "c")
        tree = driver.chat.session.conversation.tree
        assert [message.text for message in tree.path()] == ["a", "fourth", "c", "fifth"]


async def test_versions_of_the_marked_message(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first", "second", "third", "fourth"])) as driver:
        await talk(driver, "a", "b")
        await driver.press("shift+tab", "up", "up", "up", "e")
        await exchange(driver, "A")  # beside a
        await driver.press("ctrl+r")
        await driver.advance(2)
        await driver.press("shift+tab", "left_square_bracket")  # the reply to A
        assert "version 1 of 2" in driver.status
        assert "third" in driver.screen_text
        await driver.press("right_square_bracket")
        assert "fourth" in driver.screen_text
        assert driver.chat.walking
        await driver.press("up", "left_square_bracket")  # A itself
        assert "version 1 of 2" in driver.status
        assert "second" in driver.screen_text  # with all that followed a
        exchanges = driver.chat.session.conversation.exchanges
        assert [one.user for one in exchanges] == ["a", "b"]
        assert driver.chat.transcript.current == exchanges[0].user_key
        await driver.press("down", "left_square_bracket")
        assert "only one version" in driver.status
        assert driver.chat.transcript.current == exchanges[0].reply_key


async def test_folding(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["<think>\nhm\n</think>\nfirst\n\nmore"])) as driver:
        await exchange(driver, "a")
        assert "▸ thought for 1 line" in driver.screen_text
        assert "hm" not in driver.screen_text
        await driver.press("shift+tab", "space")
        assert "▾ thought for 1 line" in driver.screen_text
        assert "│ hm" in driver.screen_text
        await driver.press("space")
        assert "▸ 6 lines · first" in driver.screen_text
        assert "more" not in driver.screen_text
        await driver.press("c")
        assert driver.app.clipboard == "<think>\nhm\n</think>\nfirst\n\nmore"
        await driver.press("space")
        assert "more" in driver.screen_text


async def test_what_has_to_wait_for_a_reply_that_runs(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first", "one two three four five"])) as driver:
        await exchange(driver, "a")
        await driver.say("b")
        await driver.advance(0.5)
        before = list(driver.backend.commands)
        await driver.press("shift+tab", "up", "up")  # the first reply
        for key in ("e", "r", "left_square_bracket"):
            await driver.press(key)
            assert "a reply is still running; stop it first" in driver.status
        assert driver.backend.commands == before
        assert driver.chat.walking
        await driver.press("down", "down", "r")  # the one that runs is stopped for another
        assert driver.sent(Stop) == [Stop(2)]
        await driver.advance(3)
        assert driver.backend.commands[-1] == Resume(3)


async def test_a_click_on_the_key_bar_acts_on_the_marked_message(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first\n\nmore"])) as driver:
        await exchange(driver, "a")
        await driver.press("shift+tab")
        await driver.pilot.click("#keys", offset=(bar(driver).index("fold"), 0))
        assert "▸ 3 lines · first" in driver.screen_text
        await driver.pilot.click("#keys", offset=(bar(driver).index("copy"), 0))
        assert driver.app.clipboard == "first\n\nmore"


async def test_the_mode_survives_help_and_a_terminal_that_loses_the_focus(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first"])) as driver:
        await exchange(driver, "a")
        await driver.press("shift+tab", "f1", "escape")
        await driver.until(lambda: driver.app.screen is driver.chat)
        assert driver.chat.walking
        driver.app.app_focus = False
        await driver.settle()
        driver.app.app_focus = True
        await driver.settle()
        assert driver.chat.walking
        await driver.press("ctrl+t")
        assert driver.chat.transcript.current is None


@pytest.mark.parametrize("size", [(40, 12), (80, 24)])
async def test_it_works_where_there_is_little_room(open_chat: Open, size: tuple[int, int]) -> None:
    async with open_chat(FakeBackend(["first", "\n\n".join(["word " * 30] * 12)]), size=size) as driver:
        await talk(driver, "a", "b")
        await driver.press("shift+tab")
        await driver.press("up", "up", "up")
        assert driver.chat.transcript.current == 2
        assert "you ▸ a" in driver.screen_text
        await driver.press("down", "space")
        assert "▸ 1 line · first" in driver.screen_text


def test_every_key_of_the_scope_has_a_word_or_a_neighbour_with_one() -> None:
    without = {id for id, action in BY_ID.items() if action.scope == "transcript" and not action.bar}
    assert without == {"message_down", "sibling_after"}  # shown with the one before
