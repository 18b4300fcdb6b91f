"""The terminal's title and its bell, as bytes on a pseudo-terminal."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from textual import events
from textual.app import App

from core.config.read import Config
from core.folders import config_file
from tests.fake_backend import FakeBackend
from tests.terminal import Terminal
from tests.tui.conftest import Open
from tui.screens import chat_view
from tui.window_title import WindowTitle, kept, knows_titles, words

PROGRAM = """
from core.engine.events import Saved
from core.options import LoadOptions, default_values
from tests.fake_backend import LiveFakeBackend
from tui.app import show
from tui.chat_session import ChatSession
from tui.screens import chat_view
from tui.settings import Settings
from tui.talk import Talk

chat_view._SLOW_S = 0.4

class Backend(LiveFakeBackend):
    def _begin(self, run, user, *rest):
        super()._begin(run, user, *rest)
        self.emit(Saved(1, "Foxes \\x1b]2;evil\\x07and\\nhens"))

backend = Backend(["one two three four"], token_s=0.3)
session = ChatSession(backend, LoadOptions("x"), Settings(default_values()))
show(Talk(session, "fake"))
"""
BLUR, CTRL_Q = "\x1b[O", "\x11"
Launch = Callable[..., Terminal]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    terminals: list[Terminal] = []

    def start(**environment: str) -> Terminal:
        argv = [sys.executable, "-c", PROGRAM]
        terminals.append(Terminal(argv, XDG_STATE_HOME=str(tmp_path), **environment))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


def titles(terminal: Terminal) -> list[str]:
    return [found.decode() for found in re.findall(rb"\x1b\]2;([^\x1b\x07]*)\x1b\\", bytes(terminal.raw))]


def bells(terminal: Terminal) -> int:
    """Bells, without those that end an operating system command, such as Textual's for the pointer."""
    return re.sub(rb"\x1b\][^\x07\x1b]*\x07", b"", bytes(terminal.raw)).count(b"\x07")


def test_the_title_tells_how_it_goes_and_a_slow_reply_rings(launch: Launch) -> None:
    terminal = launch()
    terminal.wait_for("idle")
    terminal.send("hello\r")
    terminal.wait_for("replying")
    terminal.send(BLUR)
    terminal.wait(lambda: bells(terminal))
    terminal.wait(lambda: titles(terminal)[-1:] == ["Foxes ]2;eviland hens - llama-tui"])
    terminal.send("again\r")  # a key says that the user is here
    terminal.wait(lambda: terminal.text().count("one two three four") == 2)
    terminal.wait_for("idle")
    terminal.send(CTRL_Q)
    terminal.wait_exit()
    assert titles(terminal)[:4] == [
        "llama-tui",
        "● llama-tui",
        "● Foxes ]2;eviland hens - llama-tui",
        "Foxes ]2;eviland hens - llama-tui",
    ]
    assert bells(terminal) == 1
    raw = bytes(terminal.raw)
    parts = (b"\x1b[22;2t", b"\x1b]2;", b"\x1b[?1049l", b"\x1b[23;2t")
    assert [raw.count(part) for part in (parts[0], parts[3])] == [1, 1]
    assert [raw.index(part) for part in parts] == sorted(raw.index(part) for part in parts)
    assert raw.rindex(b"\x1b]2;") < raw.index(b"\x1b[23;2t")


def test_a_terminal_without_titles_gets_none(launch: Launch) -> None:
    terminal = launch(TERM="linux")
    terminal.wait_for("starting")
    terminal.send(CTRL_Q)
    terminal.wait_exit()
    for sequence in (b"\x1b]2;", b"\x1b[22;2t", b"\x1b[23;2t"):
        assert sequence not in terminal.raw


async def test_with_ascii_the_title_is_so_too(open_chat: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(chat_view, "write_sequence", lambda app, sequence: written.append(sequence))
    async with open_chat(ascii=True) as driver:
        await driver.say("hello")
        await driver.advance(0.3)
        assert written[-1] == "\x1b]2;* llama-tui\x1b\\"
        await driver.advance(3)
        assert written[-1] == "\x1b]2;llama-tui\x1b\\"


@pytest.mark.parametrize("rings", [True, False])
async def test_what_rings_and_when(open_chat: Open, monkeypatch: pytest.MonkeyPatch, rings: bool) -> None:
    rung: list[float] = []
    config = Config(config_file(), bell=rings)
    async with open_chat(
        FakeBackend(["one two three four"], token_s=4), ready=False, config=config
    ) as driver:
        monkeypatch.setattr(App, "bell", lambda self: rung.append(driver.backend.now))
        driver.app.post_message(events.AppBlur())
        await driver.advance(3)  # the model is ready
        assert len(rung) == rings
        await driver.say("slow")  # with a key, which says that the user is here
        await driver.advance(20)
        assert len(rung) == rings
        await driver.say("slow")
        driver.app.post_message(events.AppBlur())
        await driver.advance(12)
        assert len(rung) == rings
        await driver.advance(8)
        assert len(rung) == 2 * rings
        await driver.say("stopped")
        driver.app.post_message(events.AppBlur())
        await driver.advance(12)
        driver.chat.action_stop()  # somebody did that
        await driver.advance(8)
        assert len(rung) == 2 * rings


def test_words_of_the_title() -> None:
    assert words("", busy=False) == "llama-tui"
    assert words("", busy=True) == "● llama-tui"
    assert words("a\x1b[2J\nb" + "c" * 100, busy=False) == "a[2J b" + "c" * 53 + " - llama-tui"


def test_nothing_is_written_twice_nor_to_a_terminal_that_does_not_know_it() -> None:
    written: list[str] = []
    title = WindowTitle(written.append, {"TERM": "tmux-256color"})
    for text in ("one", "one", "two\x07"):
        title.show(text)
    assert written == ["\x1b]2;one\x1b\\", "\x1b]2;two\x1b\\"]
    WindowTitle(written.append, {"TERM": "linux"}).show("three")
    WindowTitle(written.append, {}).show("three")
    assert len(written) == 2


def test_which_terminals_know_titles() -> None:
    known = (
        "xterm-256color",
        "screen",
        "tmux-256color",
        "xterm-kitty",
        "alacritty",
        "foot",
        "st-256color",
        "st",
    )
    assert all(knows_titles({"TERM": term}) for term in known)
    assert not any(knows_titles({"TERM": term}) for term in ("linux", "vt220", "dumb", "ansi", "", "stv52"))


def test_a_file_is_no_terminal() -> None:
    file = io.StringIO()
    with kept(file, {"TERM": "xterm"}), kept(None, {"TERM": "xterm"}):
        pass
    assert file.getvalue() == ""
