"""Every byte that reaches a terminal while a model, a card, a chat and the user's clipboard are hostile."""

from __future__ import annotations

import base64
import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile import CASES, JOINERS, PAYLOAD, Case, clean
from tests.terminal import Terminal

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, ROWS = 96, 40  # no settings beside the text, so that its lines can be read as they are
CTRL_Q, F6, SHIFT_TAB, UP = "\x11", "\x1b[17~", "\x1b[Z", "\x1b[A"
PASTE = "\x1b[200~", "\x1b[201~"

_COLOUR = r"[34]8;2;\d{1,3};\d{1,3};\d{1,3}"

OURS = {
    "another screen while the app runs": r"\x1b\[\?1049[hl]",
    "the mouse: buttons, movement, and two ways to tell where": r"\x1b\[\?(?:1000|1003|1006|1015)[hl]",
    "the cursor, hidden and shown": r"\x1b\[\?25[hl]",
    "told when the window gets the focus": r"\x1b\[\?1004[hl]",
    "pastes in brackets": r"\x1b\[\?2004[hl]",
    "lines that wrap, but for while the app runs": r"\x1b\[\?7[hl]",
    "asked whether frames can be painted at once": r"\x1b\[\?2026\$p",
    "a frame that is painted at once": r"\x1b\[\?2026[hl]",
    "asked whether sizes can be told in the input": r"\x1b\[\?2048\$p",
    "kitty's keys, and the terminal's own again": r"\x1b\[>\d+u|\x1b\[<u",
    "the window's title, kept and brought back": r"\x1b\[2[23];2t",
    "the window's title": r"\x1b\]2;[^\x00-\x1f\x7f-\x9f]*\x1b\\",
    "the shape of the pointer": r"\x1b\]22;[a-z-]*\x07",
    "a copy": r"\x1b\]52;c;[A-Za-z0-9+/=]*\x07",
    "the cursor to a place": r"\x1b\[\d+;\d+H",
    "no style": r"\x1b\[0m",
    # Bold, faint, italic, underlined, reversed, struck out: none that blinks (5) or hides (8).
    "a style": rf"\x1b\[(?:(?:[123479]|{_COLOUR})(?:;|(?=m)))+m",
}
"""What Textual 8.2.8 and this app may write beside text, each by its purpose."""

_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.?)", re.DOTALL)
_CONTROLS = f"{JOINERS}\ufe0f"  # of which the emulator knows nothing


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    # Over ssh and outside tmux the terminal is the only way to a clipboard.
    environment = {"SSH_CONNECTION": "x", "TMUX": "", "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "tests.scripted_app"]
    terminal = Terminal(argv, COLUMNS, ROWS, XDG_STATE_HOME=str(tmp_path), **environment)
    yield terminal
    terminal.close()


def parted(raw: bytes) -> tuple[list[tuple[str, str]], str]:
    """The sequences in what was written, each with its purpose, and the text between them."""
    written = raw.decode()
    found = []
    for sequence in _SEQUENCE.findall(written):
        purpose = next((name for name, form in OURS.items() if re.fullmatch(form, sequence)), None)
        assert purpose is not None, f"no sequence of ours: {sequence!r}"
        found.append((purpose, sequence))
    return found, _SEQUENCE.sub("", written)


def copies(terminal: Terminal) -> list[str]:
    """What went to the clipboard."""
    found = re.findall(rb"\x1b\]52;c;([^\x07]*)\x07", bytes(terminal.raw))
    return [base64.b64decode(data).decode() for data in found]


def ended(terminal: Terminal) -> int:
    """How many replies have come to their end: the title has a sign before it while one runs."""
    titles = re.findall(r"\x1b\]2;([^\x1b\x07]*)", bytes(terminal.raw).decode(errors="replace"))
    return sum(not title.startswith("●") for title in titles) - 1


def seen(terminal: Terminal, case: Case) -> bool:
    """Whether the screen shows the end of a reply."""
    if set(_CONTROLS) & set(case.clean):
        return case.clean.encode() in terminal.raw
    end = unicodedata.normalize("NFC", case.seen_in(case.clean))[-60:]
    return end in unicodedata.normalize("NFC", case.seen_in(terminal.text()))


def test_nothing_but_our_own_sequences_and_text(terminal: Terminal) -> None:
    terminal.wait_for("idle")
    terminal.send("\x1b[?2026;2$y")  # frames can be painted at once here
    for number, case in enumerate(CASES, 1):
        terminal.send(f"case {number}\r")
        terminal.wait(lambda number=number: ended(terminal) == number)
        terminal.wait(lambda case=case: seen(terminal, case), 10)
    assert copies(terminal) == []
    terminal.send(F6)
    terminal.wait(lambda: len(copies(terminal)) == 1)
    terminal.send(SHIFT_TAB + UP + UP + "c")
    terminal.wait(lambda: len(copies(terminal)) == 2)
    assert copies(terminal) == [CASES[-1].clean, CASES[-2].clean]
    pasted = PAYLOAD.replace("\ud800", "")
    terminal.send(pasted.join(PASTE))
    terminal.wait_for(clean(pasted)[-20:])
    terminal.send(CTRL_Q)
    assert terminal.wait_exit() == 0
    assert terminal.modes() == terminal.before

    raw = bytes(terminal.raw)
    found, text = parted(raw)
    assert set(OURS) - {name for name, _ in found} == set()  # the list names nothing that is not needed
    assert clean(text) == text.replace("\r\n", "\n")
    places = [map(int, re.findall(r"\d+", s)) for name, s in found if name == "the cursor to a place"]
    assert all(row <= ROWS and column <= COLUMNS for row, column in places)
    for once in (b"\x1b[?1049l", b"\x1b[?2004l", b"\x1b[?25h"):
        assert raw.count(once) == 1
    assert len(copies(terminal)) == 2
