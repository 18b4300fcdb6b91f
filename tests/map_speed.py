"""Decode with the memory map open against closed: `python -m tests.map_speed`.

Pairs of the same greedy reply in one app on a terminal of 120x40, once with the map open and once with the
chat and its gauges, in turn first and second; the ratio of a pair is open over closed, and the median is
printed. Every unit is streamed through a simulated card whose link is fast, so that the processor, which the
map needs too, limits the speed. What the app draws is taken and thrown away: the emulator that other tests
look at is a program in Python, which would compute on the same cores.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.speed import OPTIONS, PAIRS, PROMPTS
from tests.terminal import LLAMA_TUI, Terminal

DEVICE = ("--device", "sim", "--sim-vram", "300MB", "--sim-link", "16", "--context", "1024", "--offload")
F4, CTRL_R, CTRL_Q, ESCAPE = "\x1bOS", "\x12", "\x11", "\x1b"
AIM = 0.95


class Talk:
    """The app, and the figures of its replies as they come to the file."""

    def __init__(self, folder: Path) -> None:
        self._stats = folder / "stats"
        self._stats.touch()
        self._terminal = Terminal([*LLAMA_TUI, *OPTIONS, *DEVICE, "--stats", str(self._stats)])
        self._terminal.wait_for("idle")
        self._terminal.blind()

    def reply(self, keys: str, *, shown: bool) -> dict[str, Any]:
        """What `keys` set off, with the map `shown` from the prompt's end on."""
        terminal, before = self._terminal, self._lines()
        terminal.send(keys)
        if shown:
            drawn = len(terminal.raw)
            terminal.send(F4)
            terminal.wait(lambda: b"MEMORY MAP" in terminal.raw[drawn:])
        terminal.wait(lambda: self._lines() > before, timeout=120)
        if shown:
            terminal.send(ESCAPE)
        time.sleep(0.5)
        return json.loads(self._stats.read_text().splitlines()[-1])

    def _lines(self) -> int:
        return self._stats.read_text().count("\n")

    def close(self) -> None:
        """End the app."""
        self._terminal.send(CTRL_Q)
        self._terminal.wait_exit()
        self._terminal.close()


def main() -> None:
    """Measure, print, and fail where the map costs more than it may."""
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLAMA_TUI_DATA"] = folder  # what is said here is nobody's conversation
        talk = Talk(Path(folder))
        talk.reply(PROMPTS["prose"] + "\r", shown=False)
        first = talk.reply(CTRL_R, shown=False)  # as all that follow: with the prompt in the cache
        for pair in range(PAIRS):
            order = (False, True) if pair % 2 == 0 else (True, False)
            replies = {shown: talk.reply(CTRL_R, shown=shown) for shown in order}
            if any(reply["tokens"] != first["tokens"] for reply in replies.values()):
                sys.exit("the two sides did not compute the same tokens")
            closed, opened = (replies[shown]["stats"]["decode_tok_s"] for shown in (False, True))
            ratios.append(opened / closed)
            print(f"closed {closed:5.1f}  open {opened:5.1f} tok/s  ratio {ratios[-1]:.3f}", flush=True)
        talk.close()
    ratio = statistics.median(ratios)
    print(f"median ratio {ratio:.3f} over {PAIRS} pairs of {len(first['tokens'])} tokens")
    if ratio < AIM:
        sys.exit(f"the map may cost {100 * (1 - AIM):.0f} % at most")


if __name__ == "__main__":
    main()
