from __future__ import annotations

import itertools

import pytest
from textual.app import App

from tui.compat import later
from tui.throttle import Throttle


async def test_a_timer_goes_off_however_late_its_task_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    app: App[None] = App()
    async with app.run_test() as pilot:
        seconds = itertools.count()
        monkeypatch.setattr("textual.timer._time.get_time", lambda: float(next(seconds)))
        app.set_timer(0.001, lambda: done.append("Textual's"))
        later(app, 0.001, lambda: done.append("ours"))
        for _ in range(3):
            await pilot.pause(0.02)
        assert done == ["ours"]  # where Textual's comes too, `later` can go


async def test_the_last_request_is_always_done(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    state = [0]
    app: App[None] = App()
    async with app.run_test() as pilot:
        throttle = Throttle(app, 0.02, lambda: shown.append(state[0]))
        for state[0] in range(1, 6):
            throttle.request()
        assert shown == [1]
        await pilot.pause(0.06)
        assert shown == [1, 5]
