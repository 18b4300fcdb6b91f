from __future__ import annotations

import pytest

from core.engine.commands import Submit, Unload
from core.engine.events import Loading, Ready
from tests.fake_backend import MODEL, FakeBackend
from tests.tui.conftest import Open

SLOW = (
    (0.0, Loading("starting torch")),
    (1.0, Loading("reading weights", 430_000_000, 10**9, 0.2e9, 2.85)),
    (9.0, Ready(MODEL)),
)


@pytest.mark.parametrize("key", ["escape", "ctrl+c"])
async def test_the_second_press_gives_the_load_up(open_chat: Open, key: str) -> None:
    async with open_chat(FakeBackend(["Hello there."], load=SLOW), ready=False) as driver:
        await driver.advance(1)
        assert "reading weights 43 % · 0.43 of 1.0 GB · 0.20 GB/s · 2.9 s left" in driver.status
        await driver.press(key)
        word = {"escape": "Esc", "ctrl+c": "ctrl+c"}[key]
        assert f"{word} again gives up the load; ctrl+q quits" in driver.status
        assert driver.sent(Unload) == []
        await driver.press(key)
        assert driver.sent(Unload) == [Unload()]
        assert "the model is unloaded · the next message loads it again" in driver.status
        await driver.advance(20)
        assert driver.chat.session.model is None
        await driver.say("Hello")
        await driver.advance(1)
        assert "reading weights" in driver.status
        await driver.advance(12)
        assert driver.sent() == [Submit(1, "Hello")]
        assert driver.text_of(1) == "Hello there."


async def test_an_offer_does_not_last(open_chat: Open) -> None:
    async with open_chat(FakeBackend(load=SLOW), ready=False) as driver:
        await driver.press("escape")
        await driver.advance(6)
        await driver.press("escape")
        assert driver.sent(Unload) == []
        assert "again gives up the load" in driver.status


async def test_first_what_waits_for_the_model_is_taken_back(open_chat: Open) -> None:
    async with open_chat(FakeBackend(load=SLOW), ready=False) as driver:
        await driver.say("Hello")
        await driver.press("escape")
        assert "again gives up" not in driver.status
        await driver.advance(20)
        assert driver.chat.session.model is not None
        await driver.press("escape")  # there is nothing to give up
        assert "again gives up" not in driver.status
