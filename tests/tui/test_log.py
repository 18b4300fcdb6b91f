"""The log: what goes into the file, and what is shown of it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.geometry import Offset
from textual.selection import Selection

from tests.terminal import Terminal
from tests.tui.conftest import Driver, Open
from tui import log_tail, stdio_guard
from tui.log_tail import LogTail
from tui.screens.log import LogScreen
from tui.stdio_guard import logged
from tui.widgets.log_view import KEPT, LogView

HOSTILE = b"\x1b[2J\x1b]52;c;aGk=\x07 \xe2\x80\xaeevil [red]x[/red] \x9b31m <b> \xff\xfe\n"

# --- reading the end of a file ------------------------------------------------------------------


def test_new_lines_come_as_they_are_finished(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = LogTail(path)
    assert tail.read() == []  # there is no such file
    path.write_bytes("one\ntwo ä\nhalf of ".encode())
    assert tail.read() == ["one", "two ä"]
    with path.open("ab") as file:
        file.write("a line\nä".encode()[:-1])  # in the middle of a character
    assert tail.read() == ["half of a line"]
    with path.open("ab") as file:
        file.write("ä".encode()[1:])
    assert tail.read() == []
    assert tail.read() == ["ä"]  # nothing follows
    assert tail.read() == []


def test_a_file_that_was_begun_afresh_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("a long line of the session before\n")
    tail = LogTail(path)
    assert tail.read() == ["a long line of the session before"]
    path.write_text("new\n")
    assert tail.read() == ["new"]


@pytest.mark.alone
def test_of_200_megabytes_only_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(200_000_000)
        file.seek(0, 2)
        file.write(b"\n" + b"".join(b"line %d\n" % number for number in range(100)))
    tail = LogTail(path)
    tracemalloc.start()
    began = time.perf_counter()
    lines = tail.read()
    taken = time.perf_counter() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 0.5
    assert peak < 10 * log_tail._MOST
    assert lines[0] == f"({path.stat().st_size - log_tail._MOST} bytes before this are only in the file)"
    assert lines[-1] == "line 99"
    assert lines[-100:] == [f"line {number}" for number in range(100)]
    with path.open("ab") as file:  # as much again in one go
        file.truncate(400_000_000)
        file.seek(0, 2)
        file.write(b"\nend\n")
    lines = tail.read()
    assert len(lines) < 5
    assert lines[-1] == "end"


def test_no_line_is_longer_than_anybody_reads(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 5000 + b"\n" + b"y" * 100_000)
    tail = LogTail(path)
    [line] = tail.read()
    assert line == "x" * 1000 + " (and 4000 characters more)"
    [line] = tail.read()
    assert line.startswith("y" * 1000 + " (and ")


def test_what_could_act_on_the_terminal_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(HOSTILE + b"50 %\r100 %\r\n")
    assert LogTail(path).read() == ["[2J]52;c;aGk= evil [red]x[/red] \ufffd31m <b> \ufffd\ufffd", "100 %"]


# --- the screen ---------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "llama-tui.log"
    monkeypatch.setattr("tui.app.log_path", lambda: path)
    monkeypatch.setattr("tui.screens.log._PERIOD_S", 0.01)
    return path


def lines_of(driver: Driver) -> list[str]:
    return list(driver.app.screen.query_one(LogView).lines)


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (200, 60)], ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_end_is_shown_and_followed(open_chat: Open, path: Path, size: tuple[int, int]) -> None:
    path.write_text("".join(f"line {number}\n" for number in range(300)))
    async with open_chat(size=size) as driver:
        await driver.press("f12")
        await driver.until(lambda: "line 299" in driver.screen_text)
        screen = driver.screen_text.splitlines()
        assert screen[0].startswith(" LOG  /")
        assert screen[-1].startswith(" Esc back")
        with path.open("a") as file:
            file.write("something new\n")
        await driver.until(lambda: "something new" in driver.screen_text)
        await driver.press("pageup")
        await driver.settle()
        assert "something new" not in driver.screen_text
        with path.open("a") as file:
            file.write("and more\n")
        await driver.until(lambda: "and more" in lines_of(driver))
        assert "and more" not in driver.screen_text  # the user is reading
        await driver.press("end")
        await driver.until(lambda: "and more" in driver.screen_text)
        await driver.press("f12")
        assert driver.app.screen is driver.chat


async def test_the_command_opens_it_and_keys_close_it(open_chat: Open, path: Path) -> None:
    async with open_chat() as driver:
        for key in ("escape", "q", "ctrl+c", "f12"):
            await driver.say("/log")
            assert isinstance(driver.app.screen, LogScreen)
            await driver.press(key)
            assert driver.app.screen is driver.chat
        await driver.say("/log")
        assert "nothing has been logged yet" in driver.screen_text
        path.write_text("first\n")
        await driver.until(lambda: lines_of(driver)[:1] == ["first"])


async def test_what_is_selected_can_be_copied(open_chat: Open, path: Path) -> None:
    path.write_text("one\ntwo\nthree\n")
    async with open_chat() as driver:
        await driver.press("f12")
        await driver.until(lambda: "three" in driver.screen_text)
        screen = driver.app.screen
        screen.selections = {screen.query_one(LogView): Selection(Offset(1, 0), Offset(2, 1))}
        await driver.settle()
        await driver.press("ctrl+c")
        await driver.until(lambda: driver.app.clipboard == "ne\ntw")
        await driver.until(lambda: "copied 5 characters" in driver.screen_text)
        assert isinstance(driver.app.screen, LogScreen)
        await driver.press("ctrl+c")
        assert driver.app.screen is driver.chat


async def test_hostile_content_is_shown_as_text(open_chat: Open, path: Path) -> None:
    path.write_bytes(HOSTILE * 3)
    async with open_chat() as driver:
        await driver.press("f12")
        await driver.until(lambda: "[red]x[/red]" in driver.screen_text)
        assert "\x1b" not in driver.screen_text
        assert "\u202e" not in driver.screen_text


async def test_a_huge_file_keeps_the_screen_small(open_chat: Open, path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(200_000_000)
    async with open_chat() as driver:
        await driver.press("f12")
        await driver.until(lambda: "bytes before this are only in the file" in driver.screen_text)
        for batch in range(3):
            with path.open("a") as file:
                file.write("".join(f"{batch} {number}\n" for number in range(3000)))
            await driver.until(lambda batch=batch: f"{batch} 2999" in driver.screen_text)
        assert len(lines_of(driver)) == KEPT


# --- what is written into it --------------------------------------------------------------------


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with logged(descriptor):
        yield path
    os.close(descriptor)


def test_ours_is_logged_from_info_on_and_others_from_warning_on(written: Path) -> None:
    for name in ("core.engine.worker", "tui.app", "somebody.else"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logging.getLogger(name).log(level, "said by %s at %s", name, level)
    lines = written.read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "INFO core.engine.worker: said by core.engine.worker at 20",
        "WARNING core.engine.worker: said by core.engine.worker at 30",
        "INFO tui.app: said by tui.app at 20",
        "WARNING tui.app: said by tui.app at 30",
        "WARNING somebody.else: said by somebody.else at 30",
    ]
    assert all(line.startswith("20") and line[10] == " " for line in lines)  # date and time


def test_what_ends_a_thread_is_logged(written: Path) -> None:
    def fail() -> None:
        raise RuntimeError("the thread is broken")

    thread = threading.Thread(target=fail, name="helper")
    thread.start()
    thread.join()
    text = written.read_text()
    assert "ERROR tui.stdio_guard: the thread helper has ended" in text
    assert "RuntimeError: the thread is broken" in text


def test_afterwards_everything_is_as_it_was(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = (root.level, root.handlers[:], threading.excepthook, logging.getLogger("core").level)
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    with logged(descriptor):
        pass
    os.close(descriptor)
    assert (root.level, root.handlers[:], threading.excepthook, logging.getLogger("core").level) == before


def test_a_log_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stdio_guard, "log_path", lambda: Path("/proc/nowhere/llama-tui.log"))
    descriptor = stdio_guard._open_log()
    with logged(descriptor):
        logging.getLogger("core").error("lost")
    os.close(descriptor)


def test_without_a_terminal_nothing_is_redirected() -> None:
    program = "import os\nfrom tui.stdio_guard import guarded\nwith guarded():\n    os.write(1, b'out')\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"out"


PROGRAM = """
import ctypes, logging, os, threading
from core.options import LoadOptions, default_values
from tests.fake_backend import LiveFakeBackend
from tui.app import show
from tui.chat_session import ChatSession
from tui.settings import Settings
from tui.talk import Talk

