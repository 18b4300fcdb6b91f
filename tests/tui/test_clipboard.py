"""The clipboard's ways, with programs that only pretend."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from pathlib import Path

import psutil
import pytest
from textual.app import App

from tui import clipboard
from tui.clipboard import TERMINAL, Route, copy, routes

X11 = {"DISPLAY": ":0"}
WAYLAND = {"WAYLAND_DISPLAY": "wayland-0", **X11}
ALL = ("tmux", "wl-copy", "xclip", "xsel", "pbcopy", "clip.exe")


class FakeApp:
    """What of an app the clipboard uses: it notes what went to the terminal."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self._clipboard = ""

    def copy_to_clipboard(self, text: str) -> None:
        self.written.append(text)


class Programs:
    """Programs in a folder of their own that write what they are given to files beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, then: str = "") -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/sh\n{then}\n/bin/cat > "{path}.got"\necho "$@" > "{path}.asked"\n')
        path.chmod(0o755)

    def got(self, name: str) -> bytes | None:
        path = self.folder / f"{name}.got"
        return path.read_bytes() if path.exists() else None

    async def copy(self, text: str, **environment: str) -> tuple[str, FakeApp]:
        app = FakeApp()
        said = await copy(app, text, {"PATH": str(self.folder), **environment})  # type: ignore[arg-type]
        assert app._clipboard == text
        return said, app


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setattr(sys, "platform", "linux")
    return Programs(tmp_path)


@pytest.mark.parametrize(
    ("environment", "names"),
    [
        ({}, []),
        (X11, ["xclip", "xsel"]),
        (WAYLAND, ["wl-copy", "xclip", "xsel"]),
        ({"TMUX": "/tmp/tmux,1,0", **WAYLAND}, ["tmux", "wl-copy", "xclip", "xsel"]),
        ({"SSH_CONNECTION": "1 2 3 4", **WAYLAND}, []),
        ({"SSH_CONNECTION": "1 2 3 4", "TMUX": "/tmp/tmux,1,0", **X11}, ["tmux"]),
        ({"WSL_DISTRO_NAME": "Debian"}, ["clip.exe"]),
        ({"TMUX": "", "DISPLAY": ""}, []),
    ],
)
def test_the_way_depends_on_where_one_is(
    programs: Programs, environment: dict[str, str], names: list[str]
) -> None:
    assert list(routes({"PATH": str(programs.folder), **environment})) == []  # nothing is installed
    for name in ALL:
        programs.add(name)
    assert [route.name for route in routes({"PATH": str(programs.folder), **environment})] == names


def test_on_a_mac(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    programs.add("pbcopy")
    assert [route.name for route in routes({"PATH": str(programs.folder)})] == ["pbcopy"]


async def test_a_program_gets_the_text_and_is_named(programs: Programs) -> None:
    programs.add("xclip")
    text = "one\n漢字 é 🦊\n" * 50_000
    said, app = await programs.copy(text, **X11)
    assert said == "with xclip"
    assert programs.got("xclip") == text.encode()
    assert (programs.folder / "xclip.asked").read_text() == "-selection clipboard -in\n"
    assert app.written == []


async def test_tmux_tells_its_terminal(programs: Programs) -> None:
    programs.add("tmux")
    programs.add("xclip")
    said, _ = await programs.copy("a", TMUX="/tmp/tmux,1,0", **X11)
    assert said == "with tmux"
    assert (programs.folder / "tmux.asked").read_text() == "load-buffer -w -\n"
    assert programs.got("xclip") is None


async def test_windows_gets_its_own_encoding(programs: Programs) -> None:
    programs.add("clip.exe")
    assert (await programs.copy("é🦊", WSL_DISTRO_NAME="Debian"))[0] == "with clip.exe"
    assert programs.got("clip.exe") == "é🦊".encode("utf-16-le")


async def test_without_a_program_the_terminal_is_asked(programs: Programs) -> None:
    said, app = await programs.copy("a", **X11)
    assert (said, app.written) == (TERMINAL, ["a"])


async def test_a_program_that_fails_is_followed_by_the_next(programs: Programs) -> None:
    programs.add("wl-copy", "exit 1")
    programs.add("xclip", "exec 0<&-; exit 3")  # which takes nothing
    programs.add("xsel")
    said, app = await programs.copy("a" * 1_000_000, **WAYLAND)
    assert (said, app.written) == ("with xsel", [])
    (programs.folder / "xsel").write_text("no program at all")
    assert (await programs.copy("a", **WAYLAND))[0] == TERMINAL


@pytest.mark.alone
async def test_a_program_that_hangs_is_ended_and_the_loop_goes_on(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clipboard, "LIMIT_S", 0.3)
    pid = programs.folder / "pid"
    programs.add("xclip", f'/bin/sleep 60 &\necho $! > "{pid}"\nwait')
    programs.add("xsel")
    longest, last = 0.0, time.perf_counter()

    async def watch() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now

    watcher = asyncio.create_task(watch())
    start = time.perf_counter()
    said, _ = await programs.copy("a", **X11)
    took = time.perf_counter() - start
    watcher.cancel()
    assert said == "with xsel"
    assert 0.3 <= took < 2
    assert longest < 0.25
    for _ in range(100):
        if not _alive(int(pid.read_text())):
            break
        await asyncio.sleep(0.02)
    else:
        raise AssertionError("what the program had started runs on")


@pytest.mark.alone
async def test_a_program_that_stays_behind_is_not_waited_for(programs: Programs) -> None:
    """As xclip does: its child serves the clipboard and keeps what it inherited open."""
    pid = programs.folder / "pid"
    path = programs.folder / "xclip"
    path.write_text(f'#!/bin/sh\n/bin/cat > "{path}.got"\n/bin/sleep 60 &\necho $! > "{pid}"\n')
    path.chmod(0o755)
    start = time.perf_counter()
    said, _ = await programs.copy("a", **X11)
    assert time.perf_counter() - start < 0.9
    assert (said, programs.got("xclip")) == ("with xclip", b"a")
    served = int(pid.read_text())
    assert _alive(served)
    os.kill(served, 9)


async def test_a_copy_that_is_overtaken_leaves_no_program(programs: Programs) -> None:
    pid = programs.folder / "pid"
    programs.add("xclip", f'echo $$ > "{pid}"\nexec /bin/sleep 60')
    task = asyncio.create_task(programs.copy("a", **X11))
    while not (pid.exists() and pid.read_text()):
        await asyncio.sleep(0.01)
    assert _alive(int(pid.read_text()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not _alive(int(pid.read_text()))


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
async def test_the_real_tmux_has_the_text(tmp_path: Path) -> None:
    socket = f"llama-tui-test-{os.getpid()}"
    environment = {"PATH": os.environ["PATH"], "TMUX_TMPDIR": str(tmp_path)}

    async def tmux(*words: str) -> str:
        process = await asyncio.create_subprocess_exec(
            "tmux", "-L", socket, *words, env=environment, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return out.decode()

    await tmux("-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "sleep 30")
    try:
        inside = (await tmux("display-message", "-p", "#{socket_path},#{pid},0")).strip()
        said = await copy(FakeApp(), "from here 漢", {**environment, "TMUX": inside})  # type: ignore[arg-type]
        assert said == "with tmux"
        assert await tmux("show-buffer") == "from here 漢"
    finally:
        await tmux("kill-server")


async def test_through_the_terminal_it_is_an_escape_sequence() -> None:
    written: list[str] = []
    app: App[None] = App()
    async with app.run_test():
        assert app._driver is not None
        app._driver.write = written.append  # type: ignore[method-assign]
        assert await copy(app, "fox", {"PATH": ""}) == TERMINAL
    assert "\x1b]52;c;Zm94\a" in written
    assert app.clipboard == "fox"


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_route_has_the_programs_name() -> None:
    assert Route(("wl-copy", "-n")).name == "wl-copy"
