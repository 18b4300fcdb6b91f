"""What the program takes of a core while nothing happens: `python -m tests.idle [SECONDS [OPTIONS …]]`.

The real worker with its meters on a terminal of 120x40, first the chat with its gauges, then each full
page. Without OPTIONS the demo model is loaded; `--device sim` shows a card's gauges too.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from tests.terminal import LLAMA_TUI, Terminal

LIMIT = 0.02  # of a core
PAGES = {"chat": "", "gauges (F3)": "\x1bOR", "log (F12)": "\x1b[24~"}


def processor_seconds(pid: int) -> float:
    """User and system time of a process and all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure and print; 1 where something takes more than it may."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    options = sys.argv[2:] or ["--demo"]
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        terminal = Terminal([*LLAMA_TUI, *options], LLAMA_TUI_DATA=folder, XDG_STATE_HOME=folder)
        try:
            terminal.wait_for("idle", 180)
            for name, key in PAGES.items():
                terminal.send(key)
                time.sleep(5)  # what a load or a page leaves to be done
                began, before = time.perf_counter(), processor_seconds(terminal.process.pid)
                drawn = len(terminal.raw)
                time.sleep(seconds)
                taken = processor_seconds(terminal.process.pid) - before
                share = taken / (time.perf_counter() - began)
                worst = max(worst, share)
                print(
                    f"{name:12} {share:6.2%} of a core over {seconds:g} s, "
                    f"{(len(terminal.raw) - drawn) / seconds:.0f} bytes a second drawn",
                    flush=True,
                )
            terminal.send("\x11")
            terminal.wait_exit()
        finally:
            terminal.close()
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
