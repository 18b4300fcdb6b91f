"""The list of saved chats: found, opened, renamed, deleted and brought back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual import events

from core.config.read import Config
from core.engine.commands import OpenChat, Submit
from core.engine.events import Saved
from core.history.records import Chat
from core.history.store import History
from tests.core.saved_chats import chat, reply, user
from tests.fake_backend import FakeBackend
from tests.tui.conftest import Driver, Open
from tui.screens.chats import ChatsScreen

DAY = 86_400.0


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path / "history.db")
    yield history
    history.close()


def talk(title: str, *said: str, ago: float = 0.0) -> Chat:
    """A chat in which each text has a reply."""
    at = time.time() - ago
    messages = []
    for number, text in enumerate(said or ("hello",)):
        messages += [user(2 * number + 1, 2 * number or None, text, at)]
        messages += [reply(2 * number + 2, 2 * number + 1, f"answer to {text}", at)]
    return chat(*messages, title=title, updated=at)


def three(history: History) -> tuple[int, int, int]:
    """Foxes an hour old, hens of yesterday, the moon of long ago; their numbers."""
    moon = history.add(talk("The moon", "how far is the moon", ago=900 * DAY))
    hens = history.add(talk("Hens", "how many hens", ago=DAY))
    foxes = history.add(talk("Foxes", "why do foxes hunt alone", "and at night", ago=1))
    return foxes, hens, moon


async def opened(driver: Driver, words: str = "") -> ChatsScreen:
    """The list, with its first rows."""
    if words:
        await driver.say(f"/chats {words}")
    else:
        await driver.press("ctrl+o")
    await driver.until(lambda: isinstance(driver.app.screen, ChatsScreen))
    return await listed(driver)


async def listed(driver: Driver) -> ChatsScreen:
    """The list, once it shows what is searched for."""
    screen = driver.app.screen
    assert isinstance(screen, ChatsScreen)
    await driver.until(lambda: screen.search.is_mounted and not screen.searching)
    await driver.settle()
    return screen


async def closed(driver: Driver) -> None:
    await driver.until(lambda: driver.app.screen is driver.chat)
    await driver.settle()


def titles(screen: ChatsScreen) -> list[str]:
    return [row.title for row in screen.chats.rows]


async def test_what_is_saved_is_listed_newest_first(open_chat: Open, history: History) -> None:
    three(history)
    async with open_chat(history=history) as driver:
        screen = await opened(driver)
        assert titles(screen) == ["Foxes", "Hens", "The moon"]
        lines = [line for line in driver.screen_text.splitlines() if "msg" in line]
        assert ["Foxes" in lines[0], "Hens" in lines[1], "The moon" in lines[2]] == [True] * 3
        assert "today" in lines[0]
        assert "yesterday" in lines[1]
        assert "4 msg  llama" in lines[0]
        assert "2 msg" in lines[1]
        for key in ("Enter open", "Esc close", "Del delete", "F2 rename", "ctrl+z undo", "ctrl+s export"):
            assert key in driver.screen_text


async def test_typing_searches_and_the_match_is_marked(open_chat: Open, history: History) -> None:
    three(history)
    async with open_chat(history=history) as driver:
        screen = await opened(driver)
        await driver.press(*"hunt al")
        await driver.until(lambda: titles(screen) == ["Foxes"])
        await driver.settle()
        strips = driver.app.screen._compositor.render_strips()
        marked = {
            segment.text.strip()
            for strip in strips
            for segment in strip
            if segment.style and segment.style.bold and segment.text.strip() in ("hunt", "alone")
        }
        assert marked == {"hunt", "alone"}
        assert "why do foxes hunt alone" in driver.screen_text
        await driver.press("backspace", "backspace", "x")
        await driver.until(lambda: "no chat has words that begin with hunt x" in driver.screen_text)
        assert titles(screen) == []
        await driver.press("enter", "delete", "f2", "ctrl+s")  # there is nothing under the cursor
        assert driver.app.screen is screen
        await driver.press("escape")
        await driver.until(lambda: len(titles(screen)) == 3)
        assert screen.search.value == ""
        assert "no chat has" not in driver.screen_text
        await driver.press("escape")
        await closed(driver)


async def test_words_behind_the_command_are_searched_for(open_chat: Open, history: History) -> None:
    three(history)
    async with open_chat(history=history) as driver:
        screen = await opened(driver, "hens")
        assert screen.search.value == "hens"
        assert titles(screen) == ["Hens"]
        await driver.press("s")  # goes on behind them
        assert screen.search.value == "henss"


async def test_the_cursor_moves_and_letters_go_to_the_search_box(open_chat: Open, history: History) -> None:
    three(history)
    async with open_chat(history=history) as driver:
        screen = await opened(driver)
        rows = []
        for key in ("down", "down", "down", "up", "home", "end", "pageup", "pagedown", "up"):
            await driver.press(key)
            assert screen.chats.row is not None
            rows.append(screen.chats.row.title)
        moon, hens, foxes = "The moon", "Hens", "Foxes"
        assert rows == [hens, moon, moon, hens, foxes, moon, foxes, moon, hens]
        await driver.press("h", "left", "o")
        assert screen.search.value == "oh"


async def test_enter_opens(open_chat: Open, history: History) -> None:
    foxes, hens, _ = three(history)
    async with open_chat(FakeBackend(["They are shy."]), history=history) as driver:
        await opened(driver)
        await driver.press("enter")
        await closed(driver)
        assert "why do foxes hunt alone" in driver.screen_text
        assert "answer to and at night" in driver.screen_text
        assert driver.screen_text.splitlines()[0].count("Foxes") == 1
        [sent] = driver.sent(OpenChat)
        assert (sent.chat, sent.head, len(sent.messages)) == (foxes, sent.messages[-1].id, 4)
        await driver.say("why?")
        await driver.advance(2)
        assert "They are shy." in driver.screen_text
        assert driver.sent(Submit) == [Submit(3, "why?")]
        screen = await opened(driver)
        marked = [line for line in driver.screen_text.splitlines() if "●" in line and "msg" in line]
        assert len(marked) == 1
        assert "Foxes" in marked[0]
        await driver.press("enter")  # it is open
        await closed(driver)
        await opened(driver)
        await driver.press("down", "enter")
        await closed(driver)
        assert [one.chat for one in driver.sent(OpenChat)] == [foxes, hens]
        assert screen is not driver.app.screen


async def test_enter_waits_for_the_search_that_was_typed(open_chat: Open, history: History) -> None:
    _, hens, _ = three(history)
    async with open_chat(history=history) as driver:
        await opened(driver)
        for key in (*"hens", "enter"):  # all at once
            driver.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await closed(driver)
        assert driver.chat.session.chat == hens


async def test_a_click_opens(open_chat: Open, history: History) -> None:
    _, hens, _ = three(history)
    async with open_chat(history=history) as driver:
        await opened(driver)
        lines = driver.screen_text.splitlines()
        y = next(y for y, line in enumerate(lines) if "Hens" in line)
        await driver.pilot.click(offset=(lines[y].index("Hens"), y))
        await closed(driver)
        assert driver.chat.session.chat == hens


async def test_its_keys_can_be_changed(open_chat: Open, history: History) -> None:
    three(history)
    config = Config(Path("config.toml"), keys={"delete_chat": "ctrl+d"})
    async with open_chat(history=history, config=config) as driver:
        screen = await opened(driver)
        assert "ctrl+d delete" in driver.screen_text
        await driver.press("delete")
        assert len(titles(screen)) == 3
        await driver.press("ctrl+d")
        assert len(titles(screen)) == 2


async def test_delete_and_undo_in_reverse_order(open_chat: Open, history: History) -> None:
    three(history)
    async with open_chat(history=history) as driver:
        screen = await opened(driver)
        await driver.press("down", "delete")
        await driver.until(lambda: len(history.rows()) == 2)
        await driver.settle()
        assert titles(screen) == ["Foxes", "The moon"]
        assert screen.chats.row is not None
        assert screen.chats.row.title == "The moon"
        assert "deleted 'Hens' · ctrl+z brings it back" in driver.screen_text
        await driver.press("up", "delete", "delete")
        await driver.until(lambda: history.rows() == [])
        assert titles(screen) == []
        await driver.press("escape")
        await closed(driver)
        screen = await opened(driver)  # and what is gone can still come back
        assert "no chat is saved yet" in driver.screen_text
        for back in (["The moon"], ["Foxes", "The moon"], ["Foxes", "Hens", "The moon"]):
            await driver.press("ctrl+z")
            await driver.until(lambda back=back: titles(screen) == back)
            assert [row.title for row in history.rows()] == back
        await driver.press("ctrl+z")
        assert "nothing was deleted" in driver.screen_text


async def test_a_chat_that_is_open_and_deleted_becomes_a_new_one(open_chat: Open, history: History) -> None:
    foxes, *_ = three(history)
    async with open_chat(history=history) as driver:
        await opened(driver)
        await driver.press("enter")
        await closed(driver)
        await opened(driver)
        await driver.press("delete")
        await driver.until(lambda: driver.chat.session.chat is None)
        assert driver.sent(OpenChat)[-1] == OpenChat()
        screen = await listed(driver)
        await driver.press("ctrl+z")
        await driver.until(lambda: len(titles(screen)) == 3)
        assert "●" not in "".join(line for line in driver.screen_text.splitlines() if "msg" in line)
        await driver.press("enter")
        await closed(driver)
        assert driver.chat.session.chat == foxes
        assert "why do foxes hunt alone" in driver.screen_text


async def test_rename_in_the_list_and_of_the_open_chat(open_chat: Open, history: History) -> None:
    foxes, *_ = three(history)
    async with open_chat(history=history) as driver:
        screen = await opened(driver)
        await driver.press("enter")
        await closed(driver)
        screen = await opened(driver)
        await driver.press("f2")
        await driver.until(lambda: driver.app.screen is not screen)
        await driver.settle()
        assert "Foxes" in driver.screen_text
        await driver.press(*" [b]&", "enter")
        await driver.until(lambda: titles(screen)[0] == "Foxes [b]&")
        assert driver.app.screen is screen
        await driver.press("escape")
        await closed(driver)
        assert "Foxes [b]&" in driver.screen_text.splitlines()[0]
        await driver.say("/rename Night hunters")
        await driver.until(lambda: history.load(foxes).title == "Night hunters")
        await driver.settle()
        assert "Night hunters" in driver.screen_text.splitlines()[0]
        assert "this chat is now called Night hunters" in driver.status
        await driver.say("/rename")
        await driver.until(lambda: driver.app.screen is not driver.chat)
        await driver.press("ctrl+u", "enter")
        await driver.until(lambda: "a title needs a word" in driver.status)
        await driver.press("ctrl+n")
        assert "Night hunters" not in driver.screen_text.splitlines()[0]
        await driver.say("/rename again")
        assert "not saved yet" in driver.status


async def test_the_title_comes_with_the_number(open_chat: Open, history: History) -> None:
    async with open_chat(history=history) as driver:
        driver.backend.emit(Saved(7, "of a chat that was left"))
        await driver.settle()
        assert driver.chat.session.chat is None
        await driver.say("hi")
        driver.backend.emit(Saved(8, "Hi [there]"))
        await driver.settle()
        assert driver.chat.session.chat == 8
        assert "Hi [there]" in driver.screen_text.splitlines()[0]


async def test_export_never_overwrites(
    open_chat: Open, history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    history.add(talk("Foxes & hens: why?", "why do foxes hunt alone"))
    async with open_chat(history=history, size=(200, 40)) as driver:
        await opened(driver)
        await driver.press("ctrl+s")
        await driver.until(lambda: f"written to {tmp_path / 'foxes-hens-why.md'}" in driver.screen_text)
        await driver.press("ctrl+s")
        await driver.until(lambda: f"written to {tmp_path / 'foxes-hens-why-2.md'}" in driver.screen_text)
        text = (tmp_path / "foxes-hens-why.md").read_text("utf-8")
        assert "why do foxes hunt alone" in text
        assert (tmp_path / "foxes-hens-why-2.md").read_text("utf-8") == text
        await driver.press("enter")
        await closed(driver)
        await driver.say("/export chat.json")
        await driver.until(lambda: f"written to {tmp_path / 'chat.json'}" in driver.status)
        assert (tmp_path / "chat.json").read_text("utf-8").startswith('{"format"')
        await driver.say("/export chat.json")
        await driver.until(lambda: "chat.json is there already; give another name" in driver.status)
        await driver.say("/export no/such/folder.md")
        await driver.until(lambda: "cannot be written: No such file" in driver.status)


async def test_without_a_history_every_deed_says_so(open_chat: Open) -> None:
    async with open_chat() as driver:
        for line in ("/chats", "/rename x", "/export"):
            await driver.say(line)
            assert "--no-history" in driver.status
        await driver.press("ctrl+o")
        assert "--no-history" in driver.status
        assert driver.app.screen is driver.chat
