"""Changes to config.toml: what the user wrote stays as it is, and a change is whole or not made at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tomlkit
from filelock import FileLock, Timeout
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Table, Whitespace

from core.config.document import parse, read_text
from core.errors import UserError
from core.options import Value
from core.presets import check_name

_WAIT_S = 5.0  # for another instance that is writing


def save_preset(path: Path, name: str, values: Mapping[str, Value]) -> bool:
    """Make `[presets.NAME]` hold exactly `values`; True where it was there before.

    Raises UserError for a name that cannot be, and as `save_ui` does.
    """
    check_name(name)
    where, wanted = ("presets", name), dict(values)

    def change(text: str) -> str:
        document = parse(text, path.name)
        section = _as_section(document.setdefault("presets", tomlkit.table(is_super_table=True)), "presets")
        present = section.get(name)
        if isinstance(present, dict):
            for key in [key for key in present if key not in wanted]:
                del present[key]
            _update(present, wanted)
            return tomlkit.dumps(document)
        added = f"{text.rstrip()}\n\n{tomlkit.dumps({'presets': {name: wanted}})}".lstrip()
        if _found(added, where) == wanted:
            return added
        section[name] = wanted  # where the section is written in a way that only itself can be added to
        return tomlkit.dumps(document)

    return _write(path, change, where, wanted) is not None


def save_ui(path: Path, key: str, value: str | bool) -> None:
    """Set a key of `[ui]`.

    Raises UserError where the file cannot be written, or is no TOML, which nothing is written over.
    """

    def change(text: str) -> str:
        document = parse(text, path.name)
        _update(_as_section(document.setdefault("ui", tomlkit.table()), "ui"), {key: value})
        return tomlkit.dumps(document)

    _write(path, change, ("ui", key), value)


def _as_section(found: object, name: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise UserError(f"{name} is not a section in it; mend that first, nothing is written")
    return found


def _update(section: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Set what differs. What is new goes before the blank line that ends the section, where a comment can
    stand that belongs to the section below.
    """
    body = section.value.body if isinstance(section, Table) else []
    end = len(body)
    while end and body[end - 1][0] is None:
        end -= 1
    blank = next((at for at in range(end, len(body)) if isinstance(body[at][1], Whitespace)), len(body))
    tail = body[blank:]
    del body[blank:]
    for key, value in values.items():
        if section.get(key) != value or isinstance(section.get(key), bool) != isinstance(value, bool):
            section[key] = value
    body.extend(tail)


def _write(path: Path, change: Callable[[str], str], where: tuple[str, ...], value: object) -> object:
    """Read, change and replace the file while no other instance does; `value` is then at `where`.

    What was there before, None for nothing.
    """
    try:
        target = Path(os.path.realpath(path))  # a link stays one: what it leads to is replaced
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock"), timeout=_WAIT_S):
            text = _present(target)
            changed = change(text)
            if _found(changed, where) != value:
                raise UserError("the change does not fit into it; nothing is written")
            _replace(target, changed)
    except UserError as error:
        raise UserError(f"{path} is left as it is: {error}") from None
    except Timeout:
        raise UserError(f"{path} is left as it is: another program has held it for {_WAIT_S:g} s") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
    return _found(text, where)


def _present(target: Path) -> str:
    """The text of the file that is there; none where there is none. UserError where it is no file."""
    try:
        if not stat.S_ISREG(target.stat().st_mode):
            raise UserError("it is no regular file")
        return read_text(target)
    except FileNotFoundError:
        return ""


def _found(text: str, where: tuple[str, ...]) -> object:
    """What is at a path of a TOML file; None where nothing is, or it is none."""
    try:
        found: object = tomlkit.parse(text).unwrap()
    except (TOMLKitError, ValueError):
        return None
    for key in where:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _replace(target: Path, text: str) -> None:
    """Put `text` into the file, whole or not at all; who may read it stays."""
    unfinished = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with unfinished.open("x", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            unfinished.chmod(stat.S_IMODE(target.stat().st_mode))
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
