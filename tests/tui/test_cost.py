"""What a reply that streams costs, and how soon a key is seen: work that is not to come back."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from textual import events
from textual._compositor import ChopsUpdate
from textual.app import App
from textual.geometry import Region
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget

from tests.fake_backend import SIMULATED_7B, FakeBackend, loads
from tests.fake_plans import SIMULATED, plan_7b, readings
from tests.tui.conftest import Driver, Open
from tui.messages import MESSAGE_OF
from tui.screens import chat_view
from tui.widgets.transcript import Transcript

PERIODS = {name: getattr(chat_view, name) for name in ("_STATUS_S", "_HEADER_S", "_GAUGES_S")}
DELTA_S = 0.05
"""The engine sends no more often."""
CODE = "```python\n" + "".join(
    f"def step_{n}(board):\n    for row in range({n}):\n        print(board[row], 'is free')  # {n}\n\n"
    for n in range(40)
)


def streaming() -> FakeBackend:
    plan = plan_7b(budget=SIMULATED)
    return FakeBackend([CODE], load=loads(plan, SIMULATED_7B), token_s=DELTA_S)


async def streams(driver: Driver, seconds: float) -> None:
    """Let the engine send in real time, its meters once a second."""
    for number in range(round(seconds / DELTA_S)):
        if number % 20 == 0:
            assert driver.backend.plan is not None
            driver.backend.emit(readings(driver.backend.plan))
        driver.backend.advance(DELTA_S)
        await asyncio.sleep(DELTA_S)


def counted(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[Any]:
    """The objects on which a method is called from now on."""
    method: Callable[..., Any] = getattr(owner, name)
    calls: list[Any] = []

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        calls.append(self)
        return method(self, *arguments, **named)

    monkeypatch.setattr(owner, name, call)
    return calls


@pytest.mark.alone
async def test_a_reply_is_painted_at_a_bounded_rate_and_cost(
    open_chat: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, period in PERIODS.items():
        monkeypatch.setattr(chat_view, name, period)
    async with open_chat(streaming()) as driver:
        await driver.say("write code")
        await streams(driver, 1)
        frames = counted(monkeypatch, Screen, "_compositor_refresh")
        rendered = counted(monkeypatch, Widget, "render_lines")
        began, computed = time.perf_counter(), time.thread_time()
        await streams(driver, 2)
        seconds, computed = time.perf_counter() - began, time.thread_time() - computed
        assert driver.chat.session.conversation.exchanges[-1].tokens > 30
        assert 5 <= len(frames) <= 16 * seconds + 2  # ten for the text, three for the status, some for gauges
        assert len(rendered) <= 8 * len(frames)  # of more than fifty widgets
        assert computed < 0.3 * seconds  # 0.06 on a machine of its own


async def test_what_is_rendered_for_a_change_is_what_a_whole_screen_has_there(open_chat: Open) -> None:
    rng = random.Random(1)
    async with open_chat(streaming()) as driver:
        await driver.say("write code")
        await driver.advance(3)
        screen = driver.app.screen
        compositor = screen._compositor
        for _ in range(40):
            widgets = set(rng.sample(sorted(compositor.visible_widgets, key=id), rng.randint(1, 4)))
            for widget in widgets:
                width, height = widget.outer_size
                x, y = rng.randrange(width or 1), rng.randrange(height or 1)
                widget.refresh(*[Region(x, y, rng.randint(1, 9), rng.randint(1, 3))] * rng.randint(0, 1))
            compositor.update_widgets(widgets)
            update = compositor.render_partial_update()
            whole = compositor.render_strips()
            if update is not None:
                for y, first, last in update.spans:
                    assert drawn(update, y).crop(first, last) == whole[y].crop(first, last)


def drawn(update: ChopsUpdate, y: int) -> Strip:
    """A line of an update, blank where nothing was rendered."""
    ends = zip(update.chops[y].items(), update.chop_ends[y], strict=False)
    return Strip.join(strip or Strip.blank(end - x) for (x, strip), end in ends)


async def test_a_key_is_seen_without_waiting_for_a_frame(
    open_chat: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_chat(streaming()) as driver:
        await driver.say("write code")
        await driver.advance(1)
        driver.app.screen._update_timer.pause()  # the next frame by itself
        frames = counted(monkeypatch, App, "_display")
        for key in ("a", "b", "left", "backspace", "delete"):
            driver.app.post_message(events.Key(key, key if len(key) == 1 else None))
            before = len(frames)
            for _ in range(30):
                await asyncio.sleep(0)
            assert len(frames) > before


async def test_what_a_page_covers_is_laid_out_when_it_is_seen_again(
    open_chat: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_chat(streaming()) as driver:
        await driver.say("write code")
        await driver.press("f4")
        await asyncio.sleep(0.15)  # a last tick may be under way
        settled = counted(monkeypatch, Transcript, "_settle")
        await streams(driver, 0.5)
        assert not settled
        await driver.press("escape")
        await driver.settle()
        assert settled
        assert "def step_0(board):" in driver.screen_text


def test_events_go_to_the_screen_and_no_further() -> None:
    assert not [message for message in MESSAGE_OF.values() if message.bubble]
