"""A TOML file as text and as tomlkit's document, which keeps comments and layout."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import tomlkit
from tomlkit.exceptions import ParseError, TOMLKitError

from core.errors import UserError
from core.text.sanitize import one_line

_AT = re.compile(r"\s*\(?at line (\d+),? col(?:umn)? \d+\)?")


def read_text(path: Path) -> str:
    """What the file says, line ends as they are. Raises FileNotFoundError, or UserError naming the path."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path.name} line {line}: this is not UTF-8") from None


def parse(text: str, name: str) -> tomlkit.TOMLDocument:
    """The document. Raises UserError with the file's `name` and the line where it is no TOML."""
    try:
        return tomlkit.parse(text)
    except (TOMLKitError, ValueError, RecursionError) as error:
        line = error.line if isinstance(error, ParseError) else _other_line(text)
        where = name if line is None else f"{name} line {line}"
        reason = one_line(_AT.sub("", str(error)).rstrip("."))
        raise UserError(f"{where}: this is no TOML ({reason})") from None


def _other_line(text: str) -> int | None:
    """The line that Python's own reader complains of, where tomlkit names none."""
    try:
        tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        found = _AT.search(str(error))
        return int(found[1]) if found else None
    return None
