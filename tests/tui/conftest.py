"""The app on the fake backend, driven as a user would."""

from __future__ import annotations

import tui.compat  # noqa: F401  before Textual, as in the app

# isort: split
import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot

from core.config.read import Config
from core.engine.backend import Backend
from core.engine.commands import Command, Configure, Submit
from core.folders import config_file
from core.history.records import Chat
from core.history.store import History
from core.options import LoadOptions, Value
from tests.fake_backend import FakeBackend
from tests.tui.goldens import Goldens
from tui import clipboard
from tui.app import LlamaApp
from tui.chat_session import ChatSession
from tui.screens import chat_view
from tui.screens.chat import ChatScreen
from tui.screens.start import StartScreen
from tui.settings import Settings
from tui.start_values import resolve
from tui.talk import Talk


class Driver:
    """A running app, its fake engine, and shorthands for what tests do all the time."""

    def __init__(self, app: LlamaApp, pilot: Pilot[Any], backend: FakeBackend) -> None:
        self.app, self.pilot, self.backend = app, pilot, backend

    @property
    def chat(self) -> ChatScreen:
        screen = self.app.screen_stack[0]
        assert isinstance(screen, ChatScreen)
        return screen

    @property
    def screen_text(self) -> str:
        """What a user sees, line by line."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in strips)

    @property
    def status(self) -> str:
        return self.chat.status.text.strip()

    def text_of(self, run: int) -> str:
        """The reply of a run as the transcript has it."""
        return self.chat.transcript.text_of(2 * run + 1)

    def sent(self, kind: type[Command] = Submit) -> list[Any]:
        return self.backend.of_type(kind)

    @property
    def last_sampling(self) -> Any:
        return self.sent(Configure)[-1].sampling

    async def settle(self) -> None:
        """Let messages run their course, from widget to screen to app and back, and repaint.

        The pilot's own pause sends a message through every widget, ten times the work of most tests.
        """
        for _ in range(3):
            for _ in range(20):
                await asyncio.sleep(0)
            self.app.screen._on_timer_update()

    async def until(self, met: Callable[[], bool]) -> None:
        """Wait for what the app does on timers of its own."""
        for _ in range(300):
            if met():
                return
            await asyncio.sleep(0.01)
            await self.settle()
        raise AssertionError("waited in vain; the screen shows:\n" + self.screen_text)

    async def advance(self, seconds: float) -> None:
        """Let the engine's time pass, in steps, so that the app sees each event at about its time."""
        steps = max(1, round(seconds / 0.5))
        for _ in range(steps):
            self.backend.advance(seconds / steps)
            await self.settle()
        await asyncio.sleep(0.005)  # the throttles' periods
        await self.settle()

    async def press(self, *keys: str) -> None:
        """Keys one by one; unlike the pilot's, it does not wait for the processor to fall idle."""
        for key in keys:
            self.app.post_message(events.Key(key, key if len(key) == 1 else None))
            await self.settle()

    async def type(self, text: str) -> None:
        """Text as if typed, all at once."""
        self.chat.prompt.replace_text(text)
        await self.settle()

    async def say(self, text: str) -> None:
        """Type a line, press Enter, and wait until the app has done with it."""
        await self.type(text)
        await self.press("enter")
        await self.until(lambda: not self.chat.prompt.enter_pending)
        await self.settle()


Open = Callable[..., AbstractAsyncContextManager[Driver]]


