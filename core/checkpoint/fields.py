"""Values out of a JSON file or a GGUF header, checked for what they should be."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from core.errors import UserError

_LARGEST_JSON = 16 * 2**20  # bytes; the index of a model of 405 billion weights has 0.1 million


@dataclass(frozen=True, slots=True)
class Fields:
    """Named values of the file `path`. A value of None counts as missing; every getter raises UserError."""

    path: Path
    values: Mapping[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        """The value as it is."""
        value = self.values.get(key)
        return default if value is None else value

    def whole(self, key: str, default: int | None = None, least: int = 1) -> int:
        """A whole number from `least` up; one must be there if there is no default."""
        value = self.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
            raise self.wrong(key, f"a whole number of at least {least}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number."""
        value = self.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
            raise self.wrong(key, "a positive number")
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self.get(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "a text")
        return value

    def flag(self, key: str) -> bool | None:
        """True or False; None where it does not say."""
        value = self.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of strings."""
        value = self.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "a list of texts")
        return cast(list[str], value)

    def wrong(self, key: str, expected: str) -> UserError:
        """The error for a value that is not `expected`."""
        value = self.get(key, "missing")
        shown = f"a list of {len(value)}" if isinstance(value, list) else f"{value!r:.60}"
        return UserError(f"{self.path}: {key} is {shown}, not {expected}; fetch the file again")


def read_json(path: Path) -> Fields:
    """The object in a JSON file. Raises UserError for anything else."""
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"more than {_LARGEST_JSON} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error!s:.80}); fetch it again") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a JSON object; fetch it again")
    return Fields(path, values)
