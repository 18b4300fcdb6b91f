"""The app with an engine that streams a long text, or the demo model; it takes down when nothing else runs.

    python -m tests.streaming_app LOG KIND [SECONDS]   # KIND: prose, list, code or chats
    python -m tests.streaming_app LOG demo OPTIONS …

A line of LOG is a time in which the event loop could do nothing else: when it began, by the clock that all
processes share, how long it took, and for how much of that it had a core. `chats` has a saved conversation
of a thousand messages in the list.
"""

from __future__ import annotations

import asyncio
import random
import re
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

import tui.app
from core.engine.conversation import Message
from core.engine.events import Reason
from core.folders import history_file
from core.history.records import SavedMessage
from core.history.store import History
from core.history.writing import insert_chat, insert_message
from core.options import LoadOptions, default_values
from tests import fake_backend
from tests.fake_backend import SIMULATED_7B, LiveFakeBackend, loads
from tests.fake_plans import SIMULATED, plan_7b
from tui.chat_session import ChatSession
from tui.cli import main as llama_tui
from tui.settings import Settings
from tui.talk import Talk

DELTAS, TOKENS = 20, 3
"""Deltas a second, which is what the engine sends at most, and the tokens of each."""
MESSAGES = 1000
BEAT_S, KEPT_S = 0.005, 0.02

WORDS = (
    *("the", "sea", "was", "calm", "that", "night", "and", "an", "old", "lamp", "turned", "slowly"),
    *("while", "its", "keeper", "wrote", "of", "ships"),
)


class Watched(tui.app.LlamaApp):
    """Looks every few milliseconds whether it still can; the file `stalls` has when it could not."""

    stalls: Path

    async def on_mount(self) -> None:
        """Begin."""
        self._beating = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        with self.stalls.open("a", buffering=1) as log:
            while True:
                began, computed = time.perf_counter(), time.thread_time()
                await asyncio.sleep(BEAT_S)
                took = time.perf_counter() - began - BEAT_S
                if took > KEPT_S:
                    log.write(f"{began} {took} {time.thread_time() - computed}\n")


def prose(rng: random.Random) -> str:
    """A paragraph."""
    sentences = (" ".join(rng.choices(WORDS, k=rng.randint(8, 20))) for _ in range(rng.randint(3, 6)))
    return " ".join(f"{sentence.capitalize()}." for sentence in sentences) + "\n\n"


def item(rng: random.Random) -> str:
    """An item of a list."""
    return f"- **{rng.choice(WORDS)}**: {' '.join(rng.choices(WORDS, k=rng.randint(6, 14)))}\n"


def function(rng: random.Random) -> str:
    """A function of a program."""
    name, count, said = rng.choice(WORDS), rng.randint(2, 99), " ".join(rng.choices(WORDS, k=6))
    return (
        f'def {name}_{count}(board, player):\n    """{said.capitalize()}."""\n'
        f"    for row in range({count}):\n        if board[row][{count % 3}] == player:\n"
        f"            return row + {count}  # {rng.choice(WORDS)}\n"
        "    print(f'no move for {player}')\n    return None\n\n\n"
    )


PARTS: dict[str, Callable[[random.Random], str]] = {"prose": prose, "list": item, "code": function}


def deltas(kind: str, seconds: float) -> list[str]:
    """A text of that kind in pieces of a few tokens, as many as are sent in so many seconds."""
    rng, count = random.Random(1), round(seconds * DELTAS)
    tokens = ["```python\n"] if kind == "code" else []
    while len(tokens) < count * TOKENS:
        tokens += re.findall(r"\s*\w{1,6}|\s*[^\w\s]|\s+", PARTS[kind](rng))
    return ["".join(tokens[at : at + TOKENS]) for at in range(0, count * TOKENS, TOKENS)]


def fill(history: History) -> None:
    """Save a conversation of a thousand messages."""
    rng = random.Random(1)
    with_code = f"\n\n- one\n- **two**\n\n```python\n{function(rng)}```\n"

    def write(db: sqlite3.Connection) -> None:
        chat, above = insert_chat(db, "a long one", 1e9, 1e9, "llama", {}), None
        for number in range(1, MESSAGES + 1):
            message = Message(0, None, "user", f"question {number}")
            if number % 2 == 0:
                text = prose(rng) + with_code + f"answer {number}"
                message = Message(0, None, "assistant", text, reason=Reason.STOP)
            above = insert_message(db, chat, above, None, "", SavedMessage(message, 1e9))
        db.execute("UPDATE chats SET head = ? WHERE id = ?", (above, chat))

    history._database.write(write)


def main() -> None:
    """Run the app until the user leaves."""
    kind = sys.argv[2]
    Watched.stalls = Path(sys.argv[1])
    tui.app.LlamaApp = Watched  # type: ignore[misc]
    if kind == "demo":
        sys.argv[1:] = sys.argv[3:]
        sys.exit(llama_tui())
    history = None
    if kind == "chats":
        history = History(history_file())
        fill(history)
    fake_backend.PREFILL_S = 0.01
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 20.0
    replies = [deltas("code" if kind == "chats" else kind, seconds)]
    load = loads(plan_7b(budget=SIMULATED), SIMULATED_7B)
    backend = LiveFakeBackend(replies, load=load, token_s=1 / DELTAS, meters=True)
    session = ChatSession(backend, LoadOptions("x", device="sim"), Settings(default_values()))
    tui.app.show(Talk(session, "fake", history=history))
    backend.close(1)


if __name__ == "__main__":
    main()
