"""Keeps what native libraries print off the screen while the app draws on it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_log_path

_LOG_LIMIT = 1_000_000  # bytes; an older log above this is started afresh


def log_path() -> Path:
    """The file that takes what is printed while the app runs."""
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
    log = _open_log()
    with open(os.dup(terminal), "w", encoding="utf-8", errors="replace") as screen:
        sys.__stdout__ = sys.__stderr__ = screen  # type: ignore[misc]
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            sys.__stdout__, sys.__stderr__ = streams  # type: ignore[misc]
            for descriptor in (*saved, log):
                os.close(descriptor)
