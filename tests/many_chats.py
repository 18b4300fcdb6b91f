"""A history of 10,000 conversations with 200,000 messages: `python -m tests.many_chats CKPT` times it.

The database alone, and the chat on a terminal: from a key to the rows that it brings.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from core.engine.conversation import Message
from core.engine.events import Reason
from core.history.records import SavedMessage
from core.history.store import History
from core.history.writing import insert_chat, insert_message
from tests.terminal import LLAMA_TUI, Terminal

MESSAGES = 20  # in a conversation
_STARTED = 1.6e9


def vocabulary(rng: random.Random, size: int = 20_000) -> list[str]:
    """Made-up words of the lengths that English has; the first ones are the frequent ones."""
    letters, weights = (
        "etaoinshrdlucmfwypvbgkqjxz",
        [12, 9, 8, 7, 7, 7, 6, 6, 6, 4, 4, 3, 3, *[2] * 9, *[1] * 4],
    )
    found: dict[str, None] = {}
    while len(found) < size:
        found["".join(rng.choices(letters, weights, k=rng.randint(2, 3 + len(found) % 9)))] = None
    return list(found)


def fill(history: History, chats: int, words: list[str], rng: random.Random) -> None:
    """Conversations of as many words as people and models write, frequent ones more often (Zipf's law)."""
    shares = [1 / (rank + 1) for rank in range(len(words))]

    def write(db: sqlite3.Connection) -> None:
        now = _STARTED
        for _ in range(chats):
            said = rng.choices(words, shares, k=40 * MESSAGES)
            chat = insert_chat(db, " ".join(said[:6]), now, now, "llama", {})
            above = None
            for i in range(MESSAGES):
                now += 60
                user = i % 2 == 0
                text = " ".join(said[40 * i : 40 * i + (15 if user else 40)])
                message = Message(0, None, "user", text)
                if not user:
                    ids = tuple(range(60))
                    message = Message(0, None, "assistant", text, ids, (1.0,) * 60, None, Reason.STOP)
                above = insert_message(db, chat, above, None, "", SavedMessage(message, now))
            db.execute("UPDATE chats SET head = ?, updated = ? WHERE id = ?", (above, now, chat))

    history._database.write(write)


def queries(words: list[str]) -> list[str]:
    """From the first letter of a frequent word to several rare ones, and one that nothing has."""
    common, rare = words[0], words[len(words) // 2]
    return [
        "e",
        "t",
        common[:2],
        common,
        f"{words[1]} {words[2]}",
        rare[:3],
        rare,
        f"{common} {rare}",
        "zzzqqq",
    ]


def time_database(history: History, words: list[str]) -> None:
    """Print how long a page of the list and of searches takes."""
    for query in ("", *queries(words)):
        times = []
        for _ in range(7):
            began = time.perf_counter()
            rows = history.search(query)
            times.append(1000 * (time.perf_counter() - began))
        name, median = repr(query) if query else "the list", statistics.median(times)
        print(f"{name:20} {len(rows):3} rows  first {times[0]:5.1f} ms  median {median:5.1f} ms")


def time_keys(folder: str, checkpoint: str) -> None:
    """Print how long it takes in the chat from a key to the rows that it brings."""
    terminal = Terminal([*LLAMA_TUI, checkpoint], LLAMA_TUI_DATA=folder, LLAMA_TUI_CONFIG=f"{folder}/none")
    try:
        terminal.wait_for("idle")
        time.sleep(2)
        opened, found = [], []
        for _ in range(5):
            opened.append(_seconds(terminal, "\x0f", "20 msg"))
            for letter in "etao":
                found.append(_seconds(terminal, letter, "  …"))  # an excerpt below each title
                terminal.send("\x15")  # empties the search box
                time.sleep(0.5)
            terminal.send("\x1b")
            time.sleep(0.5)
        for name, times in (("ctrl+o to rows", opened), ("letter to rows", found)):
            print(
                f"{name:20} {len(times):3} times median {1000 * statistics.median(times):5.1f} ms  "
                f"most {1000 * max(times):5.1f} ms"
            )
    finally:
        terminal.close()


def _seconds(terminal: Terminal, key: str, expected: str) -> float:
    """From `key` until the screen shows `expected` once more than before."""
    before = terminal.text().count(expected)
    began = time.perf_counter()
    terminal.send(key)
    while terminal.text().count(expected) <= before:
        assert time.perf_counter() - began < 5, f"{expected!r} did not come:\n{terminal.text()}"
        time.sleep(0.001)
    return time.perf_counter() - began


def main() -> None:
    """Build it and time it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="?", help="a model for the chat, however small")
    parser.add_argument("--chats", type=int, default=10_000)
    given = parser.parse_args()
    rng = random.Random(1)
    words = vocabulary(rng)
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "history.db")
        fill(history, given.chats, words, rng)
        print(f"{given.chats} conversations, {given.chats * MESSAGES} messages")
        time_database(history, words)
        history.close()
        if given.checkpoint:
            time_keys(folder, given.checkpoint)


if __name__ == "__main__":
    main()
