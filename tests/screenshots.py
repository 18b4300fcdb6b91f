"""The README's pictures, from real runs of the demo model: `make screenshots`."""

from __future__ import annotations

import tui.compat  # noqa: F401  before Textual, as in the app

# isort: split
import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual import events
from textual.pilot import Pilot

from core import demo
from core.engine.worker import LocalBackend
from core.options import LoadOptions, default_values
from tui.app import LlamaApp
from tui.chat_session import ChatSession
from tui.settings import Settings
from tui.talk import Talk
from tui.widgets.prompt import Prompt

PICTURES = Path(__file__).parent / "pictures"
SIZE = (120, 40)
ENDS = ("ctrl+t", *["down"] * 12, *["right"] * 7, "space")
"""To the settings, down to what is kept on the GPU, and its last toggle: embeddings and output streamed."""

MESSAGES = (
    "What is the capital of France?",
    "Give me three good reasons to visit it, as a numbered list.",
    "Write a short Python function that returns the first n squares, then say how it works.",
)


async def main() -> None:
    """Talk to the demo model on the CPU, and on a simulated card that is too small for it."""
    path = str(demo.locate() or demo.fetch(lambda done, total: None))
    await draw(LoadOptions(path), [Picture("chat")])
    small = LoadOptions(
        path, device="sim", sim_vram=300_000_000, vram=120_000_000, sim_link=2.0, context=1024
    )
    streamed = [
        Picture("map", keys=("f4",), back="f4"),
        Picture("streaming", change="/vram 160MB"),
        Picture("settings", keys=ENDS),
    ]
    await draw(small, streamed)


@dataclass(frozen=True)
class Picture:
    """A file of that name, drawn after a command and some keys; `back` leads from there to the chat."""

    name: str
    change: str = ""
    keys: tuple[str, ...] = ()
    back: str = ""


async def draw(options: LoadOptions, pictures: Sequence[Picture]) -> None:
    """One conversation, with its pictures one after the other while the last message is answered."""
    backend = LocalBackend(meters=True)
    values = default_values() | {"mirostat": 2, "mirostat_tau": 2.0, "seed": 7, "max_tokens": 220}
    session = ChatSession(backend, options, Settings(values))
    app = LlamaApp(Talk(session, "SmolLM2-135M-Instruct"))
    PICTURES.mkdir(exist_ok=True)
    async with app.run_test(size=SIZE) as pilot:
        await until(pilot, lambda: session.model is not None)
        for message in MESSAGES:
            await until(pilot, lambda: not session.busy)
            await say(pilot, message)
        await until(pilot, lambda: (running := session.conversation.running) is None or running.tokens > 90)
        for picture in pictures:
            if picture.change:
                await say(pilot, picture.change)
            await press(pilot, *picture.keys)
            await pilot.pause(0.5)
            app.save_screenshot(f"{picture.name}.svg", str(PICTURES))
            await press(pilot, *filter(None, [picture.back]))
    backend.close(5)


async def press(pilot: Pilot[Any], *keys: str) -> None:
    """Keys one by one. The pilot's own way waits until the processor is idle, which a reply prevents."""
    for key in keys:
        pilot.app.post_message(events.Key(key, None))
        await pilot.pause(0.05)


async def say(pilot: Pilot[Any], text: str) -> None:
    """Type a line and send it."""
    pilot.app.screen.query_one(Prompt).replace_text(text)
    await press(pilot, "enter")


async def until(pilot: Pilot[Any], condition: Callable[[], bool]) -> None:
    """Let the app run until `condition` holds, for at most two minutes."""
    async with asyncio.timeout(120):
        while not condition():
            await pilot.pause(0.1)


if __name__ == "__main__":
    asyncio.run(main())
