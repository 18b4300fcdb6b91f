"""The current value of every parameter, and the preset that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from core.engine.commands import Configure
from core.errors import UserError
from core.options import PARAMS, Param, Sampling, Value, default_values, inert_reason
from core.presets import SHIPPED, Preset, check_name, find_preset, kept_values

LIVE: tuple[Param, ...] = tuple(param for param in PARAMS if param.acts in ("token", "message"))
"""Parameters that act on a running session, in the table's order."""

FIXED: tuple[Param, ...] = tuple(param for param in PARAMS if param.acts == "load" or param.key == "ram")
"""Parameters that act only when a model is loaded; the tiers of RAM are made then."""

PLACEMENT: tuple[Param, ...] = tuple(p for p in PARAMS if p.acts == "placement" and p not in FIXED)
"""Parameters that say where weights lie. Their values are those of the plan in force, not kept here."""

ACTS = {
    "token": "acts on the next token",
    "message": "acts on the next message",
}
"""When a live parameter takes effect, in words."""


class Settings:
    """Values by key. Every change is checked against the table, so what is in here is valid.

    `presets` are those that can be chosen, `preset` the one that was, and `replaced` what it stands in for.
    """

    def __init__(
        self,
        values: Mapping[str, Value],
        presets: Mapping[str, Preset] = SHIPPED,
        preset: str | None = None,
        replaced: Mapping[str, Value] | None = None,
    ) -> None:
        self._values: dict[str, Value] = {**default_values(), **values}
        self.presets: dict[str, Preset] = dict(presets)
        self.preset = preset
        self._replaced: dict[str, Value] = dict(replaced or {})
        if preset is None:
            self._find_preset()

    @property
    def values(self) -> Mapping[str, Value]:
        """A read-only view of all values."""
        return MappingProxyType(self._values)

    @property
    def tau(self) -> float | None:
        """The surprise in bits that Mirostat aims at; None where it is off."""
        tau = self._values["mirostat_tau"]
        return float(tau) if self._values["mirostat"] and isinstance(tau, (int, float)) else None

    def is_changed(self, param: Param) -> bool:
        """True where it is something other than the table's default."""
        return self._values[param.key] != param.default

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
        self._find_preset()

    # --- presets --------------------------------------------------------------------------------

    @property
    def preset_words(self) -> str:
        """The preset in force, "none", or one with a * that was changed since."""
        if self.preset is None:
            return "none"
        kept = all(self._values[key] == value for key, value in self.presets[self.preset].items())
        return self.preset if kept else f"{self.preset}*"

    def next_preset(self) -> str:
        """The name after the present one, around; the first where there is none."""
        names = list(self.presets)
        at = -1 if self.preset is None else names.index(self.preset)
        return names[(at + 1) % len(names)]

    def choose(self, name: str) -> tuple[str, ...]:
        """Take the values of a preset; what has changed and acts, in words. UserError for an unknown one.

        What the preset before set, and nobody changed since, becomes what it was without it.
        """
        preset = find_preset(self.presets, name, "/preset")
        before = dict(self._values)
        for key, value in self._replaced.items():
            if self.preset is not None and self._values[key] == self.presets[self.preset].get(key):
                self._values[key] = value
        self._replaced = {key: self._values[key] for key in preset}
        self._values |= preset
        self.preset = name
        return tuple(
            f"{param.label} {param.format(before[param.key])} → {self.shown(param)}"
            for param in LIVE
            if before[param.key] != self._values[param.key] and self.inert_reason(param) is None
        )

    def keep_as(self, name: str) -> Preset:
        """Make the present values a preset, the one in force. Raises UserError for a name that cannot be."""
        preset = kept_values(self._values)
        self.presets[check_name(name)] = preset
        self.preset, self._replaced = name, {}
        return preset

    def _find_preset(self) -> None:
        """The first preset that says what holds anyway is the one in force."""
        self._replaced = {}
        whole = SHIPPED["balanced"].keys()  # one that sets less says too little of what holds
        matching = (
            name
            for name, preset in self.presets.items()
            if preset.keys() >= whole and preset.items() <= self._values.items()
        )
        self.preset = next(matching, None)

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
