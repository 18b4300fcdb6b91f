"""What a slash command that is being typed could become, from the tables of actions and parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from core.options import BY_KEY, Param
from core.presets import PURPOSES
from core.weights.name_grammar import ENDS, MATRICES
from tui.commands import ACTIONS, Action
from tui.setting_words import MIROSTAT
from tui.settings import FIXED, LIVE, PLACEMENT, Settings, find_param

_LAST = re.compile(r"[^\s,]*$")
_WEIGHTS = (*MATRICES, "attention", "feed_forward", *ENDS)


@dataclass(frozen=True, slots=True)
class Candidate:
    """`text` is what the prompt holds once it is taken, `shown` the command or value, `help` what it does."""

    text: str
    shown: str
    help: str = ""


@dataclass(frozen=True, slots=True)
class Completions:
    """`whole`: what is typed can be done as it is. `hint` says what may be typed where nothing is listed."""

    candidates: tuple[Candidate, ...] = ()
    whole: bool = True
    hint: str = ""


NOTHING = Completions()


@dataclass(frozen=True, slots=True)
class Sources:
    """Where names come from that the user makes."""

    settings: Settings
    themes: Callable[[], Iterable[str]]


def complete(text: str, sources: Sources) -> Completions:
    """What may follow on `text`. Nothing where it is no command, or a message with a slash."""
    if not text.startswith("/") or text.startswith("//") or "\n" in text:
        return NOTHING
    name, blank, argument = text[1:].partition(" ")
    if not blank:
        return _commands(name.lower())
    action = next((action for action in ACTIONS if action.slash and action.command == name.lower()), None)
    if action is not None:
        return _argument(action, text, argument, sources)
    param = find_param(name)
    return NOTHING if param is None else _value(param, text, argument, sources.settings)


# --- commands -----------------------------------------------------------------------------------


def _commands(begin: str) -> Completions:
    """Those that begin so, then those that have it within. Of a parameter's names only one is shown."""
    found: list[tuple[bool, Candidate]] = []
    whole = False
    for names, argument, help in _table():
        whole |= begin in names
        name = next((name for name in names if name.startswith(begin)), None)
        first = name is not None
        name = name or next((name for name in names if begin in name), None)
        if name is not None:
            blank = " " if argument else ""
            found.append((first, Candidate(f"/{name}{blank}", f"/{name} {argument}".rstrip(), help)))
    found.sort(key=lambda one: not one[0])
    return Completions(tuple(candidate for _, candidate in found), whole)


def _table() -> Iterator[tuple[tuple[str, ...], str, str]]:
    """The names, the argument and the help of every command, parameters behind actions."""
    for action in ACTIONS:
        if action.slash:
            yield (action.command,), action.slash.partition(" ")[2], action.help
    commands = {action.command for action in ACTIONS}
    for param in (*LIVE, *PLACEMENT, *FIXED):
        if param.key not in commands:
            spelt = (flag[2:].replace("-", "_") for flag in param.flags)
            yield tuple(dict.fromkeys((param.key, *spelt))), "VALUE", param.help


# --- arguments ----------------------------------------------------------------------------------


def _argument(action: Action, text: str, argument: str, sources: Sources) -> Completions:
    settings = sources.settings
    match action.id:
        case "set":
            name, blank, value = argument.partition(" ")
            param = find_param(name)
            if not blank:
                keys = [(f"{param.key} ", param.help) for param in (*LIVE, *PLACEMENT)]
                return _listed(text, argument, keys, whole=param is not None)
            return NOTHING if param is None else _value(param, text, value, settings)
        case "preset":
            return _listed(text, argument, [(name, PURPOSES.get(name, "")) for name in settings.presets])
        case "change_theme":
            return _listed(text, argument, [(name, "") for name in sorted(sources.themes())])
        case "keep":
            return _weights(text, argument, ("auto", "none"))
        case "mirostat":
            return _mirostat(text, argument, settings)
    return NOTHING


def _mirostat(text: str, argument: str, settings: Settings) -> Completions:
    """The version, then two numbers."""
    *before, word = argument.split(" ")
    if len(before) >= len(MIROSTAT):
        return NOTHING
    return _value(BY_KEY[MIROSTAT[len(before)]], text, word, settings)


def _value(param: Param, text: str, value: str, settings: Settings) -> Completions:
    """The choices of a parameter; of a number or a text, what it is now and may be."""
    if param in FIXED:
        return Completions(
            hint=f"{param.label} is chosen when a model is loaded: restart with {param.flags[0]}"
        )
    if param.kind == "names":
        return _weights(text, value, (param.none or "none",))
    words = [str(choice) for choice in param.choices]
    words += [word for word in (param.none, "off" if param.off is not None else None) if word]
    if param.choices:
        return _listed(text, value, [(word, "") for word in dict.fromkeys(words)])
    others = "".join(f", or {word}" for word in words if word != param.none)
    if param.kind == "text":
        return Completions(hint=f"{param.label}: a text")
    return Completions(hint=f"{param.label}: {param.range_text()}{others}; now {settings.shown(param)}")


def _weights(text: str, argument: str, alone: tuple[str, ...]) -> Completions:
    """Names of weights, of which several may stand behind each other."""
    match = _LAST.search(argument)
    begin = match[0] if match else ""
    first = begin == argument
    names = [(name, "") for name in (*(alone if first else ()), *_WEIGHTS)]
    return _listed(text, begin, names)


def _listed(
    text: str, begin: str, names: Iterable[tuple[str, str]], *, whole: bool | None = None
) -> Completions:
    """Those of `names`, each with its help, that begin with `begin`, with which `text` ends."""
    names = list(names)
    head = text[: len(text) - len(begin)]
    found = [(name, help) for name, help in names if name.startswith(begin.lower())]
    if whole is None:
        whole = not begin or not found or any(name == begin.lower() for name, _ in found)
    return Completions(tuple(Candidate(head + name, name.strip(), help) for name, help in found), whole)
