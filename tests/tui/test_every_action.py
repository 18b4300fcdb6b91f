"""Every action of the table, by each of its keys and by its command, each with the effect that one sees."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.history.recorder import Recorder
from core.history.store import History
from tests.core.saved_chats import chat, reply, user
from tests.fake_backend import LLAMA_7B, FakeBackend, loads
from tests.fake_plans import plan_7b
from tests.tui import places
from tests.tui.cases import CASES, REPLY, Here, ask
from tests.tui.conftest import Driver, Open, OpenStart
from tests.tui.test_placement_in_chat import ROOMY
from tui.app import LlamaApp
from tui.commands import ACTIONS, Action, Scope
from tui.screens import chat as chat_screen
from tui.screens.chat import ChatScreen

assert places  # whose cases are in CASES too


def test_every_action_has_a_case() -> None:
    assert sorted(CASES) == sorted(action.id for action in ACTIONS)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLAMA_TUI_CONFIG", str(tmp_path / "config.toml"))
    here = Here(None, do=None, folder=tmp_path, by_key=False)  # type: ignore[arg-type]
    monkeypatch.setattr(LlamaApp, "exit", lambda app, outcome=None: here.left.append(outcome))
    monkeypatch.setattr(chat_screen, "show_in_pager", lambda app, text: here.paged.append(text))
    monkeypatch.setattr(chat_screen, "edit_in_editor", lambda app, text: "edited")
    return here


def ways(driver: Driver, action: Action) -> Iterator[tuple[str, Callable[[str], Awaitable[None]]]]:
    """Each way to do an action, with its name."""

    def by_key(key: str) -> Callable[[str], Awaitable[None]]:
        return lambda argument="": driver.press(key)

    async def by_command(argument: str = "") -> None:
        await driver.say(f"/{action.command} {argument}".rstrip())

    for key in action.keys:
        yield key, by_key(key)
    if action.slash:
        yield f"/{action.command}", by_command


async def go_through(here: Here, scopes: tuple[Scope, ...], begin: Callable[[], Awaitable[None]]) -> None:
    for action in ACTIONS:
        if action.scope not in scopes:
            continue
        for name, do in ways(here.driver, action):
            here.do, here.by_key = do, not name.startswith("/")  # type: ignore[assignment]
            await begin()
            try:
                await CASES[action.id](here)
            except AssertionError as error:
                raise AssertionError(f"{action.id} by {name}") from error


async def fresh(driver: Driver) -> None:
    """A chat of one exchange, with the cursor in the prompt and every setting at its default."""
    while not isinstance(driver.app.screen, ChatScreen):
        await driver.press("escape")
    driver.chat.end_find(back=False)
    driver.chat.action_reset()
    driver.chat.session.placement.undo()
    driver.chat.prompt.clear()
    driver.chat.set_focus(driver.chat.prompt)
    driver.app._clipboard = ""
    await ask(driver, seconds=3 if driver.chat.session.asleep else 0.8)


KEYS_FIRST: dict[Scope, tuple[str, ...]] = {
    "transcript": ("shift+tab",),
    "map": ("f4", "home", "up", "up", "up", "up", "up", "up", "down", "right", "right"),
}


@pytest.mark.parametrize(
    "scopes", [("prompt", "chat", "app"), ("settings", "transcript", "map"), ("find", "chats")]
)
async def test_what_is_done_in_the_chat(open_chat: Open, here: Here, scopes: tuple[Scope, ...]) -> None:
    saved = here.folder / "history.db"
    history, backend = History(saved), FakeBackend([REPLY], load=loads(plan_7b(budget=ROOMY), LLAMA_7B))
    recorder = Recorder(backend, saved, {})
    async with open_chat(backend, size=(110, 30), history=history, around=lambda engine: recorder) as driver:
        here.driver = driver
        for scope in scopes:

            async def begin(scope: Scope = scope) -> None:
                await fresh(driver)
                if scope == "chats":
                    await list_chats(driver, history)
                elif scope == "settings":
                    driver.chat.set_focus(driver.chat.query_one("#set-top_p"))
                elif scope == "find":
                    await driver.say("/find o")
                await driver.press(*KEYS_FIRST.get(scope, ()))
                await driver.settle()

            await go_through(here, (scope,), begin)
    recorder.close(1)


async def list_chats(driver: Driver, history: History) -> None:
    """Three chats and thirty more, listed."""
    old, now, chats = history.rows(0, 100), time.time(), []
    for number, title in enumerate(("Foxes", "Hens", "Moon", *(f"Chat {number}" for number in range(30)))):
        messages = user(1, None, f"about {title}", now), reply(2, 1, "yes", now)
        chats.append(chat(*messages, title=title, updated=now - number))
    if [row.title for row in old] != [chat.title for chat in chats]:
        for row in old:
            history.delete(row.id)
        history.add_all(chats)
    await driver.press("ctrl+o")
    await driver.until(lambda: not isinstance(driver.app.screen, ChatScreen))
    screen: Any = driver.app.screen
    await driver.until(lambda: screen.search.is_mounted and len(screen.chats.rows) > 3)


async def test_what_is_done_on_the_start_screen(open_start: OpenStart, here: Here) -> None:
    for name in ("llama-2-7b", "llama-3-8b"):
        (here.folder / name).mkdir()
        (here.folder / name / "params.json").write_text("{}")
    async with open_start() as driver:
        here.driver = driver

        async def begin() -> None:
            while driver.app.screen is not driver.start:
                driver.app.pop_screen()
                await driver.settle()
            driver.start.type_path("")
            await driver.listed()
            await driver.settle()
            driver.start.rows.highlighted = 0

        await go_through(here, ("start",), begin)
