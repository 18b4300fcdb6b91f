"""Conversations whose process is killed at random moments: `python -m tests.killed CKPT` says what is left.

Each round starts the program on a script of messages, kills it with SIGKILL somewhere in the middle, and
holds what its history has against what had been seen on its outputs by then.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from core.history.rows import RUNNING
from core.history.store import History

LLAMA_TUI = (sys.executable, "-c", "import sys; from tui.cli import main; sys.exit(main())")
LOST_S = 3.0
"""The most of a running reply that may be missing."""


@dataclass(frozen=True, slots=True)
class Round:
    """What a killed process left: replies that were seen to end, those in the database, seconds lost."""

    seen: int
    saved: int
    running: bool
    lost_s: float


def conversation(
    folder: Path, arguments: list[str], seconds: float, messages: int = 400
) -> tuple[list[dict[str, object]], list[tuple[float, str]], float]:
    """Run and kill: finished replies, pieces of text with their times, and when it was killed."""
    script, stats = folder / "script.txt", folder / "stats.jsonl"
    script.write_text("".join(f"Once upon a time there were {i} foxes.\n" for i in range(messages)))
    command = [*LLAMA_TUI, *arguments, "--script", str(script), "--stats", str(stats)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pieces: list[tuple[float, str]] = []
    assert process.stdout is not None
    assert process.stderr is not None
    errors: list[bytes] = []
    drain = threading.Thread(target=lambda: errors.append(process.stderr.read()))  # type: ignore[union-attr]
    drain.start()
    first = threading.Event()

    def read() -> None:
        while data := os.read(process.stdout.fileno(), 65536):  # type: ignore[union-attr]
            pieces.append((time.monotonic(), data.decode("utf-8", "replace")))
            first.set()
        first.set()

    reader = threading.Thread(target=read)
    reader.start()
    first.wait(120)
    assert pieces, b"".join(errors).decode()
    time.sleep(seconds)
    killed = time.monotonic()
    process.kill()
    status = process.wait()
    reader.join()
    drain.join()
    assert status == -9, f"it was over before it was killed, with {status}: {b''.join(errors).decode()}"
    lines = stats.read_text().split("\n")[:-1]  # the last may be cut off
    return [json.loads(line) for line in lines], pieces, killed


def check(folder: Path, path: Path, arguments: list[str], seconds: float) -> Round:
    """One round. AssertionError where something is missing."""
    finished, pieces, killed = conversation(folder, arguments, seconds)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        statuses = [
            row[0] for row in db.execute("SELECT status FROM messages WHERE status NOT NULL ORDER BY id")
        ]
    history = History(path)
    newest = history.latest()
    assert newest is not None
    replies = [s.message for s in history.load(newest).messages if s.message.role == "assistant"]
    history.close()
    for reply, seen in zip(replies, finished, strict=False):
        assert (list(reply.tokens), reply.reason) == (seen["tokens"], seen["finish_reason"])
    done = len(statuses) - statuses.count(RUNNING)
    assert done >= len(finished)
    saved = "\n".join(reply.text for reply in replies)
    shown, lost_from = "", killed
    for when, text in pieces:
        shown += text
        if not saved.startswith(shown.rstrip("\n")):
            lost_from = min(lost_from, when)
    return Round(len(finished), done, RUNNING in statuses, killed - lost_from)


def main() -> None:
    """Kill it many times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", nargs="+", help="CKPT [TOKENIZER] and options of llama-tui")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--longest", type=float, default=6.0, help="seconds after the first token")
    given, options = parser.parse_known_args()
    rng = random.Random(5)
    rounds = []
    for number in range(given.count):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            os.environ["LLAMA_TUI_DATA"] = name
            rounds.append(
                check(
                    folder,
                    folder / "history.db",
                    [*given.checkpoint, *options],
                    rng.uniform(0, given.longest),
                )
            )
            print(number + 1, rounds[-1], flush=True)
    middle, lost = sum(r.running for r in rounds), max(r.lost_s for r in rounds)
    print(f"{len(rounds)} kills, {middle} in the middle of a reply; every finished reply is there")
    print(f"of a running one at most the last {lost:.2f} s were lost")
    assert lost <= LOST_S


if __name__ == "__main__":
    main()
