from __future__ import annotations

import pytest

from core.engine.events import Snapshot
from tests.fake_backend import FakeBackend
from tests.tui.conftest import Open

SIZES = [(40, 12), (60, 16), (80, 24), (120, 40), (200, 60)]
GPU = Snapshot(
    32 * 10**9, 15 * 10**9, 8 * 10**9, 10**9, "Card", 12 * 10**9, 6 * 10**9, 5 * 10**9, 2e10, 1e8, 25e9
)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_chat_works_at_every_size(open_chat: Open, size: tuple[int, int]) -> None:
    async with open_chat(FakeBackend(["**bold** reply " * 9]), size=size) as driver:
        driver.backend.emit(GPU)
        await driver.press("h", "i")
        assert driver.chat.focused is driver.chat.prompt
        assert "› hi" in driver.screen_text
        await driver.press("enter")
        await driver.until(lambda: bool(driver.sent()))
        await driver.advance(1)
        assert "replying" in driver.screen_text
        assert "bold" in driver.screen_text
        assert "VRAM" in driver.screen_text
        assert "/4096" in driver.screen_text
        for key in ("f1", "escape", "ctrl+t", "down", "right", "escape", "ctrl+p", "escape"):
            await driver.press(key)
        await driver.until(lambda: driver.app.screen is driver.chat)
        lines = driver.screen_text.splitlines()
        assert len(lines) == size[1]
        assert max(map(len, lines)) <= size[0]


async def test_resizing_through_all_sizes_and_below(open_chat: Open) -> None:
    async with open_chat(size=(120, 40)) as driver:
        await driver.say("hello")
        driver.backend.emit(GPU)
        for width, height in [*SIZES, (39, 12), (40, 11), (10, 3), (1, 1), (300, 100), (80, 24)]:
            await driver.pilot.resize_terminal(width, height)
            await driver.advance(0.1)
            too_small = width < 40 or height < 12
            assert driver.chat.has_class("-too-small") is too_small
            assert (("too small" in driver.screen_text) is too_small) or width < 12
            assert driver.chat.focused is driver.chat.prompt
        assert "hello" in driver.screen_text


async def test_a_terminal_that_is_too_small_from_the_start(open_chat: Open) -> None:
    async with open_chat(size=(30, 8)) as driver:
        assert "30x8 is too small: llama-tui needs 40x12" in " ".join(driver.screen_text.split())
        await driver.press("h", "i")
        await driver.pilot.resize_terminal(80, 24)
        await driver.settle()
        assert "\u203a hi" in driver.screen_text


async def test_what_gives_way_when_it_gets_narrow(open_chat: Open) -> None:
    async with open_chat(size=(120, 40)) as driver:
        assert "SETTINGS" in driver.screen_text
        assert driver.chat.query_one("#gauges").size.height == 5
        await driver.pilot.resize_terminal(99, 40)
        await driver.settle()
        assert "SETTINGS" not in driver.screen_text
        assert driver.chat.query_one("#gauges").size.height == 1
        width = driver.chat.transcript.size.width
        await driver.press("ctrl+t")
        await driver.settle()
        assert "SETTINGS" in driver.screen_text
        assert driver.chat.transcript.size.width == width  # an overlay: nothing wraps anew
        await driver.press("escape")
        await driver.settle()
        assert "SETTINGS" not in driver.screen_text
        assert driver.chat.focused is driver.chat.prompt
        assert "ctrl+t settings" in driver.screen_text
        await driver.pilot.resize_terminal(59, 15)
        await driver.settle()
        assert "ctrl+t settings" not in driver.screen_text
