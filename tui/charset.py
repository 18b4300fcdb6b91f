"""Which characters the user's locale can carry. No Textual."""

from __future__ import annotations

import sys
from collections.abc import Mapping

_PLAIN = ("C", "POSIX")
_COERCED = ("C.UTF-8", "C.utf8", "UTF-8")
"""What Python puts in the place of C for itself and its children."""


def only_ascii(environ: Mapping[str, str], *, coerced: bool | None = None) -> bool:
    """Whether the locale that the environment names can carry ASCII only, as LANG=C does.

    Where none is named, nobody said so. `coerced`: Python has put a UTF-8 locale of its own in the place of
    C, as it does at start.
    """
    coerced = bool(sys.flags.utf8_mode) if coerced is None else coerced
    ctype = environ.get("LC_CTYPE", "")
    if coerced and ctype in _COERCED:
        ctype = ""
    name = environ.get("LC_ALL") or ctype or environ.get("LANG") or ""
    codeset = name.partition("@")[0].partition(".")[2]
    return name in _PLAIN or (bool(codeset) and codeset.lower().replace("-", "") != "utf8")
