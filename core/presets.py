"""Presets of sampling settings: those that are shipped, and what may be in one. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from core.errors import UserError
from core.options import BY_KEY, PARAMS, Param, Value

Preset = Mapping[str, Value]
"""Values by the key of their parameter."""

PRESET_PARAMS: tuple[Param, ...] = tuple(param for param in PARAMS if param.acts in ("token", "message"))
"""What a preset can set: the parameters that act on a running conversation."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)

_ALWAYS = (
    "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "mirostat", "mirostat_tau", "mirostat_eta",
)  # fmt: skip
_BALANCED: dict[str, Value] = {key: BY_KEY[key].default for key in _ALWAYS}

# Each sets all eight, so that none leaves anything of another behind.
SHIPPED: Mapping[str, Preset] = MappingProxyType(
    {
        "precise": _BALANCED | {"temperature": 0.2, "top_k": 40, "min_p": 0.05},
        "balanced": _BALANCED,
        "creative": _BALANCED | {"temperature": 1.0, "top_p": 1.0, "min_p": 0.05, "repeat_penalty": 1.05},
        "mirostat": _BALANCED | {"mirostat": 2},
    }
)
"""The presets that everybody has, by name, in the order in which a key walks through them."""

PURPOSES: Mapping[str, str] = MappingProxyType(
    {
        "precise": "Facts, code and short answers: nearly the likeliest token each time.",
        "balanced": "Everyday talk: the defaults.",
        "creative": "Stories and ideas: unlikely words have a chance, nonsense is cut off.",
        "mirostat": "Long texts: the surprise is kept at tau, so that they neither loop nor drift.",
    }
)
"""What each shipped preset is for."""


def check_name(name: str) -> str:
    """`name` itself if a preset can be called that, else UserError."""
    if not _NAME.fullmatch(name):
        raise UserError(f"preset {name!r}: give a name of letters, digits, - and _, at most 32")
    return name


def find_preset(known: Mapping[str, Preset], name: str, asked: str) -> Preset:
    """The preset `name`. Raises UserError that begins with `asked` and lists those that there are."""
    if name not in known:
        raise UserError(f"{asked} {name!r}: there is no such preset; choose {', '.join(known)}")
    return known[name]


def kept_values(values: Mapping[str, Value]) -> dict[str, Value]:
    """What a preset made of the present values holds: all that the shipped ones set, and what else differs.

    The others are left out at their defaults: a seed of "random" is nothing that anybody saves.
    """
    return {
        param.key: values[param.key]
        for param in PRESET_PARAMS
        if param.key in _ALWAYS or values[param.key] != param.default
    }
