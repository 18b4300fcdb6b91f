"""Colours: pictures of the main screens, every theme, and a terminal that wants none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.segment import Segment
from textual.app import App
from textual.color import Color

from tests.terminal import LLAMA_TUI, Terminal
from tests.tui.conftest import Driver, Open
from tests.tui.svg import FOLDER, differs
from tests.tui.walk import asked, past, screens, steered, still, streaming

DARK = ("streaming", "settings", "gauges", "map")
OTHERS = ("chat-light", "chat-ansi", "chat-no-color")
DRAWN = re.compile(r"[\s\u2500-\u25ff\u2800-\u28ff·]*")  # bars, frames and graphs are no text
LABELS = {
    *("header", "vram", "ram", "bus", "speed", "surprise", "status", "keys", "prompt", "sidebar-title"),
    *("set-temperature", "set-mirostat", "set-mirostat_tau", "sidebar-fixed", "placement-title"),
    *("map-title", "map-cells", "map-legend", "map-cursor", "map-what-if", "map-status", "map-keys"),
    "placement-keep",
}
"""Where labels are, by the ids of the widgets."""


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-goldens"))


def segments(driver: Driver) -> Iterator[tuple[str, Segment]]:
    """Every piece of text on the screen, with the id of the widget it is in."""
    screen = driver.app.screen
    for y, strip in enumerate(screen._compositor.render_strips()):
        x = 0
        for segment in strip:
            if segment.text and not DRAWN.fullmatch(segment.text):
                widget = screen.get_widget_at(x, y)[0]
                yield widget.id or "", segment
            x += segment.cell_length


def contrast(segment: Segment) -> float:
    """The contrast ratio of WCAG 2.1."""
    style = segment.style
    assert style is not None
    assert style.color is not None
    assert style.bgcolor is not None
    colours = (Color.from_rich_color(colour).normalized for colour in (style.color, style.bgcolor))
    dark, light = sorted(0.2126 * r**2.2 + 0.7152 * g**2.2 + 0.0722 * b**2.2 for r, g, b in colours)
    return (light + 0.05) / (dark + 0.05)


async def test_pictures_of_the_dark_screens(open_chat: Open, tmp_path: Path, update: bool) -> None:
    told = []
    async with open_chat(**steered(), history=past(tmp_path)) as driver:
        async for name in screens(driver):
            if name in DARK:
                await still(driver)
                told.append(differs(driver.app, name, update=update))
            if name == DARK[-1]:
                break
    assert "".join(told) == ""


async def test_every_theme_shows_chat_and_map_and_labels_stand_out(open_chat: Open, update: bool) -> None:
    async with open_chat(**steered()) as driver:
        await asked(driver)
        await streaming(driver)
        themes, faint, told = driver.app.available_themes, [], []
        for theme in themes:
            driver.app.theme = theme
            await driver.settle()
            found = list(segments(driver))
            await driver.press("f4")  # from the chat to the map, or from the map to the chat
            found += segments(driver)
            assert {id for id, _ in found} >= LABELS
            if not themes[theme].ansi:
                faint += [(theme, id, s.text) for id, s in found if id in LABELS and contrast(s) < 3]
        assert len(themes) > 15
        assert faint == []
        if driver.app.screen is not driver.chat:
            await driver.press("f4")
        for theme, picture in (("textual-light", "chat-light"), ("ansi-dark", "chat-ansi")):
            driver.app.theme = theme
            await still(driver)
            told.append(differs(driver.app, picture, update=update))
    assert "".join(told) == ""


@pytest.fixture
def no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR, and what tui.compat has Textual read of it, which it does while it is imported."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TEXTUAL_THEME", "ansi-dark")
    monkeypatch.setattr(App.theme, "_default", "ansi-dark")


async def test_without_colour_none_is_drawn_and_the_rest_can_be_read(
    open_chat: Open, tmp_path: Path, log: None, no_color: None, update: bool
) -> None:
    async with open_chat(**steered(), history=past(tmp_path)) as driver:
        async for name in screens(driver):
            await still(driver)
            for id, segment in segments(driver):
                style = segment.style
                colours = [] if style is None else [style.color, style.bgcolor]
                assert all(one is None or one.is_default for one in colours), (name, id, segment)
            if name == "streaming":
                assert differs(driver.app, "chat-no-color", update=update) == ""
            if name == "chats":  # where the cursor is, is said by the text's style
                rows = [one for id, one in segments(driver) if id == "chats-list" and "Foxes" in one.text]
                assert [bool(row.style and row.style.underline) for row in rows] == [True]


def test_without_colour_no_code_for_one_reaches_the_terminal() -> None:
    terminal = Terminal([*LLAMA_TUI], 80, 24, NO_COLOR="1")
    terminal.wait_for("Synthetic 70b")
    terminal.send("\x1bOP")  # F1
    terminal.wait_for("Esc closes")
    terminal.send("\x11")
    terminal.wait_exit()
    codes = [
        code for group in re.findall(rb"\x1b\[([\d;]*)m", bytes(terminal.raw)) for code in group.split(b";")
    ]
    assert len(codes) > 10
    coloured = {code for code in codes if re.fullmatch(rb"[34]\d|9\d|10\d", code)}
    assert coloured <= {b"39", b"49"}  # the terminal's own


def test_no_picture_is_kept_that_is_not_compared() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {*DARK, *OTHERS}
