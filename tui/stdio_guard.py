"""Keeps off the screen what libraries print while the app draws on it: that and the log go to a file."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_log_path

_LOG_LIMIT = 1_000_000  # bytes; an older log above this is started afresh
_OURS = ("core", "tui")
"""Packages of this program. They say more than others do."""

log = logging.getLogger(__name__)


def log_path() -> Path:
    """The file that takes what is printed while the app runs, and what is logged."""
    return user_log_path("llama-tui", appauthor=False) / "llama-tui.log"


def _open_log() -> int:
    """A descriptor of the log, or of the null device where no log can be written."""
    path = log_path()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _LOG_LIMIT:
            flags |= os.O_TRUNC
        return os.open(path, flags, 0o600)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


@contextmanager
def guarded() -> Iterator[None]:
    """Inside, descriptors 1 and 2 lead to the log, and the terminal is `sys.__stdout__`.

    Redirecting Python's streams is not enough, since C code writes to the descriptors. Textual draws
    on `sys.__stderr__` and asks `sys.__stdout__` for the size, so both get a copy of the terminal's
    descriptor, whichever of the two streams it came from. Does nothing without a terminal.
    """
    terminal = next((fd for fd in (2, 1) if os.isatty(fd)), None)
    if terminal is None:
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    streams = sys.__stdout__, sys.__stderr__
    saved = os.dup(1), os.dup(2)
    file = _open_log()
    with open(os.dup(terminal), "w", encoding="utf-8", errors="replace") as screen, logged(file):
        sys.__stdout__ = sys.__stderr__ = screen  # type: ignore[misc]
        os.dup2(file, 1)
        os.dup2(file, 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            sys.__stdout__, sys.__stderr__ = streams  # type: ignore[misc]
            for descriptor in (*saved, file):
                os.close(descriptor)


@contextmanager
def logged(descriptor: int) -> Iterator[None]:
    """Inside, what Python logs goes to `descriptor` with time and level, and what ends a thread too.

    Of this program everything from INFO on, of libraries from WARNING on.
    """
    root, ours = logging.getLogger(), [logging.getLogger(name) for name in _OURS]
    levels, hook = [one.level for one in (root, *ours)], threading.excepthook
    with open(os.dup(descriptor), "w", encoding="utf-8", errors="replace") as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
        root.setLevel(logging.WARNING)
        for one in ours:
            one.setLevel(logging.INFO)
        threading.excepthook = _thread_ended
        try:
            yield
        finally:
            threading.excepthook = hook
            root.removeHandler(handler)
            for one, level in zip((root, *ours), levels, strict=True):
                one.setLevel(level)


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    """An exception that nobody caught has ended a thread."""
    if ended.exc_type is SystemExit or ended.exc_value is None:
        return
    name = ended.thread.name if ended.thread is not None else "unknown"
    log.error("the thread %s has ended", name, exc_info=ended.exc_value)
