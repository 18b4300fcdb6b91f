"""The clipboard: by the program that reaches it from here, else through the terminal."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from textual.app import App

LIMIT_S = 1.0
"""Seconds that a program has before it is killed and the next way is taken."""

TERMINAL = "through the terminal (OSC 52), which may ignore it"


@dataclass(frozen=True, slots=True)
class Route:
    """A program that takes a text for the clipboard on its standard input."""

    command: tuple[str, ...]
    encoding: str = "utf-8"
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The program's name, for the user."""
        return self.command[0]


def routes(environment: Mapping[str, str]) -> Iterator[Route]:
    """The programs that are installed and reach the user's clipboard, the best first.

    Inside tmux that is tmux, which tells its terminal. Over ssh it is none: those of the remote machine
    reach a clipboard that the user does not sit at.
    """
    for route in _candidates(environment):
        if shutil.which(route.command[0], path=environment.get("PATH")):
            yield route


def _candidates(environment: Mapping[str, str]) -> Iterator[Route]:
    if environment.get("TMUX"):
        yield Route(("tmux", "load-buffer", "-w", "-"))
    if environment.get("SSH_CONNECTION"):
        return
    if environment.get("WAYLAND_DISPLAY"):
        yield Route(("wl-copy",))
    if environment.get("DISPLAY"):
        yield Route(("xclip", "-selection", "clipboard", "-in"))
        yield Route(("xsel", "--clipboard", "--input"))
    if sys.platform == "darwin":
        yield Route(("pbcopy",), environment={"LC_CTYPE": "UTF-8"})
    if environment.get("WSL_DISTRO_NAME"):
        yield Route(("clip.exe",), "utf-16-le")


async def copy(app: App[Any], text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Put `text` on the clipboard; the way it took, in words that go on from "copied ...".

    Never blocks the event loop. What is pasted within the app has it at once.
    """
    app._clipboard = text  # what App.copy_to_clipboard does before it writes to the terminal
    for route in routes(environment):
        if await _run(route, text, environment):
            return f"with {route.name}"
    app.copy_to_clipboard(text)
    return TERMINAL


async def _run(route: Route, text: str, environment: Mapping[str, str]) -> bool:
    """Whether the program took the text.

    xclip and wl-copy stay behind to serve the clipboard: they must inherit no pipe that someone waits
    for the end of, and no terminal that ends them when it closes.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *route.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={**environment, **route.environment},
            start_new_session=True,
        )
    except OSError:
        return False
    try:
        await asyncio.wait_for(process.communicate(text.encode(route.encoding, "replace")), LIMIT_S)
    except TimeoutError:
        return False
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return process.returncode == 0
