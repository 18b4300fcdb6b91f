"""Sizes in bytes as people write them: GB is 10^9 bytes, GiB is 2^30. No torch."""

from __future__ import annotations

import re

from core.errors import UserError

_UNITS = {
    "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)", re.ASCII)
_MOST = 2**62


def parse_size(text: str, flag: str = "SIZE") -> int:
    """The bytes that "6GB", "1.5 GiB" or "512mb" spells. Raises UserError that begins with `flag`."""
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or match[2] not in _UNITS | {"": 0}:
        raise UserError(f"{flag} {text!r}: give a size with its unit, such as 6GB or 512MiB")
    if not match[2]:
        raise UserError(f"{flag} {text}: a size needs its unit; give {match[1]}GB or {match[1]}GiB")
    count = float(match[1]) * _UNITS[match[2]]
    if not 1 <= count <= _MOST:
        raise UserError(f"{flag} {text}: give a size from 1B to {_MOST // 2**40}TiB")
    return round(count)


def format_size(nbytes: int) -> str:
    """`nbytes` in the largest fitting unit of powers of ten, three digits: "13.5 GB", "512 MB"."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if nbytes >= 0.9995 * factor:
            return f"{float(f'{nbytes / factor:.3g}'):g} {unit}"
    return f"{nbytes} B"
