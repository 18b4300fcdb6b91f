"""The current value of every parameter, and which of them the user has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from core.engine.events import Configure
from core.errors import UserError
from core.options import PARAMS, Param, Sampling, Value, default_values, inert_reason

LIVE: tuple[Param, ...] = tuple(param for param in PARAMS if param.acts in ("token", "message"))
"""Parameters that act on a running session, in the table's order."""

FIXED: tuple[Param, ...] = tuple(param for param in PARAMS if param.acts == "load" or param.key == "ram")
"""Parameters that act only when a model is loaded; the tiers of RAM are made then."""

PLACEMENT: tuple[Param, ...] = tuple(p for p in PARAMS if p.acts == "placement" and p not in FIXED)
"""Parameters that say where weights lie. Their values are those of the plan in force, not kept here."""

ACTS = {
    "token": "acts on the next token",
    "message": "acts on the next message",
    "placement": "acts when it is applied (F8)",
}
"""When a live parameter takes effect, in words."""


class Settings:
    """Values by key. Every change is checked against the table, so what is in here is valid."""

    def __init__(self, values: Mapping[str, Value], changed: Iterable[str] = ()) -> None:
        self._values: dict[str, Value] = {**default_values(), **values}
        self._changed = set(changed)

    @property
    def values(self) -> Mapping[str, Value]:
        """A read-only view of all values."""
        return MappingProxyType(self._values)

    def is_changed(self, param: Param) -> bool:
        """True where the user chose something other than the default."""
        return param.key in self._changed

    def inert_reason(self, param: Param) -> str | None:
        """Why `param` has no effect now, or None where it acts."""
        return inert_reason(param, self._values)

    def shown(self, param: Param) -> str:
        """The value as the interface shows it."""
        return param.format(self._values[param.key])

    def set(self, param: Param, value: Value) -> None:
        """Set a value. Raises UserError where it is out of range or needs a restart."""
        _refuse_fixed(param)
        self._values[param.key] = param.check(value)
        if value == param.default:
            self._changed.discard(param.key)
        else:
            self._changed.add(param.key)

    def enter(self, param: Param, text: str) -> None:
        """Set the value that `text` spells. Raises UserError naming what is accepted."""
        _refuse_fixed(param)
        self.set(param, param.parse(text))

    def step(self, param: Param, steps: int) -> None:
        """Move by `steps` of the parameter's step, or along its choices; stays in range."""
        value = self._values[param.key]
        if param.kind == "choice":
            last = len(param.choices) - 1
            index = param.choices.index(value) + steps
            self.set(param, param.choices[max(0, min(last, index))])
            return
        if param.step is None:
            return
        start = value if isinstance(value, (int, float)) else 0
        moved = start + steps * param.step
        if param.min is not None:
            moved = max(param.min, moved)
        if param.max is not None:
            moved = min(param.max, moved)
        # Rounded, or ten steps of 0.05 end beside the number that the user reads.
        self.set(param, int(moved) if param.kind == "int" else round(moved, 6))

    def reset(self, param: Param) -> None:
        """Back to the table's default."""
        self.set(param, param.default)

    def reset_all(self) -> None:
        """All live parameters back to their defaults."""
        for param in LIVE:
            self.reset(param)

    def configure(self) -> Configure:
        """The command that tells the engine."""
        system = self._values["system"]
        return Configure(Sampling.from_values(self._values), None if system is None else str(system))


def _refuse_fixed(param: Param) -> None:
    if param not in LIVE:
        raise UserError(f"{param.label} is chosen when a model is loaded: restart with {param.flags[0]}")


def find_param(name: str) -> Param | None:
    """The parameter called `name`: its key, or any spelling of its flags."""
    key = name.lower().removeprefix("--").replace("-", "_")
    for param in PARAMS:
        spellings = (flag.removeprefix("--").replace("-", "_") for flag in param.flags)
        if key == param.key or key in spellings:
            return param
    return None
