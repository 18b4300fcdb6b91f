"""The title of the terminal's window: what runs here, which chat, and whether a reply is on its way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from core.text.sanitize import one_line

_KNOWN = (
    *("xterm", "screen", "tmux", "rxvt", "alacritty", "foot", "kitty", "wezterm", "ghostty", "contour"),
    *("konsole", "gnome", "vte", "st-", "mintty", "putty", "iterm", "mlterm", "rio", "eterm"),
)
"""How the names of terminals begin that take the sequences; others may print them."""

_PUSH, _POP = "\x1b[22;2t", "\x1b[23;2t"
_NAME = "llama-tui"
_LONGEST = 60  # characters of the chat's title


def knows_titles(environ: Mapping[str, str]) -> bool:
    """Whether the terminal is one that takes titles."""
    term = environ.get("TERM", "").lower()
    return term == "st" or term.startswith(_KNOWN)


def words(chat: str, *, busy: bool) -> str:
    """The title, for a chat that may have none yet."""
    name = one_line(chat, _LONGEST)
    return f"{'● ' if busy else ''}{f'{name} - {_NAME}' if name else _NAME}"


class WindowTitle:
    """Sets the title through `write`, where it has changed and the terminal knows of titles."""

    def __init__(self, write: Callable[[str], None], environ: Mapping[str, str] = os.environ) -> None:
        self._write, self._known = write, knows_titles(environ)
        self._shown = ""

    def show(self, text: str) -> None:
        """Have the title be `text`."""
        if self._known and text != self._shown:
            self._shown = text
            self._write(f"\x1b]2;{one_line(text)}\x1b\\")


@contextmanager
def kept(terminal: TextIO | None, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Inside, the title can be changed; afterwards it is what it was, if the terminal can keep that."""
    if terminal is None or not terminal.isatty() or not knows_titles(environ):
        yield
        return
    terminal.write(_PUSH)
    terminal.flush()
    try:
        yield
    finally:
        terminal.write(_POP)
        terminal.flush()
