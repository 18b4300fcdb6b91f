"""How soon the interface reacts while a reply streams: `python -m tests.latency [--demo] [--keys N]`.

On a terminal of 120x40, with gauges and sidebar: from a key to the screen, at random moments of a reply of
prose, of a list and of code; and the longest time in which the event loop could do nothing else, there and in
a chat of a thousand messages. The engine is a scripted one that sends as often as the real one does, with
`--demo` the demo model, which computes on the same cores. What the app draws is looked through for the key
and thrown away.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.speed import OPTIONS, PROMPTS
from tests.streaming_app import MESSAGES
from tests.terminal import Terminal

KEY_P90_S, KEY_P99_S, STALL_S, OPENED_S = 0.06, 0.15, 0.1, 0.3
LETTERS = "BFGJKQVWXZ"  # which no text has two of next to each other
CTRL_O, ESCAPE = "\x0f", "\x1b"
AFTER_S = 1.0  # for what a change brings about


class Stall(NamedTuple):
    """Seconds in which nothing else could be done, and how many of them the interface had a core."""

    took: float = 0.0
    computed: float = 0.0

    def __str__(self) -> str:
        return f"{1e3 * self.took:.0f} ms ({1e3 * self.computed:.0f} computed)"


class App:
    """The app on a terminal, and the times in which it could do nothing else."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder = Path(tempfile.mkdtemp(dir=folder))
        self._log = folder / "stalls"
        self._log.touch()
        argv = [sys.executable, "-m", "tests.streaming_app", str(self._log), *arguments]
        self.terminal = Terminal(
            argv,
            LLAMA_TUI_DATA=str(folder),  # what is said here is nobody's conversation
            LLAMA_TUI_CONFIG=str(folder / "none"),
            XDG_STATE_HOME=str(folder),
        )
        self.terminal.wait_for("idle", 180)
        self.terminal.blind()
        time.sleep(1)  # what is imported in the background

    def stall(self, begin: float, end: float) -> Stall:
        """The longest of them within a time."""
        lines = (tuple(map(float, line.split())) for line in self._log.read_text().splitlines())
        return max(
            (Stall(*rest) for began, *rest in lines if begin - rest[0] <= began <= end), default=Stall()
        )

    def shown(self, text: str, since: int, sent: float) -> float:
        """Seconds from `sent` until `text` had been drawn, of what came behind the first `since` bytes."""
        terminal, data = self.terminal, text.encode()
        terminal.wait(lambda: terminal.raw.find(data, since) >= 0, 10)
        end = terminal.raw.find(data, since) + len(data)
        return terminal.started + terminal.seconds_to(end) - sent

    def say(self, text: str) -> None:
        """Send a message, and wait until its reply has begun."""
        drawn = len(self.terminal.raw)
        self.terminal.send(text + "\r")
        self.terminal.wait(lambda: b"replying" in self.terminal.raw[drawn:])

    def change(self, deed: str, keys: str = "", size: tuple[int, int] | None = None) -> tuple[str, Stall]:
        """The longest stall behind something that the user does."""
        begin = time.perf_counter()
        if size is not None:
            self.terminal.resize(*size)
        self.terminal.send(keys)
        time.sleep(AFTER_S)
        return deed, self.stall(begin, begin + AFTER_S)

    def close(self) -> None:
        """End it."""
        self.terminal.process.terminate()
        self.terminal.close()


def keys(app: App, count: int, rng: random.Random) -> list[float]:
    """Type letters at random moments of a reply; the seconds that each took to the screen."""
    typed, times, begin = "", [], len(app.terminal.raw)
    while len(times) < count and b"idle" not in app.terminal.raw[begin:]:
        time.sleep(rng.uniform(0.1, 0.2))
        typed += rng.choice(LETTERS.replace(typed[-1:] or " ", ""))
        since, sent = len(app.terminal.raw), time.perf_counter()
        app.terminal.send(typed[-1])
        times.append(app.shown(typed[-4:], since, sent))
    return times


def typing(folder: Path, kind: str, count: int, *, demo: bool) -> bool:
    """Print how keys fare while a text of that kind streams; whether as they should."""
    seconds = 0.2 * count + 5
    options = (*OPTIONS[:-4], "--max-tokens", "4000", "--seed", "1", "--context", "4096")
    app = App(folder, "demo", *options) if demo else App(folder, kind, str(seconds))
    try:
        app.say(PROMPTS[kind])
        begin = time.perf_counter()
        times = keys(app, count, random.Random(kind))
        stall = app.stall(begin, time.perf_counter())
    finally:
        app.close()
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    p50, p90, p99 = cuts[49], cuts[89], cuts[98]
    good = p90 < KEY_P90_S and p99 < KEY_P99_S and stall.took < STALL_S
    figures = (
        f"{len(times)} keys to the screen: p50 {1e3 * p50:.0f} p90 {1e3 * p90:.0f} p99 {1e3 * p99:.0f} ms"
    )
    print(f"{kind:6} {figures}, longest stall {stall}{'' if good else '  MISSED'}", flush=True)
    return good


def long_chat(folder: Path) -> bool:
    """Print how a chat of a thousand messages opens, and the stalls of what may be slow in it."""
    app = App(folder, "chats", "12")
    try:
        drawn = len(app.terminal.raw)
        app.terminal.send(CTRL_O)
        app.terminal.wait(lambda: b"a long one" in app.terminal.raw[drawn:])
        time.sleep(0.5)
        since, sent = len(app.terminal.raw), time.perf_counter()
        app.terminal.send("\r")
        opened = app.shown(f"answer {MESSAGES}", since, sent)
        time.sleep(1)
        stalls = [("opening it", app.stall(sent, time.perf_counter()))]
        app.say("go on")
        stalls.append(app.change("narrower", size=(90, 40)))
        stalls.append(app.change("wider", size=(130, 40)))
        stalls.append(app.change("another theme", keys="/theme nord\r"))
        begin, drawn = time.perf_counter(), len(app.terminal.raw)
        app.terminal.wait(lambda: b"idle" in app.terminal.raw[drawn:])
        stalls.append(("a reply of code, and its end", app.stall(begin, time.perf_counter())))
    finally:
        app.close()
    print(f"{MESSAGES} messages: the end shown after {1e3 * opened:.0f} ms")
    for deed, stall in stalls:
        print(f"{MESSAGES} messages: longest stall of {deed} {stall}")
    return opened < OPENED_S and all(stall.took < STALL_S for _, stall in stalls)


def main() -> int:
    """Measure and print; 1 where something takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", action="store_true", help="the demo model instead of a scripted engine")
    parser.add_argument("--keys", type=int, default=100, help="of each kind of text")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good = [typing(Path(folder), kind, given.keys, demo=given.demo) for kind in PROMPTS]
        good.append(long_chat(Path(folder)))
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main())
