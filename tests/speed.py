"""Decode in the chat against headless: `make speed`.

Five alternating pairs for each kind of text, the same greedy tokens on both sides, each run a fresh
process; the ratio of a pair is chat over headless, and the median of the five is printed. What the chat draws
is taken and thrown away: the emulator that other tests look at, a program in Python, takes as much of the
cores as the chat itself.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.terminal import LLAMA_TUI, Terminal

PROMPTS = {
    "prose": "Write a long story about a lighthouse keeper and the sea.",
    "list": "List 60 things to pack for a long journey as bullet points, each with a reason.",
    "code": "Write a long Python program with many functions that plays tic-tac-toe. Only code.",
}
OPTIONS = ("--demo", "--temperature", "0", "--repeat-penalty", "1.1", "--max-tokens", "300", "--seed", "1")
PAIRS = 5


def headless(prompt: str, stats: Path) -> None:
    """One reply without a screen."""
    argv = [*LLAMA_TUI, *OPTIONS, "--prompt", prompt, "--stats", str(stats)]
    subprocess.run(argv, check=True, capture_output=True)


def chat(prompt: str, stats: Path) -> None:
    """One reply in the chat on a terminal of 120x40, gauges and sidebar showing."""
    terminal = Terminal([*LLAMA_TUI, *OPTIONS, "--stats", str(stats)])
    try:
        terminal.wait_for("F1")
        terminal.blind()
        terminal.send(prompt + "\r")
        terminal.wait(lambda: stats.exists() and stats.stat().st_size, timeout=120)
        terminal.send("\x11")
        terminal.wait_exit()
    finally:
        terminal.close()


def main() -> None:
    """Measure and print a table."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLAMA_TUI_DATA"] = folder  # what is said here is nobody's conversation
        for kind in sys.argv[1:] or PROMPTS:
            prompt = PROMPTS[kind]
            rows = []
            for pair in range(PAIRS):
                replies = []
                for run in (headless, chat):
                    stats = Path(folder) / f"{kind}-{pair}-{run.__name__}"
                    run(prompt, stats)
                    replies.append(json.loads(stats.read_text()))
                if replies[0]["tokens"] != replies[1]["tokens"]:
                    sys.exit(f"{kind}: the two sides did not compute the same tokens")
                alone, shown = (reply["stats"]["decode_tok_s"] for reply in replies)
                rows.append((shown / alone, alone, shown))
                print(
                    f"{kind:6} headless {alone:5.1f}  chat {shown:5.1f} tok/s  ratio {shown / alone:.3f}",
                    flush=True,
                )
            ratio = statistics.median(row[0] for row in rows)
            print(
                f"{kind:6} median ratio {ratio:.3f} over {PAIRS} pairs of {len(replies[0]['tokens'])} tokens"
            )


if __name__ == "__main__":
    main()
