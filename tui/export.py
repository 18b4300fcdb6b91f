"""Saved conversations as files: never over one that is there."""

from __future__ import annotations

import itertools
import re
import unicodedata
from pathlib import Path

from core.errors import UserError
from core.history.records import Chat
from core.text.sanitize import without_surrogates

_LONGEST = 60  # characters of a file's name without what is behind the dot
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)  # no files where Windows is


def write(chat: Chat, given: str) -> Path:
    """Write `chat` to the file `given`: JSON where its name ends in .json, else Markdown.

    A folder, or nothing for the working one, gets Markdown under a name made of the title. Returns the path.
    Raises UserError where a file is there already, or cannot be written.
    """
    from core.history.archive import json_line, markdown  # which are needed rarely

    path = Path(given).expanduser()
    if path.is_dir():
        return _into(path, chat.title, markdown(chat))
    try:
        as_json = path.suffix.lower() == ".json"
        _create(path, f"{json_line(chat)}\n" if as_json else markdown(chat))
    except FileExistsError:
        raise UserError(f"{path} is there already; give another name") from None
    return path


def file_name(title: str) -> str:
    """A file's name for a title, without what is behind the dot: letters and digits joined by hyphens."""
    words = re.findall(r"\w+", unicodedata.normalize("NFC", title[: 10 * _LONGEST]).lower())
    name = "-".join(words)[:_LONGEST].strip("-_")
    while len(name.encode()) > 200:  # file systems count bytes
        name = name[:-1]
    return "chat" if not name or _RESERVED.fullmatch(name) else name


def _into(folder: Path, title: str, text: str) -> Path:
    """Write under the first name that is free."""
    name = file_name(title)
    for number in itertools.count(1):
        path = folder / f"{name if number == 1 else f'{name}-{number}'}.md"
        try:
            _create(path, text)
        except FileExistsError:
            continue
        return path
    raise AssertionError("counting ends nowhere")


def _create(path: Path, text: str) -> None:
    """A new file. Raises FileExistsError, and UserError for whatever else is in the way."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(without_surrogates(text))
    except FileExistsError:
        raise
    except (OSError, ValueError) as error:  # a name with a null character is a ValueError
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be written: {reason}") from None
