"""config.toml as it is understood. What is not understood is a warning with its line, never an error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.config.document import parse, read_text
from core.config.lines import line_of
from core.config.values import read_value, shown
from core.errors import UserError
from core.options import BY_KEY, PARAMS, Param, Value
from core.presets import PRESET_PARAMS, SHIPPED, Preset, check_name
from core.text.sanitize import one_line

_MOST_WARNINGS = 20  # what is wrong beyond these is only counted
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Config:
    """What the user's file says. `presets` are the user's own, `keys` the keys by action, not yet checked.

    `preset` and `theme` are names that nobody has looked up yet; `history` says whether conversations are
    kept, `ascii` whether ASCII must do for drawing (None: as the locale has it), `bell` whether the terminal
    may ring, `mouse` whether the mouse is used. `text` is the file's, empty where there is none that can be
    understood.
    """

    path: Path
    text: str = ""
    defaults: Mapping[str, Value] = field(default_factory=dict)
    presets: Mapping[str, Preset] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    preset: str | None = None
    theme: str | None = None
    history: bool = True
    ascii: bool | None = None
    bell: bool = True
    mouse: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def known_presets(self) -> dict[str, Preset]:
        """The shipped presets and the user's, which win."""
        return {**SHIPPED, **self.presets}

    def place(self, *path: str) -> str:
        """Where something stands, in words: "config.toml line 7"."""
        return _place(self.path, self.text, path)


def read_config(path: Path) -> Config:
    """What the file at `path` says; nothing where there is none."""
    try:
        text = read_text(path)
        document = parse(text, path.name).unwrap()
    except FileNotFoundError:
        return Config(path)
    except UserError as error:
        return Config(path, warnings=(f"{error}; nothing of it counts",))
    reader = _Reader(document)
    read = reader.read()
    warnings = [
        f"{_place(path, text, where)}: {one_line(said, 400)}; ignored"
        for where, said in reader.complaints[:_MOST_WARNINGS]
    ]
    more = len(reader.complaints) - _MOST_WARNINGS
    if more > 0:
        warnings.append(f"{path.name}: {more} more entries are ignored")
    return Config(path, text, **read, warnings=tuple(warnings))


def _place(path: Path, text: str, where: tuple[str, ...]) -> str:
    line = line_of(text, where)
    return path.name if line is None else f"{path.name} line {line}"


class _Reader:
    """Goes through a file's sections; `complaints` are what it could not use, each with its path."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self.complaints: list[tuple[tuple[str, ...], str]] = []

    def read(self) -> dict[str, Any]:
        """The fields of a Config."""
        sections: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "defaults": lambda given: {"defaults": self._values(("defaults",), given, PARAMS)},
            "presets": lambda given: {"presets": self._presets(given)},
            "keys": lambda given: {"keys": self._keys(given)},
            "ui": self._ui,
        }
        read: dict[str, Any] = {}
        for name, given in self._document.items():
            if name not in sections:
                self._complain((name,), _unknown_section(name, sections))
            elif not isinstance(given, dict):
                self._complain((name,), f"{name} is a section; write [{name}] and its entries below")
            else:
                read |= sections[name](given)
        return read

    def _complain(self, path: tuple[str, ...], said: str) -> None:
        self.complaints.append((path, said))

    def _values(
        self, section: tuple[str, ...], given: Mapping[str, Any], known: Iterable[Param]
    ) -> dict[str, Value]:
        """Values by key, of those parameters that may stand here."""
        keys = {param.key for param in known}
        values: dict[str, Value] = {}
        for key, value in given.items():
            try:
                if key in keys:
                    values[key] = read_value(BY_KEY[key], value)
                else:
                    self._complain((*section, key), _unknown_key(key, keys))
            except UserError as error:
                self._complain((*section, key), str(error))
        return values

    def _presets(self, given: Mapping[str, Any]) -> dict[str, Preset]:
        presets: dict[str, Preset] = {}
        for name, values in given.items():
            path = ("presets", name)
            if not isinstance(values, dict):
                self._complain(path, f"{_word(name)} is no preset; write [presets.NAME] and its values below")
                continue
            try:
                presets[check_name(name)] = self._values(path, values, PRESET_PARAMS)
            except UserError as error:
                self._complain(path, str(error))
        return presets

    def _keys(self, given: Mapping[str, Any]) -> dict[str, str]:
        keys: dict[str, str] = {}
        for action, key in given.items():
            if isinstance(key, str):
                keys[action] = key
            else:
                said = f'{_word(action)} {shown(key)}: give a key in quotes, such as "f5" or "ctrl+r,f5"'
                self._complain(("keys", action), said)
        return keys

    def _ui(self, given: Mapping[str, Any]) -> dict[str, Any]:
        kinds: dict[str, tuple[type, str]] = {
            "preset": (str, "the name of a preset in quotes"),
            "theme": (str, "the name of a theme in quotes"),
            "history": (bool, "true or false"),
            "ascii": (bool, "true or false"),
            "bell": (bool, "true or false"),
            "mouse": (bool, "true or false"),
        }
        read: dict[str, Any] = {}
        for key, value in given.items():
            if key not in kinds:
                self._complain(("ui", key), _unknown_key(key, kinds))
            elif not isinstance(value, kinds[key][0]):
                self._complain(("ui", key), f"{key} {shown(value)}: give {kinds[key][1]}")
            else:
                read[key] = value
        return read


def _word(name: str) -> str:
    """A key as a user would recognise it in a line."""
    return name if _BARE.fullmatch(name) else repr(name)


def _unknown_section(name: str, known: Iterable[str]) -> str:
    if name in BY_KEY:
        return f"{name} belongs below [defaults]"
    return f"[{_word(name)}] is no section of it; {_advice(name, known)}"


def _unknown_key(key: str, known: Iterable[str]) -> str:
    if key in BY_KEY:
        return f"{key} is chosen when a model is loaded, so it cannot be in a preset; put it below [defaults]"
    return f"{_word(key)} is unknown; {_advice(key, known)}"


def _advice(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
