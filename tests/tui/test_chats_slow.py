"""The list of chats on a history that is slow, fails, is long, or holds hostile text."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from rich.cells import cell_len

from core.errors import UserError
from core.history.records import Chat, ChatRow
from tests.core.saved_chats import chat, reply, user
from tests.tui.conftest import Open
from tests.tui.test_chats import closed, listed, opened, titles
from tests.tui.test_sizes import SIZES
from tui.history_thread import HistoryThread
from tui.widgets.chat_list import ChatList, when


def rows_of(count: int) -> list[ChatRow]:
    return [ChatRow(id, f"chat {id}", 0.0, 1e9, 2, "llama") for id in range(1, count + 1)]


class MadeUpHistory:
    """Rows in memory. `gate` holds up the calls that are `slow`; `broken` is what every call raises."""

    def __init__(self, rows: list[ChatRow], slow: Callable[[str], bool] = lambda call: False) -> None:
        self.all = rows
        self.slow, self.broken = slow, ""
        self.gate = threading.Event()
        self.calls: list[str] = []
        self.interrupts = 0
        self._stop = threading.Event()

    def _called(self, call: str) -> None:
        self.calls.append(call)
        self._stop.clear()
        while self.slow(call) and not self.gate.wait(0.001):
            if self._stop.is_set():
                raise UserError("interrupted")
        if self.broken:
            raise UserError(self.broken)

    def tell(self, notify: object) -> None: ...

    def interrupt(self) -> None:
        self.interrupts += 1
        self._stop.set()

    def rows(self, skip: int = 0, count: int = 50) -> list[ChatRow]:
        self._called(f"rows {skip} {count}")
        return self.all[skip : skip + count]

    def search(self, words: str, skip: int = 0, count: int = 50) -> list[ChatRow]:
        self._called(f"search {words} {skip}")
        return [row for row in self.all if words in row.title][skip : skip + count]

    def load(self, chat_id: int) -> Chat:
        self._called(f"load {chat_id}")
        [row] = [row for row in self.all if row.id == chat_id] or [None]
        if row is None:
            raise KeyError(chat_id)
        return replace(chat(user(1, None, "hello"), reply(2, 1, "said"), title=row.title), id=chat_id)

    def delete(self, chat_id: int) -> None:
        self._called(f"delete {chat_id}")
        self.all = [row for row in self.all if row.id != chat_id]

    def restore(self, chat_id: int) -> None:
        self._called(f"restore {chat_id}")

    def rename(self, chat_id: int, title: str) -> None:
        self._called(f"rename {chat_id}")
        raise KeyError(chat_id)


# --- slow -----------------------------------------------------------------------------------------


async def test_a_newer_search_ends_the_older_one_and_late_answers_are_dropped(open_chat: Open) -> None:
    history = MadeUpHistory(rows_of(30), slow=lambda call: call.startswith(("search c 0", "search ch 0")))
    async with open_chat(history=history) as driver:
        screen = await opened(driver)
        await driver.press("c")
        await driver.until(lambda: "search c 0" in history.calls)
        await driver.until(lambda: "searching" in driver.screen_text)
        await driver.press("down", "down")  # nothing waits for it
        assert screen.chats.row is not None
        assert screen.chats.row.id == 3
        await driver.press("h")
        await driver.until(lambda: "search ch 0" in history.calls)
        await driver.press("a", "t", " ", "7")
        await driver.until(lambda: titles(screen) == ["chat 7"])
        assert history.interrupts >= 2
        assert "searching" not in driver.screen_text
        history.gate.set()
        await driver.settle()
        assert titles(screen) == ["chat 7"]


async def test_closing_ends_a_search(open_chat: Open) -> None:
    history = MadeUpHistory(rows_of(3), slow=lambda call: call.startswith("search"))
    async with open_chat(history=history) as driver:
        await opened(driver)
        await driver.press("x")
        await driver.until(lambda: "search x 0" in history.calls)
        await driver.press("escape", "escape")
        await closed(driver)
        await driver.until(lambda: history.interrupts > 0)
        screen = await opened(driver)
        assert len(titles(screen)) == 3


async def test_the_list_is_there_before_its_rows(open_chat: Open) -> None:
    history = MadeUpHistory(rows_of(3), slow=lambda call: True)
    async with open_chat(history=history) as driver:
        await driver.press("ctrl+o")
        await driver.until(lambda: "searching" in driver.screen_text)
        await driver.press("enter")  # opens the first one when it comes
        await driver.settle()
        history.gate.set()
        await closed(driver)
        assert driver.chat.session.chat == 1
        assert "hello" in driver.screen_text


async def test_a_deletion_is_done_and_told_of_whether_the_list_is_open_or_not(open_chat: Open) -> None:
    history = MadeUpHistory(rows_of(3), slow=lambda call: call.startswith("delete"))
    async with open_chat(history=history) as driver:
        screen = await opened(driver)
        await driver.press("delete", "delete")
        assert titles(screen) == ["chat 3"]
        await driver.press("escape")
        await closed(driver)
        history.gate.set()
        await driver.until(lambda: len(history.all) == 1)
        assert history.interrupts == 0
        history.broken = "the history is read-only"
        screen = await opened(driver)
        await driver.until(lambda: "the history is read-only" in driver.screen_text)
        history.broken = ""
        await driver.press("3", "backspace")
        await driver.until(lambda: titles(screen) == ["chat 3"])
        history.gate.clear()
        history.broken = "the disk is full"
        await driver.press("delete", "escape")
        await closed(driver)
        history.gate.set()
        await driver.until(lambda: "the disk is full" in driver.status)


async def test_what_is_being_deleted_is_not_found_again(open_chat: Open) -> None:
    history = MadeUpHistory(rows_of(3), slow=lambda call: call.startswith("search"))
    async with open_chat(history=history) as driver:
        screen = await opened(driver)
        await driver.press("c")
        await driver.until(lambda: "search c 0" in history.calls)
        await driver.press("delete")
        history.gate.set()
        await driver.until(lambda: not screen.searching and len(history.all) == 2)
        assert titles(screen) == ["chat 2", "chat 3"]


# --- failing --------------------------------------------------------------------------------------


async def test_a_history_that_cannot_be_read_is_shown_and_the_chat_goes_on(open_chat: Open) -> None:
    history = MadeUpHistory(rows_of(3))
    async with open_chat(history=history) as driver:
        history.broken = "the history [/x] cannot be read"
        screen = await opened(driver)
        assert "the history [/x] cannot be read" in driver.screen_text
        assert titles(screen) == []
        history.broken = ""
        await driver.press("2")
        await driver.until(lambda: titles(screen) == ["chat 2"])
        assert "cannot be read" not in driver.screen_text
        history.broken = "the disk is gone"
        await driver.press("delete")
        await driver.until(lambda: "the disk is gone" in driver.screen_text)
        assert titles(screen) == ["chat 2"]
        await driver.press("ctrl+z")  # it was not deleted
        assert "nothing was deleted" in driver.screen_text
        await driver.press("enter")
        await driver.until(lambda: "the disk is gone" in driver.screen_text)
        await driver.press("escape")
        await driver.until(lambda: not screen.searching)
        await driver.press("escape")
        await closed(driver)
        await driver.say("hi")
        await driver.advance(2)
        assert "Hello there." in driver.screen_text


async def test_a_chat_that_another_window_has_removed_leaves_the_list(open_chat: Open) -> None:
    history = MadeUpHistory(rows_of(3))
    async with open_chat(history=history) as driver:
        screen = await opened(driver)
        history.all = history.all[1:]
        await driver.press("enter")
        await driver.until(lambda: "'chat 1' is not there any more" in driver.screen_text)
        assert titles(screen) == ["chat 2", "chat 3"]
        await driver.press("f2")
        await driver.until(lambda: driver.app.screen is not screen)
        await driver.press("!", "enter")
        await driver.until(lambda: titles(screen) == ["chat 3"])


# --- long -----------------------------------------------------------------------------------------


async def test_rows_come_fifty_at_a_time_when_the_cursor_is_near_the_end(open_chat: Open) -> None:
    history = MadeUpHistory(rows_of(130))
    async with open_chat(history=history, size=(80, 24)) as driver:
        screen = await opened(driver)
        assert len(titles(screen)) == 50
        for _ in range(20):
            await driver.press("down")
        assert len(titles(screen)) == 50
        history.all.insert(0, ChatRow(999, "new meanwhile", 0.0, 1e9, 2, "llama"))
        for _ in range(10):
            await driver.press("down")
        await driver.until(lambda: len(titles(screen)) == 99)  # one of them was there already
        assert screen.chats.row is not None
        assert screen.chats.row.id == 31
        await driver.press("end")
        await driver.until(lambda: len(titles(screen)) == 130)
        await driver.press("end")
        await driver.settle()
        assert titles(screen) == [f"chat {id}" for id in range(1, 131)]
        assert screen.chats.row.id == 130
        assert [call for call in history.calls if call.startswith("rows")] == [
            "rows 0 50", "rows 50 50", "rows 99 50",
        ]  # fmt: skip
        assert "chat 130" in driver.screen_text


async def test_an_end_that_was_said_before_rows_came_fetches_no_more(open_chat: Open) -> None:
    history = MadeUpHistory(rows_of(130))
    async with open_chat(history=history, size=(80, 24)) as driver:
        screen = await opened(driver)
        screen.chats.post_message(ChatList.NearEnd())
        await driver.settle()
        await driver.settle()
        assert [call for call in history.calls if call.startswith("rows")] == ["rows 0 50"]
        screen.chats.move(45)
        await driver.until(lambda: len(titles(screen)) == 100)


async def test_a_tall_view_and_the_mouse_wheel_fetch_more(open_chat: Open) -> None:
    history = MadeUpHistory(rows_of(300))
    async with open_chat(history=history, size=(120, 60)) as driver:
        screen = await opened(driver)
        await driver.until(lambda: len(titles(screen)) == 100)
        screen.chats.scroll_to(y=60, animate=False)
        await driver.until(lambda: len(titles(screen)) == 150)
        assert screen.chats.highlighted == 0


# --- hostile --------------------------------------------------------------------------------------

HOSTILE = [
    "[bold red]red[/] [/nope] [@click=app.quit]x[/]",
    "\x1b]52;c;aGk=\x07\x1b[31mred\u202egnp",
    "\u6771\u4eac" * 300,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f98a " * 40,
    "x" * 10_000,
    "a\nb\tc\r\n  d",
    "",
]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_hostile_texts_stay_in_their_line_at_every_size(open_chat: Open, size: tuple[int, int]) -> None:
    excerpts = [((text[:60], False), (text[60:90] or "y", True), (text[90:2000], False)) for text in HOSTILE]
    found = [
        ChatRow(id, text, 0.0, 1e9, 2, text, excerpt)
        for id, (text, excerpt) in enumerate(zip(HOSTILE, excerpts, strict=True), 1)
    ]
    async with open_chat(history=MadeUpHistory(found), size=size) as driver:
        screen = await opened(driver)
        assert len(titles(screen)) == len(HOSTILE)
        for key in ("down", "end", "home"):
            await driver.press(key)
        shown = driver.screen_text
        assert not any(ord(character) < 32 and character != "\n" for character in shown)
        assert "\u202e" not in shown
        assert "[bold red]" in shown
        lines = shown.split("\n")
        assert len(lines) == size[1]
        assert max(map(cell_len, lines)) <= size[0]
        assert "Enter open" in shown
        await driver.press("delete")
        assert "deleted '[bold red]red" in driver.screen_text
        await driver.press(*"abc")
        assert screen.search.value == "abc"
        await driver.pilot.resize_terminal(200, 60)
        await driver.pilot.resize_terminal(*size)
        await listed(driver)


# --- the thread -----------------------------------------------------------------------------------


async def test_the_thread_skips_what_nobody_waits_for_but_writes_all() -> None:
    history = MadeUpHistory([], slow=lambda call: call == "slow")
    thread = HistoryThread(history)  # type: ignore[arg-type]
    done: list[str] = []

    async def run(deed: str, *, write: bool) -> None:
        await (thread.write if write else thread.read)(lambda h: (h._called(deed), done.append(deed)))  # type: ignore[attr-defined]

    tasks = [asyncio.create_task(run("slow", write=True))]
    tasks += [asyncio.create_task(run(f"{n}", write=n % 2 == 0)) for n in range(6)]
    await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert history.interrupts == 0
    history.gate.set()
    thread.close(5)
    assert done == ["slow", "0", "2", "4"]


async def test_a_fault_in_the_history_is_told_and_ends_nothing() -> None:
    thread = HistoryThread(MadeUpHistory([]))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="the history failed: ZeroDivisionError"):
        await thread.read(lambda history: 1 // 0)
    with pytest.raises(KeyError):
        await thread.read(lambda history: {}[1])
    assert await thread.write(lambda history: 7) == 7
    thread.close(1)


def test_times_as_one_thinks_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    now = 1762178700.0  # 3 November 2025, 14:05
    assert when(now, now) == "today 14:05"
    assert when(now - 14 * 3600 - 240, now) == "today 00:01"
    assert when(now - 14 * 3600 - 360, now) == "yesterday"
    assert when(now - 86400 - 14 * 3600 - 360, now) == "1 Nov"
    assert when(now - 365 * 86400, now) == "2024-11-03"
    assert when(now + 86400, now) == "4 Nov"
    assert when(float("nan"), now) == when(1e30, now) == "no date"
    monkeypatch.undo()
    time.tzset()
