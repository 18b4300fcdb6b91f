"""Values out of a document that anybody may have written, each checked for what it should be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import UserError
from core.text.sanitize import one_line

LARGEST = 2**63 - 1
"""The largest whole number of the database."""

_LARGEST_TOKEN = 2**31 - 1
_LARGEST_SINGLE = 3.4e38  # surprises are kept in 32 bits
_LATEST = 253_402_300_799.0  # the end of the year 9999, in seconds since 1970


@dataclass(frozen=True, slots=True)
class Checked:
    """The object at `where` in a document. Every getter raises UserError, which says where and what it is."""

    values: Mapping[str, Any]
    where: str = ""

    def part(self, key: str) -> Checked:
        """An object."""
        value = self._there(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return Checked(value, f"{self._path(key)}.")

    def parts(self, key: str) -> Iterator[Checked]:
        """A list of objects."""
        value = self._there(key)
        if not isinstance(value, list):
            raise self.wrong(key, "a list")
        for i, item in enumerate(value):
            place = f"{key}[{i}]"
            yield Checked({place: item}, self.where).part(place)

    def text(self, key: str) -> str:
        """A text that UTF-8 can write."""
        value = self._there(key)
        if not isinstance(value, str):
            raise self.wrong(key, "a text")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.wrong(key, "a text without halves of surrogate pairs") from None
        return value

    def optional_text(self, key: str) -> str | None:
        """The same, or None."""
        return None if self._there(key) is None else self.text(key)

    def whole(self, key: str, largest: int = LARGEST) -> int:
        """A whole number from 0 to `largest`."""
        value = self._there(key)
        if type(value) is not int or not 0 <= value <= largest:
            raise self.wrong(key, f"a whole number from 0 to {largest}")
        return value

    def optional_whole(self, key: str) -> int | None:
        """The same, or None."""
        return None if self._there(key) is None else self.whole(key)

    def number(self, key: str) -> float:
        """A finite number."""
        value = self._there(key)
        if not _is_number(value, math.inf):
            raise self.wrong(key, "a number")
        return value

    def optional_number(self, key: str) -> float | None:
        """The same, or None."""
        return None if self._there(key) is None else self.number(key)

    def time(self, key: str) -> float:
        """Seconds since 1970, before the year 10000."""
        value = self.number(key)
        if not 0 <= value <= _LATEST:
            raise self.wrong(key, "a time in seconds since 1970")
        return float(value)

    def tokens(self, key: str) -> tuple[int, ...]:
        """A list of token ids, of 31 bits."""
        value = self._list(key)
        for token in value:
            if type(token) is not int or not 0 <= token <= _LARGEST_TOKEN:
                raise self._wrong_item(key, token, f"a token id from 0 to {_LARGEST_TOKEN}")
        return tuple(value)

    def surprises(self, key: str) -> tuple[float, ...]:
        """A list of bits; null stands for infinitely many, which JSON cannot write."""
        value = self._list(key)
        for bits in value:
            if bits is not None and not _is_number(bits, _LARGEST_SINGLE):
                raise self._wrong_item(key, bits, "a number of bits")
        return tuple(math.inf if bits is None else float(bits) for bits in value)

    def wrong(self, key: str, expected: str) -> UserError:
        """The error for a value that is not `expected`."""
        return UserError(f"{self._path(key)} is {_shown(self.values[key])}, not {expected}")

    def _there(self, key: str) -> Any:
        if key not in self.values:
            raise UserError(f"{self._path(key)} is missing")
        return self.values[key]

    def _list(self, key: str) -> list[Any]:
        value = self._there(key)
        if not isinstance(value, list):
            raise self.wrong(key, "a list")
        return value

    def _wrong_item(self, key: str, item: object, expected: str) -> UserError:
        return UserError(f"{self._path(key)} holds {_shown(item)}, which is not {expected}")

    def _path(self, key: str) -> str:
        return f"{self.where}{one_line(key, 40)}"


def _is_number(value: object, largest: float) -> bool:
    if type(value) is int:
        return abs(value) <= min(largest, LARGEST)
    return type(value) is float and math.isfinite(value) and abs(value) <= largest


def _shown(value: object) -> str:
    match value:
        case list() | dict():
            return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case int() if abs(value) > LARGEST:
            return "a huge number"
        case str():
            return repr(one_line(value, 40))
    return str(value)
