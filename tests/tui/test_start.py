"""The start screen: what it offers, paths that are completed, and the chat that comes of a choice."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.engine.commands import Load
from core.engine.events import Failed
from core.errors import UserError
from core.history.store import History
from core.options import LoadOptions
from tests.core.saved_chats import chat, reply, user
from tests.fake_backend import LOAD, FakeBackend
from tests.tui.conftest import OpenStart
from tui.chat_session import ChatSession
from tui.outcome import Outcome
from tui.screens.help import HelpScreen
from tui.settings import Settings
from tui.talk import Talk

Progress = Callable[[int, int | None], None]


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path / "history.db")
    yield history
    history.close()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Folders and files to complete."""
    root = tmp_path / "models"
    for name in ("llama-2-7b", "llama-3-8b", ".hidden", "notes"):
        (root / name).mkdir(parents=True)
    (root / "llama-2-7b" / "params.json").write_text("{}")
    (root / "phi.gguf").write_bytes(b"GGUF" + bytes(1996))
    (root / "readme.txt").write_text("no model")
    return root


def saved(history: History, title: str, ago: float, **launch: object) -> None:
    at = time.time() - ago
    talk = chat(user(1, None, title, at), reply(2, 1, "yes", at), title=title, updated=at)
    history.add(replace(talk, launch=launch, model=str(launch.get("checkpoint", "fake")).rsplit("/", 1)[-1]))


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 40)])
async def test_it_offers_what_was_done_before_then_the_demo_and_shapes(
    open_start: OpenStart, history: History, size: tuple[int, int]
) -> None:
    saved(history, "Old", 90_000, checkpoint="/models/llama-7b", quant="int8", vram=6_000_000_000)
    saved(history, "Foxes", 60, checkpoint="/models/phi")
    async with open_start(history=history, size=size, typed=("--device", "sim")) as driver:
        await driver.listed()
        await driver.settle()
        assert driver.titles[:4] == [
            "Go on with “Foxes”",
            "phi",
            "llama-7b",
            "Demo: SmolLM2-135M-Instruct",
        ]
        assert [title.split(":")[0] for title in driver.titles[4:]] == [
            "Synthetic 1b",
            "Synthetic 7b",
            "Synthetic 13b",
            "Synthetic 70b",
        ]
        text = driver.screen_text
        assert "started with --device sim" in text
        lines = text.splitlines()
        flags = next(line for line in lines if "--quant int8 --vram 6GB" in line)
        assert flags.split("  ")[-2].strip().endswith("llama-7b")  # of a path the end is shown
        assert "today" in text or "yesterday" in text
        assert driver.start.focused is driver.start.path
        assert all(len(line) <= size[0] for line in lines)
        assert driver.start.rows.highlighted == 0


async def test_enter_takes_what_is_under_the_cursor(open_start: OpenStart, history: History) -> None:
    saved(history, "Foxes", 60, checkpoint="/models/phi", quant="int8")
    async with open_start(history=history) as driver:
        await driver.listed()
        await driver.press("down", "enter")
        await driver.chat_opens()
        assert driver.chosen == [{"checkpoint": "/models/phi", "quant": "int8"}]
        await driver.until(lambda: bool(driver.backend.commands))
        assert isinstance(driver.backend.commands[0], Load)
        driver.backend.advance(3)
        await driver.settle()
        assert "fake-135m" in driver.screen_text


@pytest.mark.parametrize(
    ("downs", "given"), [(0, {"demo": True}), (2, {"synthetic": "7b"}), (9, {"synthetic": "70b"})]
)
async def test_without_a_history_the_demo_comes_first(
    open_start: OpenStart, downs: int, given: dict[str, Any]
) -> None:
    async with open_start() as driver:
        await driver.press(*["down"] * downs, "enter")
        await driver.chat_opens()
        assert driver.chosen == [given]


async def test_a_path_is_completed_folder_by_folder(open_start: OpenStart, models: Path) -> None:
    async with open_start(size=(120, 24)) as driver:
        await driver.path(f"{models}/")
        assert driver.titles == ["llama-2-7b/", "llama-3-8b/", "notes/", "phi.gguf"]
        assert "GGUF · 2 kB" in driver.screen_text
        await driver.path(f"{models}/l")
        await driver.press("tab")
        await driver.until(lambda: driver.start.path.value == f"{models}/llama-")
        await driver.path(f"{models}/llama-2")
        await driver.press("tab")
        await driver.until(lambda: driver.start.path.value == f"{models}/llama-2-7b/")
        await driver.path(f"{models}/.h")
        assert driver.titles == [".hidden/"]


async def test_tab_takes_the_row_under_the_cursor_where_there_is_a_choice(
    open_start: OpenStart, models: Path
) -> None:
    async with open_start() as driver:
        await driver.path(f"{models}/llama-")
        await driver.press("down", "down", "tab")
        await driver.until(lambda: driver.start.path.value == f"{models}/llama-3-8b/")


async def test_enter_goes_into_a_folder_and_opens_a_model(open_start: OpenStart, models: Path) -> None:
    async with open_start() as driver:
        await driver.path(f"{models.parent}/mod")
        await driver.press("down", "enter")
        await driver.until(lambda: driver.start.path.value == f"{models}/")
        assert driver.chosen == []
        await driver.until(lambda: driver.start._found_for == f"{models}/")
        await driver.press("down", "enter")
        await driver.chat_opens()
        assert driver.chosen == [{"checkpoint": f"{models}/llama-2-7b/"}]


