"""A thousand keys, clicks, scrolls, pastes, sizes and themes while replies stream: nothing breaks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from textual import events
from textual.geometry import Size

from core.history.store import History
from tests.core.saved_chats import chat, reply, user
from tests.fake_backend import LLAMA_7B, FakeBackend, loads
from tests.fake_plans import plan_7b
from tests.hostile import CASES, PAYLOAD
from tests.tui.conftest import Driver, Open
from tui.app import LlamaApp
from tui.commands import ACTIONS
from tui.screens.chat import ChatScreen

STEPS = 350
SIZES = ((40, 12), (80, 24), (120, 40), (200, 60), (20, 5))
KEYS = sorted({key for action in ACTIONS if action.id != "quit" for key in action.keys})
LETTERS = "abcdefghij 0123456789/[]\\é漢"
LINES = (
    "/set temperature 0.5",
    "/keep auto",
    "/keep none",
    "/unload",
    "/new",
    "/erase",
    "/debug",
    "/reset",
    "go on",
)
REPLIES = [
    "word " * 300,
    "- item\n" * 60,
    "```py\nx = 1\n" * 40,
    *(case.pieces for case in CASES if len(case.pieces) < 1000),
]


class Monkey:
    """Does one thing after another to an app, drawn from a generator."""

    def __init__(self, driver: Driver, rng: random.Random) -> None:
        self._driver, self._app, self._rng = driver, driver.app, rng
        self._deeds: list[tuple[Callable[[], None], int]] = [
            (self._key, 50),
            (self._letter, 15),
            (self._click, 15),
            (self._scroll, 10),
            (self._drag, 4),
            (self._line, 3),
            (self._paste, 1),
            (self._resize, 1),
            (self._theme, 1),
        ]

    async def act(self, steps: int) -> None:
        deeds, weights = zip(*self._deeds, strict=True)
        for step in range(steps):
            self._rng.choices(deeds, weights)[0]()
            for _ in range(self._rng.randrange(4)):
                await asyncio.sleep(0)
            if step % 5 == 0:
                self._driver.backend.advance(self._rng.random() / 4)
                await self._driver.settle()

    def _key(self) -> None:
        key = self._rng.choice(KEYS)
        self._app.post_message(events.Key(key, key if len(key) == 1 else None))

    def _letter(self) -> None:
        letter = self._rng.choice(LETTERS)
        self._app.post_message(events.Key(letter, letter))

    def _line(self) -> None:
        self._driver.chat.prompt.replace_text(self._rng.choice(LINES))
        self._app.post_message(events.Key("enter", "\r"))

    def _paste(self) -> None:
        self._app.post_message(events.Paste(PAYLOAD))

    def _click(self) -> None:
        x, y = self._place()
        for kind in (events.MouseMove, events.MouseDown, events.MouseUp):
            self._mouse(kind, x, y)

    def _drag(self) -> None:
        for kind in (events.MouseDown, events.MouseMove, events.MouseMove, events.MouseUp):
            self._mouse(kind, *self._place())

    def _scroll(self) -> None:
        kind = self._rng.choice((events.MouseScrollUp, events.MouseScrollDown))
        self._mouse(kind, *self._place())

    def _place(self) -> tuple[int, int]:
        width, height = self._app.size
        return self._rng.randrange(width), self._rng.randrange(height)

    def _mouse(self, kind: type[events.MouseEvent], x: int, y: int) -> None:
        button = 0 if kind is events.MouseMove else 1
        self._app.post_message(kind(None, x, y, 0, 0, button, False, False, False, screen_x=x, screen_y=y))

    def _resize(self) -> None:
        size = Size(*self._rng.choice(SIZES))
        assert self._app._driver is not None
        self._app._driver._size = size
        self._app.post_message(events.Resize(size, size))

    def _theme(self) -> None:
        self._app.theme = self._rng.choice(sorted(self._app.available_themes))


async def rest(driver: Driver) -> None:
    """Back to the chat, with nothing running and nothing waiting."""
    for _ in range(12):
        await driver.press("escape")
        driver.backend.advance(5)
        await driver.settle()
    await driver.until(lambda: isinstance(driver.app.screen, ChatScreen))
    await driver.until(lambda: not driver.chat.session.busy)
    driver.chat.prompt.clear()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_thousand_deeds_at_random(
    open_chat: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.chdir(tmp_path)  # files are exported here
    monkeypatch.setenv("LLAMA_TUI_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setattr(LlamaApp, "exit", lambda *arguments: None)  # two ctrl+c, a click on "quit"
    history = History(tmp_path / "history.db")
    for number in range(30):
        history.add(chat(user(1, None, f"question {number}"), reply(2, 1, f"answer {number}")))
    backend = FakeBackend(REPLIES, load=loads(plan_7b(), LLAMA_7B), token_s=0.02)
    async with open_chat(backend, history=history) as driver:
        widgets = len(driver.chat.query("*"))
        driver.chat.send("begin")
        await Monkey(driver, random.Random(seed)).act(STEPS)
        await rest(driver)

        conversation, transcript = driver.chat.session.conversation, driver.chat.transcript
        await driver.say("are you there?")
        await driver.until(lambda: backend.advance(1) or not driver.chat.session.busy)
        texts = [text for exchange in conversation.exchanges for text in (exchange.user, exchange.reply)]
        keys = [key for exchange in conversation.exchanges for key in (exchange.user_key, exchange.reply_key)]
        assert texts[-2] == "are you there?"
        assert texts[-1] != ""
        assert [transcript.text_of(key) for key in keys] == texts
        assert [message.text for message in backend._talk.path()] == texts
        assert driver.chat.focused is not None
        assert len(driver.chat.query("*")) == widgets
        assert [worker for worker in driver.app.workers if not worker.is_finished] == []
