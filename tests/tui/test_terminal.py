"""The app on a terminal of its own: what only a real screen, real descriptors and a real clock can show."""

from __future__ import annotations

import fcntl
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]

APP = """
import os, sys
from core.options import LoadOptions
from core.engine.events import Failed
from tests.fake_backend import LOAD, LiveFakeBackend
from tui.app import show
from tui.chat_session import ChatSession
from tui.settings import Settings
from tui.talk import Talk

class Noisy(LiveFakeBackend):
    def submit(self, command):
        super().submit(command)
        os.write(1, b"NATIVE NOISE\\n")
        os.write(2, b"NATIVE NOISE\\n")
        print("PYTHON NOISE")

load = ((0.2, Failed("weights: no such file", fatal=True)),) if "--fail" in sys.argv else LOAD
backend = Noisy(["word " * 1000], load=load, token_s=0.02)
outcome = show(Talk(ChatSession(backend, LoadOptions("x"), Settings({})), "fake"))
backend.close(1)
print("ENDED", outcome.exit_code, outcome.line, "torch" in sys.modules)
"""

Launch = Callable[..., Terminal]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Starts the app on a pty of 100x30, with its log below tmp_path."""
    terminals: list[Terminal] = []

    def start(*arguments: str, **environment: str) -> Terminal:
        environment |= {"PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path)}
        terminal = Terminal((sys.executable, "-c", APP, *arguments), 100, 30, **environment)
        terminals.append(terminal)
        return terminal

    yield start
    for terminal in terminals:
        terminal.close()


@pytest.mark.alone
def test_a_session_from_the_first_frame_to_quitting_in_mid_reply(launch: Launch, tmp_path: Path) -> None:
    terminal = launch()
    terminal.wait_for("idle")
    assert terminal.modes() != terminal.before  # raw, or the last comparison shows nothing
    terminal.send("hello\r")
    terminal.wait_for("replying")
    terminal.wait_for("word word")

    terminal.send("\x11")  # ctrl+q
    quitting = time.monotonic()
    assert terminal.wait_exit() == 0
    assert time.monotonic() - quitting < 3
    assert b"ENDED 0  False" in terminal.raw
    assert terminal.modes() == terminal.before
    left = terminal.raw[terminal.raw.rindex(b"\x1b[?1049l") :]
    assert b"\x1b[?25h" in left  # the cursor is back after the alternate screen was left
    assert b"NOISE" not in terminal.raw
    assert "NATIVE NOISE" in next(tmp_path.rglob("llama-tui.log")).read_text()


def test_a_fatal_failure_restores_the_terminal_first(launch: Launch) -> None:
    terminal = launch("--fail")
    assert terminal.wait_exit() == 0
    assert b"ENDED 2 weights: no such file" in terminal.raw
    assert terminal.raw.index(b"\x1b[?1049l") < terminal.raw.index(b"ENDED")
    assert terminal.modes() == terminal.before


def test_the_screen_follows_the_terminals_size(launch: Launch) -> None:
    terminal = launch()
    terminal.wait_for("idle")
    assert "SETTINGS" in terminal.text()
    before = len(terminal.raw)
    fcntl.ioctl(terminal._master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    # What fits only the new width is drawn: the gauges in one line, the settings gone.
    terminal.wait(lambda: b"no GPU" in terminal.raw[before:] or b"idle" in terminal.raw[before:], 10)
    terminal.screen.resize(24, 80)
    terminal.send("x")
    terminal.wait(lambda: "x" in terminal.text(), 10)
    assert "SETTINGS" not in terminal.text()


def test_pager_and_editor_get_the_terminal_and_give_it_back(launch: Launch) -> None:
    terminal = launch(
        PAGER="""sh -c 'echo PAGER STARTS; cat "$1"; echo PAGER ENDS; sleep 0.2' pager""",
        VISUAL="""sh -c 'printf "%s, edited" "$(cat "$1")" > "$1"' editor""",
    )
    terminal.wait_for("idle")
    terminal.send("draft")
    terminal.wait_for("\u203a draft")
    terminal.send("\x07")  # ctrl+g
    terminal.wait_for("\u203a draft, edited")
    terminal.send("\r")
    terminal.wait_for("word word")
    terminal.send("\x1bOQ")  # F2
    terminal.wait(lambda: b"PAGER ENDS" in terminal.raw)
    shown = terminal.raw[terminal.raw.index(b"PAGER STARTS") :]
    assert b"you: draft, edited" in shown
    assert b"fake: word" in shown
    terminal.send("\x1b")
    terminal.wait_for("cancelled")
