"""Screens as plain text, kept in files and compared with what is there now."""

from __future__ import annotations

import difflib
from pathlib import Path

FOLDER = Path(__file__).parent / "goldens"


class Goldens:
    """Compares one screen after the other; `finish` tells of all that differ, or has written them.

    With `update`, which is `pytest --update-goldens`, the files become what the screens are.
    """

    def __init__(self, *, update: bool) -> None:
        self._update = update
        self._told: list[str] = []

    def check(self, name: str, text: str) -> None:
        """Compare `text` with the file of that name."""
        path = FOLDER / f"{name}.txt"
        if self._update:
            path.write_text(text + "\n")
            return
        kept = path.read_text().splitlines() if path.exists() else []
        lines = (text + "\n").splitlines()
        if lines != kept:
            diff = difflib.unified_diff(kept, lines, str(path.name), "the screen", lineterm="", n=1)
            self._told.append("\n".join(diff))

    def finish(self) -> None:
        """Fail where any differed."""
        assert not self._told, "\n\n".join([*self._told, "(pytest --update-goldens takes them as they are)"])
