"""Paths of models as they are typed: what may follow, and what is wrong with them. No Textual."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.checkpoint import find
from core.errors import UserError
from core.sizes import format_size
from core.text.sanitize import sanitize

_MOST = 500
"""Entries of a folder that are offered at most."""
_MARKS = ("params.json", "config.json")
"""What a folder of a model holds."""


@dataclass(frozen=True, slots=True)
class PathCandidate:
    """What the path could become: `text` in the field, `name` in the list, `detail` beside it.

    `opens` is true where it is a model, and not a folder on the way to one.
    """

    text: str
    name: str
    detail: str
    opens: bool


def given_path(typed: str) -> str:
    """The path that is meant: without the quotes that a terminal puts around a file dropped on it."""
    text = typed.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    return text


def candidates(typed: str) -> list[PathCandidate]:
    """Folders and GGUF files whose path begins with what is typed, by name; none where nothing can be read.

    Hidden ones only where a dot is typed.
    """
    head, begin = os.path.split(given_path(typed))
    if begin == "~" and not head:
        return [PathCandidate(f"~{os.sep}", "~", "your home", opens=False)]
    folder = os.path.expanduser(head) if head else os.curdir
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if _offered(entry, begin)]
    except (OSError, ValueError):
        return []
    found.sort(key=lambda entry: entry.name.lower())
    return list(_described(found[:_MOST], head))


def _offered(entry: os.DirEntry[str], begin: str) -> bool:
    name = entry.name
    if not name.startswith(begin) or (name.startswith(".") and not begin):
        return False
    if sanitize(name) != name or "\n" in name or "\t" in name:  # no path of a model has any of that
        return False
    try:
        return entry.is_dir() or name.lower().endswith(".gguf")
    except OSError:
        return False


def _described(entries: Iterable[os.DirEntry[str]], head: str) -> Iterator[PathCandidate]:
    for entry in entries:
        text = os.path.join(head, entry.name)
        try:
            if not entry.is_dir():
                yield PathCandidate(text, entry.name, f"GGUF · {format_size(entry.stat().st_size)}", True)
                continue
        except OSError:  # it went away, or may not be looked at
            continue
        model = any(os.path.isfile(os.path.join(entry.path, mark)) for mark in _MARKS)
        yield PathCandidate(text + os.sep, entry.name + os.sep, "model" if model else "", model)


def common(typed: str, found: Iterable[PathCandidate]) -> str:
    """What all of `found` begin with; what is typed where there is none."""
    texts = [candidate.text for candidate in found]
    return os.path.commonprefix(texts) if texts else typed  # noqa: RUF071 letter by letter, as shells do


def verdict(typed: str) -> tuple[str, bool]:
    """What is at the path that is typed, in a line, and whether it can be opened."""
    path = given_path(typed)
    try:
        layout = find(path)
    except UserError as error:
        return str(error), False
    except (OSError, ValueError) as error:  # such as a name that is too long
        return f"{path}: {error}; give another path", False
    return f"{layout.kind.value} model {Path(os.path.abspath(os.path.expanduser(path))).name}", True
