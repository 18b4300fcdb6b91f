"""What every setting begins with: a typed flag, else the environment, a preset, config.toml, the table."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from core.config.read import Config
from core.errors import UserError
from core.options import BY_KEY, PARAMS, Value, default_values
from core.presets import SHIPPED, Preset, find_preset

_PREFIX = "LLAMA_TUI_"
_PRESET = f"{_PREFIX}PRESET"
_OTHERS = {_PRESET, *(f"{_PREFIX}{name}" for name in ("CACHE", "CONFIG", "DATA", "NATIVE"))}
"""Variables that stand for no parameter."""


@dataclass(frozen=True, slots=True)
class Start:
    """The settings at start. `origins` says by key who chose a value that nobody typed.

    `replaced` holds what the preset stands in for: what would hold without it.
    """

    values: dict[str, Value]
    origins: Mapping[str, str] = field(default_factory=dict)
    presets: Mapping[str, Preset] = field(default_factory=lambda: SHIPPED)
    preset: str | None = None
    replaced: Mapping[str, Value] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def wishes(self) -> tuple[str, ...]:
        """What nobody typed and needs a device to place weights on, by key."""
        placing = (key for key in self.origins if BY_KEY[key].acts == "placement" and key != "ram")
        return tuple(key for key in placing if self.values[key] not in (BY_KEY[key].default, ()))

    def explain(self, line: str) -> str:
        """`line`, which says what is wrong with a flag, and who set that where it was not typed."""
        for key, origin in self.origins.items():
            if line.startswith(f"{BY_KEY[key].flags[0]} "):
                return f"{line} (set by {origin})"
        return line

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Inside, a UserError about a flag says who set it."""
        try:
            yield
        except UserError as error:
            raise UserError(self.explain(str(error))) from None


def resolve(
    typed: Mapping[str, Value], preset: str | None, environ: Mapping[str, str], config: Config
) -> Start:
    """Every setting, by precedence; `preset` is what --preset names.

    Raises UserError naming the variable for one that means nothing, and for a preset that is not there.
    """
    notes = [*config.warnings, *_unknown(environ)]
    given = dict(_environment(environ))
    name, chosen = _preset(preset, environ, config, notes)
    origins = {key: config.place("defaults", key) for key in config.defaults}
    origins |= dict.fromkeys(chosen, f"the preset {name}")
    origins |= {key: _variable(key) for key in given}
    below = default_values() | dict(config.defaults)
    above = given | dict(typed)
    return Start(
        values=below | chosen | above,
        origins={key: origin for key, origin in origins.items() if key not in typed},
        presets=config.known_presets,
        preset=name,
        replaced={key: below[key] for key in chosen if key not in above},
        notes=tuple(notes),
    )


def without_device(start: Start) -> Start:
    """The same for a run on the CPU: `start.wishes` do not count there, and that is said."""
    why = "needs a device, and this is the CPU; ignored"
    said = [f"{start.origins[key]}: {key} {why}" for key in start.wishes]
    return replace(
        start,
        values=start.values | {key: BY_KEY[key].default for key in start.wishes},
        origins={key: origin for key, origin in start.origins.items() if key not in start.wishes},
        notes=(*start.notes, *said),
    )


def _preset(
    asked: str | None, environ: Mapping[str, str], config: Config, notes: list[str]
) -> tuple[str | None, dict[str, Value]]:
    """The preset to begin with and its values; a wrong one in the file is only noted."""
    known = config.known_presets
    if asked is not None:
        return asked, dict(find_preset(known, asked, "--preset"))
    if environ.get(_PRESET):
        return environ[_PRESET], dict(find_preset(known, environ[_PRESET], _PRESET))
    if config.preset is None:
        return None, {}
    try:
        return config.preset, dict(find_preset(known, config.preset, "preset"))
    except UserError as error:
        notes.append(f"{config.place('ui', 'preset')}: {error}; ignored")
        return None, {}


def _variable(key: str) -> str:
    return _PREFIX + key.upper()


def _environment(environ: Mapping[str, str]) -> Iterator[tuple[str, Value]]:
    """What the environment sets; an empty variable sets nothing."""
    for param in PARAMS:
        name = _variable(param.key)
        if environ.get(name):
            yield param.key, replace(param, flags=(name,)).parse(environ[name])


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    """A note on every variable of ours that means nothing."""
    known = _OTHERS | {_variable(param.key) for param in PARAMS}
    for name in sorted(environ):
        if re.match(_PREFIX, name) and name not in known:
            close = difflib.get_close_matches(name, known, 1)
            yield f"{name} is unknown{f'; did you mean {close[0]}?' if close else ''}; ignored"
