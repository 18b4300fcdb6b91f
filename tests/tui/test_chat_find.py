"""Finding words in the chat, driven as a user would."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from textual import events

from core.config.read import read_config
from tests.fake_backend import FakeBackend
from tests.tui.conftest import Driver, Open
from tui import keys
from tui.commands import BY_ID
from tui.widgets.find_line import FindLine

LONG = "\n\n".join(f"line {number}" for number in range(60))


def count(driver: Driver) -> str:
    """What the line says of the finds, or "" where it is closed."""
    line = next((line for line in driver.screen_text.splitlines() if line.startswith(" find ")), "")
    return line[25:].strip()


def without_bar(screen: str) -> list[str]:
    """The lines without the scroll bar, which knows more of the heights once one has been there."""
    return [line[:79].rstrip() for line in screen.splitlines()]


async def exchange(driver: Driver, text: str) -> None:
    await driver.say(text)
    await driver.advance(20)


async def test_words_are_found_as_they_are_typed(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["a fox and a Fox", "foxes"])) as driver:
        await driver.press("ctrl+f")
        assert "nothing has been sent yet" in driver.status
        await exchange(driver, "a")
        await exchange(driver, "b")
        await driver.press("ctrl+f")
        assert count(driver) == ""
        for key, said in (
            ("f", "1 of 3"),
            ("o", "1 of 3"),
            ("x", "1 of 3"),
            ("e", "1 of 1"),
            ("q", "nothing found"),
        ):
            await driver.press(key)
            assert count(driver) == said
        await driver.press("backspace", "backspace")
        for key, said in (
            ("enter", "2 of 3"),
            ("down", "3 of 3"),
            ("down", "1 of 3"),
            ("up", "3 of 3"),
            ("up", "2 of 3"),
        ):
            await driver.press(key)
            assert count(driver) == said
        assert driver.screen_text.splitlines()[-1].startswith(" Esc back  Enter next  Up previous")
        await driver.press("escape")
        assert count(driver) == ""
        assert driver.chat.focused is driver.chat.prompt
        assert len(driver.sent()) == 2


async def test_it_shows_what_was_far_away_and_goes_back(open_chat: Open) -> None:
    async with open_chat(FakeBackend([LONG]), size=(80, 24)) as driver:
        await exchange(driver, "go")
        before = driver.screen_text
        assert "line 59" in before
        top = re.findall(r"line (5\d)", before)[0]
        finds = [number for number in map(str, range(60)) for _ in range(number.count("5"))]
        await driver.type("a draft")
        await driver.say("/find line 7")
        assert count(driver) == "1 of 1"
        assert "line 7" in driver.screen_text
        assert not driver.chat.transcript.following
        await driver.press("escape")
        assert without_bar(driver.screen_text) == without_bar(before)
        assert driver.chat.transcript.following
        await driver.press("ctrl+f")  # with the words of the last time, to be replaced by typing
        assert count(driver) == "1 of 1"
        await driver.press("5")
        assert count(driver) == f"{finds.index(top) + 1} of {len(finds)}"  # from what was in view on
        await driver.press("escape")


async def test_from_a_find_to_its_message(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["first fox", "second", "third"])) as driver:
        for text in "abc":
            await exchange(driver, text)
        await driver.say("/find fox")
        await driver.press("shift+tab")
        assert count(driver) == ""
        assert driver.chat.walking
        assert driver.chat.transcript.current == 3
        await driver.press("ctrl+f", *"second")
        assert count(driver) == "1 of 1"
        await driver.press("escape")  # back to where one was
        assert driver.chat.walking
        assert driver.chat.transcript.current == 3
        await driver.press("escape")
        assert driver.chat.focused is driver.chat.prompt


async def test_a_reply_that_streams_is_searched_as_it_is(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["fox " * 30])) as driver:
        await driver.say("go")
        await driver.advance(0.55)
        await driver.say("/find fox")
        assert count(driver) == "1 of 4"
        await driver.advance(1)
        await driver.press("enter")
        assert count(driver).startswith("2 of 1")
        await driver.press("escape")  # closes the line, and only then stops
        assert driver.chat.session.busy
        await driver.press("escape")
        await driver.advance(1)
        assert not driver.chat.session.busy


async def test_another_chat_has_other_finds(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["fox"])) as driver:
        await exchange(driver, "a")
        await driver.say("/find fox")
        await driver.press("ctrl+n")
        await driver.press("enter", "up")
        assert count(driver) == "nothing found"
        await driver.press("escape")
        assert driver.chat.focused is driver.chat.prompt


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 40), (200, 60)])
async def test_there_is_room_for_it_at_every_size(open_chat: Open, size: tuple[int, int]) -> None:
    async with open_chat(FakeBackend(["fox " * 300]), size=size) as driver:
        await driver.say("go")
        await driver.advance(40)
        await driver.say("/find fox")
        await driver.settle()
        lines = driver.screen_text.splitlines()
        assert [line for line in lines if line.startswith(" find fox") and line.endswith("of 300")]
        assert any("fox fox" in line for line in lines)
        assert len(lines) == size[1]


async def test_keys_can_be_moved_one_by_one(open_chat: Open, tmp_path: Path) -> None:
    assert {id for id, action in BY_ID.items() if action.scope == "find"} == {"find_next", "find_previous"}
    path = tmp_path / "config.toml"
    path.write_text('[keys]\nfind_next = "ctrl+s"\nmessage_up = "k"\n', encoding="utf-8")
    async with open_chat(FakeBackend(["fox fox"]), config=read_config(path)) as driver:
        await exchange(driver, "a")
        await driver.say("/find fox")
        assert driver.screen_text.splitlines()[-1].startswith(" Esc back  ctrl+s next  Up previous")
        await driver.press("ctrl+s")
        assert count(driver) == "2 of 2"
        await driver.press("enter")
        assert count(driver) == "2 of 2"
        await driver.press("up")
        assert count(driver) == "1 of 2"
        await driver.press("escape", "shift+tab", "k")
        assert driver.chat.transcript.current == 2
        await driver.press("down")
        assert driver.chat.transcript.current == 3
    keys.use({})


async def test_an_enter_waits_for_the_letters_before_it(open_chat: Open) -> None:
    async with open_chat(FakeBackend(["fo fox fox"])) as driver:
        await exchange(driver, "a")
        await driver.press("ctrl+f")
        for key in (*"fox", "enter"):  # all at once, as a fast hand or a paste has them
            driver.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await driver.settle()
        assert driver.chat.query_one(FindLine).input.value == "fox"
        assert count(driver) == "2 of 2"
