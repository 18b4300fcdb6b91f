"""Every main screen at every size: as plain text, and what holds of it whatever that text is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.history.store import History
from tests.fake_backend import FakeBackend, loads
from tests.tui.conftest import Driver, Open, OpenStart
from tests.tui.expected_screens import AT_EDGES, EXPECTED
from tests.tui.goldens import FOLDER, Goldens
from tests.tui.screen_checks import clipped_numbers, in_front, outside, shows
from tests.tui.walk import PLAN, meter, past, screens, steered, still

SIZES = [(40, 12), (80, 24), (120, 40), (200, 60)]


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = past(tmp_path)
    yield history
    history.close()


async def check(driver: Driver, name: str, size: tuple[int, int], goldens: Goldens) -> None:
    """The text, the focus, what has to be seen, that numbers are whole and nothing reaches over the edge."""
    await still(driver)
    text, expected = driver.screen_text, EXPECTED[name]
    goldens.check(f"{name}_{size[0]}x{size[1]}", text)
    lines, focused = text.split("\n"), driver.app.screen.focused
    assert (len(lines), max(map(len, lines)) <= size[0]) == (size[1], True)
    assert focused is not None
    assert focused.id == expected.focus
    parts = list(expected.parts(size[0]))
    assert [part for part in parts if not shows(text, part)] == [], f"{name}\n{text}"
    assert clipped_numbers(in_front(driver.app.screen), AT_EDGES) == [], f"{name}\n{text}"
    assert outside(driver.app.screen) == []


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_every_screen_of_a_chat(
    open_chat: Open, history: History, log: None, goldens: Goldens, size: tuple[int, int]
) -> None:
    async with open_chat(**steered(), size=size, history=history) as driver:
        async for name in screens(driver):
            await check(driver, name, size, goldens)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_start_screen(
    open_start: OpenStart,
    history: History,
    goldens: Goldens,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
) -> None:
    monkeypatch.setattr("tui.start_rows.demo.locate", lambda: None)
    async with open_start(history=history, size=size) as driver:
        await driver.listed()
        await check(driver, "start", size, goldens)


def test_no_text_is_kept_of_a_screen_that_is_not_looked_at() -> None:
    names = {f"{name}_{width}x{height}.txt" for name in EXPECTED for width, height in SIZES}
    assert {path.name for path in FOLDER.iterdir()} == names


# --- between the sizes, and below them --------------------------------------------------------------


async def test_resizing_through_all_sizes_and_below(open_chat: Open) -> None:
    async with open_chat(FakeBackend(load=loads(PLAN)), size=(120, 40)) as driver:
        await driver.say("hello")
        await meter(driver, 0.5)
        for width, height in [*SIZES, (60, 16), (39, 12), (40, 11), (10, 3), (1, 1), (300, 100), (80, 24)]:
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
        assert "F1 help" in driver.screen_text  # the one key that leads to the others
