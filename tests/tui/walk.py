"""A chat on the fake backend, and the way from screen to screen in it, always with the same figures."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.history.records import Chat
from core.history.store import History
from tests.core.saved_chats import chat, reply, user
from tests.fake_backend import FakeBackend, loads
from tests.fake_plans import plan_7b, readings
from tests.tui.conftest import Driver
from tests.tui.expected_screens import SAID
from tui.screens.chats import ChatsScreen
from tui.screens.gauges import GaugesScreen
from tui.widgets.gauges import Gauges

NOON, DAY = 1_004_788_800.0, 86_400.0  # of a day long ago, so that lists show dates
PLAN, TOKEN_S = plan_7b(), 0.25
REPLIES = (
    "Foxes are solitary hunters.",
    """Three reasons:

1. **Prey** is small, a mouse or a hen.
2. Foxes `stalk`.

```python
def hunt(hens: int) -> str:
    return "alone"  # always
```

They hunt at dusk, at dawn, in the long grass, along hedges, beside walls, behind barns, over fields,
under the moon, near the brook, and far from the pack.""",
)


def _talk(title: str, days: int, *said: str, **launch: object) -> Chat:
    """A chat of a day long ago."""
    at, messages = NOON + days * DAY, []
    for number, text in enumerate(said):
        messages += [user(2 * number + 1, 2 * number or None, text, at)]
        messages += [reply(2 * number + 2, 2 * number + 1, f"answer to {text}", at)]
    launch = launch or {"checkpoint": "/models/llama-7b", "vram": 9 * 10**9}
    return replace(chat(*messages, title=title, updated=at), launch=launch, model="llama-7b")


def steered() -> dict[str, Any]:
    """How the chat is opened."""
    backend = FakeBackend(REPLIES, load=loads(PLAN), token_s=TOKEN_S, surprise=4.8)
    return {"backend": backend, "values": {"mirostat": 2}}


def past(folder: Path) -> History:
    """Three chats of long ago."""
    history = History(folder / "history.db")
    history.add(_talk("The moon", 0, "how far is it"))
    history.add(_talk("Hens and other poultry", 1, "how many", "and now"))
    history.add(_talk("Foxes", 2, "why do they hunt alone"))
    return history


async def meter(driver: Driver, speed: float) -> None:
    """A reading of the meters, in the graphs before the next one comes."""
    kept = driver.chat.query_one(Gauges).readings.to_gpu.values
    count = len(kept)
    driver.backend.emit(readings(PLAN, speed=speed))
    await driver.until(lambda: len(kept) == count + 1)


async def still(driver: Driver) -> None:
    """Wait until the screen is what it will be as long as nothing happens."""
    before = ""
    while (text := driver.screen_text) != before:
        before = text
        await asyncio.sleep(0.02)
        await driver.settle()


async def asked(driver: Driver) -> None:
    """One question is asked and answered."""
    await meter(driver, 0)
    await driver.say("Why do foxes hunt alone?")
    await driver.advance(3)


async def streaming(driver: Driver) -> None:
    """And the reply to another one is on its way."""
    await driver.say("Give me reasons.")
    for second in range(12):
        await meter(driver, 0.5 + 0.4 * math.sin(second))
        for _ in range(4):
            await driver.advance(TOKEN_S)  # token by token, so that the speed is what it is
    await driver.until(lambda: SAID in driver.screen_text)


async def screens(driver: Driver) -> AsyncIterator[str]:
    """From screen to screen by keyboard; the name of each."""
    await asked(driver)
    yield "chat"
    await streaming(driver)
    yield "streaming"
    await driver.press("ctrl+t")
    yield "settings"
    await driver.press("escape", "f3")
    page = driver.app.screen
    assert isinstance(page, GaugesScreen)
    for _ in range(2):  # texts that grow push the graphs into another place
        page._paint()
        await driver.settle()
    yield "gauges"
    await driver.press("f4")
    yield "map"
    await driver.press("f12")
    await driver.until(lambda: "INFO" in driver.screen_text)
    yield "log"
    await driver.press("escape", "f1")
    yield "help"
    await driver.press("escape", "ctrl+o")
    await driver.until(lambda: "Foxes" in driver.screen_text)
    assert isinstance(driver.app.screen, ChatsScreen)
    yield "chats"
    await driver.press("escape", "shift+tab", "up")
    assert driver.chat.transcript.current == driver.chat.session.conversation.exchanges[1].user_key
    yield "messages"
    await driver.press("escape")
    assert driver.chat.focused is driver.chat.prompt
