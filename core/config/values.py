"""What a value in config.toml means for a parameter."""

from __future__ import annotations

import json
from dataclasses import replace

from core.errors import UserError
from core.options import Param, Value
from core.text.sanitize import one_line


def read_value(param: Param, given: object) -> Value:
    """The value of `param` that TOML's `given` stands for.

    Numbers are numbers, sizes texts such as "6GB", names a text or a list of texts; a word that stands for a
    number ("random", "off") is a text too. Raises UserError that begins with the parameter's key.
    """
    named = replace(param, flags=(param.key,))  # what its errors begin with
    numeric = param.kind in ("int", "float") or any(isinstance(choice, int) for choice in param.choices)
    match given:
        case bool():
            pass
        case str() if not numeric or given.strip().lower() in (param.none, "off"):
            return named.parse(given)
        case list() if param.kind == "names" and all(isinstance(name, str) for name in given):
            return named.parse(" ".join(given) or "none")
        case int() if numeric and param.kind != "float":
            return named.parse(str(given))
        case int() | float() if param.kind == "float":
            checked = named.check(given)
            return float(checked) if isinstance(checked, int) else checked
        case int() | float() if param.kind == "size":
            return named.parse(str(given))
    raise UserError(f"{param.key} {shown(given)}: give {_accepted(param)}")


def shown(given: object) -> str:
    """A value of a TOML file, as part of a line for the user."""
    return one_line(json.dumps(given, ensure_ascii=False, default=str), 60)


def _accepted(param: Param) -> str:
    if param.choices:
        quote = "" if isinstance(param.choices[0], int) else '"'
        return "one of " + ", ".join(f"{quote}{choice}{quote}" for choice in param.choices)
    quoted = {"text": "a text in quotes", "size": 'a size in quotes, such as "6GB"'}
    quoted["names"] = 'names in quotes, such as "w1,w2" or ["w1", "w2"]'
    return quoted.get(param.kind) or param.range_text()
