"""Other programs on the same terminal: a pager, an editor."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from textual.app import App, SuspendNotSupported


class TerminalUnavailable(Exception):
    """The program cannot be run; the text says why and what would help."""


def show_in_pager(app: App[Any], text: str) -> None:
    """Show `text` in $PAGER, or less or more. Raises TerminalUnavailable."""
    with _file(text, "llama-tui-transcript-") as path:
        _run(app, _program("PAGER", "less", "more"), path)


def edit_in_editor(app: App[Any], text: str) -> str:
    """`text` as changed in $VISUAL or $EDITOR. Raises TerminalUnavailable."""
    with _file(text, "llama-tui-prompt-") as path:
        _run(app, _program("VISUAL", "EDITOR", "nano", "vim", "vi"), path)
        return path.read_text(encoding="utf-8", errors="replace").rstrip("\n")


@contextmanager
def _file(text: str, prefix: str) -> Iterator[Path]:
    """A temporary text file, gone at the end whatever happens."""
    descriptor, name = tempfile.mkstemp(prefix=prefix, suffix=".md")
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _program(*candidates: str) -> list[str]:
    """The first variable (in capitals) that is set, or the first program that is installed."""
    variables = [name for name in candidates if name.isupper()]
    for name in variables:
        words = shlex.split(os.environ.get(name, ""))
        if words:
            return words
    for name in candidates:
        if not name.isupper() and shutil.which(name):
            return [name]
    raise TerminalUnavailable(f"no program for this: set {variables[-1]}")


def _run(app: App[Any], command: list[str], path: Path) -> None:
    # sys.__stdout__ is the terminal; descriptors 1 and 2 lead to the log while the app runs.
    terminal = sys.__stdout__
    try:
        with app.suspend():
            subprocess.run([*command, str(path)], stdout=terminal, stderr=terminal, check=False)
    except SuspendNotSupported:
        raise TerminalUnavailable("this terminal cannot be handed to another program") from None
    except OSError as error:
        raise TerminalUnavailable(f"{command[0]}: {error.strerror}") from None
