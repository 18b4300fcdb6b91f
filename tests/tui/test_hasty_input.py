"""Keys that come faster than screens open and close, as over a slow line: what random input has found."""

from __future__ import annotations

import pytest
from textual import events
from textual.command import CommandPalette

from core.engine.commands import Stop
from tests.fake_backend import LLAMA_7B, FakeBackend, loads
from tests.fake_plans import plan_7b
from tests.tui.conftest import Driver, Open
from tests.tui.test_placement_in_chat import ROOMY
from tui.screens.gauges import GaugesScreen
from tui.screens.help import HelpScreen
from tui.screens.map import MapScreen
from tui.screens.text_dialog import TextDialog

REPLY = "one two three"


def streamed() -> FakeBackend:
    return FakeBackend([REPLY], load=loads(plan_7b(budget=ROOMY), LLAMA_7B))


async def burst(driver: Driver, *keys: str) -> None:
    """Keys that come in one piece."""
    for key in keys:
        driver.app.post_message(events.Key(key, key if len(key) == 1 else None))
    for _ in range(5):
        await driver.settle()


def shown(driver: Driver) -> list[type]:
    return [type(screen) for screen in driver.app.screen_stack[1:]]


async def test_pages_take_the_place_of_the_palette_and_of_help(open_chat: Open) -> None:
    async with open_chat() as driver:
        for keys, screens in (
            (("ctrl+p", "f1"), [HelpScreen]),
            (("ctrl+p",), [HelpScreen, CommandPalette]),  # a second one below would have ended the app
            (("f3",), [GaugesScreen]),
            (("f1",), [GaugesScreen, HelpScreen]),
            (("f4",), [MapScreen]),
        ):
            for key in keys:
                await driver.press(key)
                await driver.settle()
            assert shown(driver) == screens


@pytest.mark.parametrize("key", ["f1", "f3", "f4", "f12"])
async def test_a_page_that_closes_at_once(open_chat: Open, key: str) -> None:
    async with open_chat() as driver:
        await burst(driver, key, key)
        assert shown(driver) == []
        await burst(driver, key, "escape", "escape", "escape")
        assert shown(driver) == []
        assert driver.app.is_running


async def test_two_enters_take_a_text_once(open_chat: Open) -> None:
    async with open_chat() as driver:
        await driver.press("f3")
        driver.chat.action_system("")
        await driver.until(lambda: isinstance(driver.app.screen, TextDialog))
        await driver.settle()
        await burst(driver, "x", "escape", "escape")
        assert shown(driver)[:1] == [GaugesScreen]


async def test_keys_of_a_search_that_a_page_has_covered(open_chat: Open) -> None:
    async with open_chat(FakeBackend([REPLY])) as driver:
        await driver.say("a question")
        await driver.advance(1)
        await driver.press("ctrl+f", "o")
        await burst(driver, "down", "f4", "up", "down")
        assert shown(driver) == [MapScreen]


async def test_the_keys_behind_a_change_of_the_focus_are_for_the_new_one(open_chat: Open) -> None:
    async with open_chat(FakeBackend([REPLY])) as driver:
        await driver.say("a question")
        await driver.advance(1)
        await burst(driver, "shift+tab", "up", "c")
        await driver.until(lambda: driver.app.clipboard == "a question")
        await burst(driver, "escape", "r", "e")
        assert driver.chat.prompt.text == "re"
        assert driver.sent(Stop) == []
        await driver.press("shift+tab")
        driver.app.post_message(events.Paste("pasted"))
        await driver.settle()
        assert driver.chat.prompt.text == "repasted"


async def test_undoing_lines_with_the_cursor_below_them(open_chat: Open) -> None:
    async with open_chat() as driver:
        driver.app.post_message(events.Paste("line\n" * 30))
        await driver.settle()
        assert driver.chat.prompt.show_vertical_scrollbar
        await driver.press("ctrl+z")
        assert driver.chat.prompt.text == ""
        await driver.press("ctrl+y")
        assert driver.chat.prompt.text == "line\n" * 30


async def test_unloading_under_the_cursor_of_the_placement(open_chat: Open) -> None:
    async with open_chat(streamed()) as driver:
        driver.chat.set_focus(driver.chat.query_one("#placement-keep"))
        await driver.press("space")
        driver.chat.session.unload()
        await burst(driver, "right", "space", "left")
        await driver.press("f4", "u", "g", "f8")
        assert driver.chat.session.asleep
        assert not driver.chat.session.placement.pending