@pytest.fixture
def open_chat(monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens the app; with `ready` the model is loaded before the test begins.

    `around` puts something between the fake engine and the app.
    """
    # Status and gauges follow at once, so that tests need not wait for their periods.
    for period in ("_STATUS_S", "_HEADER_S", "_GAUGES_S"):
        monkeypatch.setattr(chat_view, period, 0.001)

    # The clipboard is the app's own, never that of whoever runs the tests.
    monkeypatch.setattr(clipboard, "routes", lambda environment: ())

    @asynccontextmanager
    async def opened(
        backend: FakeBackend | None = None,
        *,
        size: tuple[int, int] = (120, 40),
        ready: bool = True,
        values: dict[str, Value] | None = None,
        model_name: str = "fake",
        notes: tuple[str, ...] = (),
        config: Config | None = None,
        history: History | None = None,
        chat: Chat | None = None,
        ascii: bool = False,
        around: Callable[[Backend], Backend] = lambda engine: engine,
    ) -> AsyncIterator[Driver]:
        backend = backend or FakeBackend()
        start = resolve(values or {}, None, {}, config or Config(config_file()))
        settings = Settings(start.values, start.presets, start.preset, start.replaced)
        options = LoadOptions("nowhere")
        session = ChatSession(around(backend), options, settings, clock=lambda: backend.now)
        talk = Talk(session, model_name, (*notes, *start.notes), history, chat)
        app = LlamaApp(talk, config=config, ascii=ascii)
        async with app.run_test(size=size) as pilot:
            driver = Driver(app, pilot, backend)
            await driver.until(lambda: bool(backend.commands))
            if ready:
                backend.advance(3)
                await driver.settle()
            yield driver

    return opened


# --- the start screen -----------------------------------------------------------------------------

_LOG = "".join(f"2001-11-03 12:00:0{i},000 INFO tui.app: ready\n" for i in range(5))
Progress = Callable[[int, int | None], None]


class Starter(Driver):
    """A driver that begins on the start screen; `chosen` is what was to be opened."""

    def __init__(self, *args: Any, chosen: list[Mapping[str, Any]]) -> None:
        super().__init__(*args)
        self.chosen = chosen

    @property
    def start(self) -> StartScreen:
        screen = self.app.screen_stack[0]
        assert isinstance(screen, StartScreen)
        return screen

    @property
    def titles(self) -> list[str]:
        return [row.title for row in self.start.rows.rows]

    async def listed(self) -> None:
        await self.until(lambda: bool(self.start.rows.rows))

    async def path(self, text: str) -> None:
        """Type a path and wait for what may follow."""
        self.start.type_path(text)
        await self.until(lambda: self.start._found_for == text)
        await self.settle()

    async def chat_opens(self) -> None:
        await self.until(lambda: isinstance(self.app.screen, ChatScreen))


OpenStart = Callable[..., AbstractAsyncContextManager[Starter]]


@pytest.fixture
def open_start() -> OpenStart:
    @asynccontextmanager
    async def opened(
        make: Callable[[Mapping[str, Any], Progress], Talk] | None = None,
        *,
        history: History | None = None,
        typed: tuple[str, ...] = (),
        backend: FakeBackend | None = None,
        size: tuple[int, int] = (80, 24),
    ) -> AsyncIterator[Starter]:
        backend = backend or FakeBackend()
        chosen: list[Mapping[str, Any]] = []

        def open_chosen(given: Mapping[str, Any], progress: Progress) -> Talk:
            chosen.append(given)
            if make is not None:
                return make(given, progress)
            session = ChatSession(backend, LoadOptions("x"), Settings({}), clock=lambda: backend.now)
            return Talk(session, "fake")

        start = StartScreen(open_chosen, history=history, typed=typed)
        app = LlamaApp(start, config=Config(config_file()))
        async with app.run_test(size=size) as pilot:
            yield Starter(app, pilot, backend, chosen=chosen)

    return opened


# --- screens as text ------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is the same wherever the tests run."""
    monkeypatch.chdir(tmp_path)
    path = Path("llama-tui.log")
    path.write_text(_LOG)
    monkeypatch.setattr("tui.app.log_path", lambda: path)


@pytest.fixture
def goldens(request: pytest.FixtureRequest) -> Iterator[Goldens]:
    """Compares screens with the files of them, and tells at the end of the test which differ."""
    goldens = Goldens(update=request.config.getoption("--update-goldens"))
    yield goldens
    goldens.finish()
