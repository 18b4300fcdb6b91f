"""Quitting in the middle of everything that takes time: quick, and the terminal is as it was."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.terminal import LLAMA_TUI, Terminal

pytestmark = pytest.mark.alone

CTRL_Q, F8 = "\x11", "\x1b[19~"
LIMIT_S = 3.0

SLOW_BUS = ("--kernels", "torch", "--device", "sim", "--sim-link", "0.001", "--offload", "--sim-vram", "90MB")
"""A megabyte of weights behind a bus of a megabyte a second; the card is too small to measure on."""
MODES = (1049, 2004, 1000, 1003, 1006, 1004)
"""The other screen, pastes in brackets, the mouse three times, the focus."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Flags, what is typed when which text is there, and how the status line looks when it is time."""

    flags: tuple[str, ...]
    steps: tuple[tuple[str, str], ...]
    caught: str


TEXT = "Once upon a time there was a fox " * 6
MOMENTS = {
    "load": Moment((), (), "starting torch"),
    "prefill": Moment(SLOW_BUS, (("idle", f"{TEXT}\r"),), r"prefill \d+ %"),
    "decode": Moment(("--kernels", "torch"), (("idle", "Once\r"),), r"replying .* token \d+/\d+"),
    "streaming": Moment(SLOW_BUS, (("idle", "Once\r"),), r"token \d+/\d+ · limited by simulated link"),
    # While nothing runs, a megabyte moves too quickly to be caught at it.
    "placing": Moment(
        SLOW_BUS,
        (("idle", "Once\r"), ("replying", "/keep auto\r"), ("F8 applies", F8)),
        "moving weights",
    ),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS)
def test_quitting_takes_less_than_three_seconds(moment: Moment, stories: Path, tmp_path: Path) -> None:
    terminal = Terminal([*LLAMA_TUI, str(stories), *moment.flags], 120, 40, XDG_STATE_HOME=str(tmp_path))
    try:
        for text, keys in moment.steps:
            terminal.wait_for(text)
            terminal.send(keys)
        terminal.wait(lambda: re.search(moment.caught, terminal.text()))
        began = time.perf_counter()
        terminal.send(CTRL_Q)
        assert terminal.wait_exit(10) == 0
        assert time.perf_counter() - began < LIMIT_S
        assert terminal.modes() == terminal.before
        raw = terminal.raw.decode()
        for mode in MODES:
            assert (mode, raw.rindex(f"\x1b[?{mode}l") > raw.rindex(f"\x1b[?{mode}h")) == (mode, True)
        assert raw.rindex("\x1b[?25h") > raw.rindex("\x1b[?25l")  # the cursor is back
        assert raw.count("\x1b[<u") == raw.count("\x1b[>")  # and so are the terminal's own keys
    finally:
        terminal.close()
