"""The README's pictures, from real runs of the demo model: `make screenshots`."""

from __future__ import annotations

import tui.compat  # noqa: F401  before Textual, as in the app

# isort: split
import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from core import demo
from core.engine.worker import LocalBackend
from core.options import LoadOptions, default_values
from tui.app import LlamaApp
from tui.chat_session import ChatSession
from tui.settings import Settings
from tui.talk import Talk

PICTURES = Path(__file__).parent / "pictures"
SIZE = (120, 40)
MESSAGES = (
    "What is the capital of France?",
    "Give me three good reasons to visit it, as a numbered list.",
    "Write a short Python function that returns the first n squares, then say how it works.",
)


async def main() -> None:
    """Talk to the demo model on the CPU, and on a simulated card that is too small for it."""
    path = str(demo.locate() or demo.fetch(lambda done, total: None))
    await draw("chat", LoadOptions(path))
    small = LoadOptions(
        path, device="sim", sim_vram=300_000_000, vram=120_000_000, sim_link=2.0, context=1024
    )
    await draw("streaming", small, "/vram 160MB")
    await draw("map", small, key="f4")


async def draw(name: str, options: LoadOptions, change: str = "", key: str = "") -> None:
    """The screen while the last message is answered; with a change of placement that is not yet made, or the
    page that a key opens.
    """
    backend = LocalBackend(meters=True)
    values = default_values() | {"mirostat": 2, "mirostat_tau": 2.0, "seed": 7, "max_tokens": 220}
    session = ChatSession(backend, options, Settings(values))
    app = LlamaApp(Talk(session, "SmolLM2-135M-Instruct"))
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: session.model is not None)
        for message in MESSAGES:
            await say(pilot, message)
            if message is not MESSAGES[-1]:
                await until(pilot, lambda: not session.busy)
        if change:
            await say(pilot, change)
        await until(pilot, lambda: (running := session.conversation.running) is None or running.tokens > 90)
        if key:
            await pilot.press(key)
            await pilot.pause(0.5)
        PICTURES.mkdir(exist_ok=True)
        app.save_screenshot(f"{name}.svg", str(PICTURES))
    backend.close(5)


async def say(pilot: Pilot[Any], text: str) -> None:
    """Type a line and send it."""
    await pilot.press(*(("space" if key == " " else key) for key in text), "enter")


async def until(pilot: Pilot[Any], condition: Callable[[], bool]) -> None:
    """Let the app run until `condition` holds, for at most two minutes."""
    async with asyncio.timeout(120):
        while not condition():
            await pilot.pause(0.1)


if __name__ == "__main__":
    asyncio.run(main())