def fail():
    os.write(1, b"printed by a library\\n")
    ctypes.CDLL(None).puts(b"printed by C")
    ctypes.CDLL(None).fflush(None)
    print("printed by Python", flush=True)
    logging.getLogger("core.engine").info("logged by us")
    logging.getLogger("other").warning("logged by others")
    raise RuntimeError("a thread is broken")

class Backend(LiveFakeBackend):
    def submit(self, command):
        super().submit(command)
        if type(command).__name__ == "Submit":
            threading.Thread(target=fail, name="helper").start()

session = ChatSession(Backend(["fine"]), LoadOptions("x"), Settings(default_values()))
show(Talk(session, "fake"))
"""


def test_what_libraries_print_is_in_the_log_and_not_on_the_screen(tmp_path: Path) -> None:
    terminal = Terminal([sys.executable, "-c", PROGRAM], XDG_STATE_HOME=str(tmp_path))
    try:
        terminal.wait_for("idle")
        terminal.send("go\r")
        terminal.wait_for("fine")
        assert "printed by" not in terminal.text()
        assert "broken" not in terminal.text()
        terminal.send("\x1b[24~")  # F12
        terminal.wait_for("RuntimeError: a thread is broken")
        for part in (
            "printed by a library",
            "printed by C",
            "printed by Python",
            "INFO core.engine: logged by us",
            "WARNING other: logged by others",
            "ERROR tui.stdio_guard: the thread helper has ended",
            "INFO tui.app: llama-tui",
        ):
            terminal.wait_for(part)
        terminal.send("\x1b")
        terminal.wait_for("fine")
        terminal.send("\x11")
        assert terminal.wait_exit() == 0
        after = bytes(terminal.raw).rpartition(b"\x1b[?1049l")[2]
        assert b"printed" not in after
    finally:
        terminal.close()
