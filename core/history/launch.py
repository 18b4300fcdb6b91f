"""What a model was started with, as far as the command line may be given it again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from core.errors import UserError
from core.history.checked import LARGEST
from core.model.shapes import SHAPES
from core.options import BY_KEY

MODEL = ("checkpoint", "demo", "demo_file", "synthetic")
"""What names a model."""

PATHS = ("checkpoint", "tokenizer", "demo_file")
"""What is a path, always an absolute one."""

PLACEMENT = ("vram", "ram", "offload", "offload_exclusion", "cpu_layers", "sim_vram", "sim_link")
"""What is meant for one device."""

_BREAKS = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")
"""What breaks a line on a terminal; no path of a model has any."""


def usable(found: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `found` that name a model or say how it is loaded, as the flags of that name would.

    All others are left out: of a file that somebody else wrote nothing else reaches the command line. Paths
    may not be relative, or they would name another file in each folder.
    """
    return {key: value for key, value in found.items() if key in _ACCEPTS and _ACCEPTS[key](value)}


def _path(value: Any) -> bool:
    return isinstance(value, str) and not _BREAKS.search(value) and os.path.isabs(value)


def _set(value: Any) -> bool:
    return value is True


def _bytes(value: Any) -> bool:
    return type(value) is int and 0 < value <= LARGEST


def _parameter(key: str) -> Callable[[Any], bool]:
    """Whether a value is one that the parameter's flag gives."""
    param = BY_KEY[key]

    def accepts(value: Any) -> bool:
        names = param.kind == "names"
        try:
            if names:
                return isinstance(value, list) and param.parse(" ".join(value)) == tuple(value)
            if param.kind == "int":
                return type(value) is int and param.check(value) == value
            return isinstance(value, str) and param.parse(value) == value
        except (UserError, TypeError):
            return False

    return accepts


_ACCEPTS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(PATHS, _path),
    **dict.fromkeys(("demo", "raw", "offload"), _set),
    **dict.fromkeys(("vram", "ram", "sim_vram"), _bytes),
    **{
        key: _parameter(key)
        for key in (
            "device", "dtype", "quant", "kv", "kernels", "context", "chat_format", "offload_exclusion",
            "cpu_layers",
        )
    },
    "synthetic": lambda value: value in list(SHAPES),
    "sim_link": lambda value: type(value) in (int, float) and 0.001 <= value <= 10_000,
}  # fmt: skip

NAMES = frozenset(_ACCEPTS)
"""Everything that a launch can hold."""