async def test_a_typed_path_is_opened_as_it_is(open_start: OpenStart, models: Path) -> None:
    async with open_start() as driver:
        for key in f"'{models}/phi.gguf'":  # quoted, as a terminal pastes a file that is dropped on it
            driver.start.path.insert_text_at_cursor(key)
        await driver.press("enter")
        await driver.chat_opens()
        assert driver.chosen == [{"checkpoint": f"{models}/phi.gguf"}]


async def test_what_is_wrong_with_a_path_is_said_while_it_is_typed(
    open_start: OpenStart, models: Path
) -> None:
    async with open_start(size=(200, 24)) as driver:
        await driver.path("/nowhere/at/all")
        await driver.until(lambda: "/nowhere/at/all: no such file or folder" in driver.screen_text)
        await driver.path(f"{models}/")  # on the way to one: nothing is wrong with it
        assert "no such" not in driver.screen_text
        await driver.path(f"{models}/phi.gguf")
        await driver.until(lambda: "GGUF model phi.gguf" in driver.screen_text)
        await driver.path(f"{models}/readme.txt")
        await driver.until(lambda: "neither a GGUF file nor part" in driver.screen_text)


async def test_an_error_is_said_and_another_model_can_be_chosen(open_start: OpenStart) -> None:
    backend = FakeBackend()

    def make(given: Mapping[str, Any], progress: Progress) -> Talk:
        if "demo" in given:
            raise UserError("[/nope] is wrong with it; \x1b[2J another")
        return Talk(ChatSession(backend, LoadOptions("x"), Settings({})), "fake")

    async with open_start(make, backend=backend) as driver:
        await driver.press("enter")
        await driver.until(lambda: "[/nope] is wrong with it; [2J another" in driver.screen_text)
        await driver.press("down", "enter")
        await driver.chat_opens()


async def test_a_load_that_fails_comes_back_here(open_start: OpenStart) -> None:
    load = (*LOAD[:2], (0.1, Failed("the weights are cut off; fetch them again", fatal=True)))
    async with open_start(backend=FakeBackend(load=load)) as driver:
        await driver.press("down", "enter")
        await driver.chat_opens()
        await driver.until(lambda: bool(driver.backend.commands))
        await driver.press("f1")
        await driver.until(lambda: isinstance(driver.app.screen, HelpScreen))
        driver.backend.advance(3)
        await driver.until(lambda: driver.app.screen is driver.start)
        await driver.settle()
        assert "the weights are cut off" in driver.screen_text
        assert driver.app.talk is None
        driver.backend._load = LOAD
        await driver.press("enter")
        await driver.chat_opens()


async def test_a_fetch_shows_how_far_it_is_and_escape_ends_it(open_start: OpenStart) -> None:
    ended = threading.Event()

    def make(given: Mapping[str, Any], progress: Progress) -> Talk:
        try:
            while True:
                progress(12_000_000, 93_000_000)
                time.sleep(0.01)
        finally:
            ended.set()

    async with open_start(make) as driver:
        await driver.press("enter")
        await driver.until(
            lambda: "fetching the demo model, once: 12 of 93 MB · Esc stops" in driver.screen_text
        )
        await driver.press("enter")  # not a second time
        await driver.press("escape")
        await driver.until(ended.is_set)
        await driver.until(lambda: "stopped" in driver.screen_text)
        assert len(driver.chosen) == 1


async def test_leaving_ends_a_fetch(open_start: OpenStart) -> None:
    ended = threading.Event()

    def make(given: Mapping[str, Any], progress: Progress) -> Talk:
        try:
            while True:
                progress(1, None)
                time.sleep(0.01)
        finally:
            ended.set()

    async with open_start(make) as driver:
        await driver.press("enter")
        await driver.until(lambda: "0 MB" in driver.screen_text)
        await driver.press("ctrl+q")
        await driver.until(lambda: not driver.app.is_running)
    assert ended.is_set()


async def test_escape_clears_the_path_and_then_leaves(open_start: OpenStart) -> None:
    async with open_start() as driver:
        await driver.path("/x")
        await driver.press("escape")
        await driver.until(lambda: driver.start.path.value == "")
        assert driver.titles[0].startswith("Demo")
        await driver.press("escape")
        await driver.until(lambda: driver.app.return_value is not None)
        assert driver.app.return_value == Outcome(0)


async def test_a_history_that_cannot_be_read_is_said(open_start: OpenStart, tmp_path: Path) -> None:
    (tmp_path / "history.db").mkdir()
    async with open_start(history=History(tmp_path / "history.db")) as driver:
        await driver.listed()
        await driver.until(lambda: "recent models are not shown" in driver.screen_text)
        assert driver.titles[0].startswith("Demo")


async def test_what_shows_a_chat_does_nothing_before_there_is_one(open_start: OpenStart) -> None:
    async with open_start() as driver:
        for key in ("f3", "f4", "ctrl+o"):
            await driver.press(key)
            assert driver.app.screen is driver.start
        titles = [command.title for command in driver.app.get_system_commands(driver.start)]
        assert "Theme" in titles
        assert "New chat" not in titles
        await driver.press("f1")
        await driver.until(lambda: isinstance(driver.app.screen, HelpScreen))


async def test_a_terminal_that_is_too_small_says_so(open_start: OpenStart) -> None:
    async with open_start(size=(30, 8)) as driver:
        await asyncio.sleep(0)
        await driver.until(lambda: "30x8 is too small" in driver.screen_text)
