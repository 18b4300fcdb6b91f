"""Which keys every action has now: those of the table, or what the user's `[keys]` puts in their place.

Textual's keymap, which goes by the bindings' ids, makes the keys act, in every screen that there is or will
be. What shows a key asks here. There is one app in a process, and texts far from any widget name keys, so
the answer is the process's.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from textual.binding import Binding
from textual.keys import Keys, key_to_character

from core.config.read import Config
from core.config.values import shown
from core.errors import UserError
from tui.commands import ACTIONS, BY_ID, KEY_NAMES, Action, Scope, key_name

_SENT_AS = {
    "ctrl+h": "backspace",
    "ctrl+i": "tab",
    "ctrl+m": "enter",
    "ctrl+left_square_bracket": "escape",
}
"""What a terminal sends instead, so that nobody can tell them apart."""

_MODIFIERS = ("alt", "ctrl", "hyper", "meta", "shift", "super")  # in the order in which Textual names them
_SCREENS: tuple[Scope, ...] = ("chats", "start", "map")  # scopes that have the screen to themselves
_WITHOUT_TEXT = ("settings", "transcript", "map")  # letters are keys there; digits begin a setting's value
_EDITING = ("left", "right", "home", "end", "backspace", "delete")
_NAMES = {str(key.value).split("+")[-1] for key in Keys} | {"delete", "space"}
_ALIASES = {name.lower(): key for key, name in KEY_NAMES.items()} | {"return": "enter"}

_mine: dict[str, tuple[str, ...]] = {}


def use(keys: Mapping[str, tuple[str, ...]]) -> None:
    """From now on these actions have these keys, and all others the table's."""
    _mine.clear()
    _mine.update(keys)


def keys_of(action: Action) -> tuple[str, ...]:
    """The keys of an action, each by itself."""
    return _mine.get(action.id, action.keys)


def action_of(scope: Scope, key: str) -> Action | None:
    """The action of a scope that has this key; None where none has."""
    return next((one for one in ACTIONS if one.scope == scope and key in keys_of(one)), None)


def key_word(id: str) -> str:
    """The first key of the action `id`, as the interface writes it."""
    return key_name(keys_of(BY_ID[id])[0])


def read_keys(config: Config) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """The keys that `[keys]` gives to actions, and a warning with its line for what cannot be."""
    wanted: dict[str, tuple[str, ...]] = {}
    warnings: list[str] = []
    for id, text in config.keys.items():
        try:
            wanted[id] = _keys(id, text)
        except UserError as error:
            warnings.append(f"{config.place('keys', id)}: {error}; ignored")
    while (clash := _clash(wanted)) is not None:
        key, owners = clash
        id = next(id for id in reversed(wanted) if id in owners)
        other = next(other for other in owners if other != id)
        del wanted[id]
        stays = f"{key_name(BY_ID[id].keys[0])} stays" if BY_ID[id].keys else "ignored"
        warnings.append(f"{config.place('keys', id)}: {id} {key_name(key)}: {other} has that key; {stays}")
    return wanted, warnings


def _keys(id: str, text: str) -> tuple[str, ...]:
    """The keys that `text` names for the action `id`. UserError where there is none such."""
    if id not in BY_ID:
        close = difflib.get_close_matches(id, BY_ID, 1)
        advice = f"did you mean {close[0]}?" if close else "the README lists the actions"
        raise UserError(f"there is no action {shown(id)}; {advice}")
    return tuple(dict.fromkeys(_key(word, BY_ID[id]) for word in text.split(",")))


def _key(word: str, action: Action) -> str:
    """A key by Textual's name. UserError where it cannot be the key of `action`."""
    *modifiers, last = (part.strip() for part in word.strip().lower().split("+"))
    last = _ALIASES.get(last, last)
    said = f"{action.id} {shown(word.strip())}"
    if len(last) == 1:
        [binding] = Binding.make_bindings([(last, action.id)])
        last = binding.key
    elif last not in _NAMES and key_to_character(last) is None:
        raise UserError(f'{said}: there is no such key; give one such as "f5", "ctrl+r" or "alt+left"')
    if not set(modifiers) <= set(_MODIFIERS):
        raise UserError(f"{said}: what goes before a key is {', '.join(_MODIFIERS)}")
    key = "+".join((*sorted(set(modifiers)), last))
    if key in _SENT_AS:
        raise UserError(f"{said}: terminals send that as {_SENT_AS[key]}; give another")
    character = key_to_character(last) or ""
    typed = bool(character) and character.isprintable() and set(modifiers) <= {"shift"}
    if typed and (action.scope not in _WITHOUT_TEXT or (action.scope == "settings" and last.isdigit())):
        raise UserError(f"{said}: that is needed for typing; give it with ctrl or alt, or another")
    if key in _EDITING and action.scope in ("app", "chat"):
        raise UserError(f"{said}: that is needed for editing; give it with ctrl or alt, or another")
    return key


def _clash(wanted: Mapping[str, tuple[str, ...]]) -> tuple[str, list[str]] | None:
    """A key that two actions would have in one place, and their ids; None where all is well."""
    owners: dict[str, list[Action]] = {}
    for action in ACTIONS:
        for key in wanted.get(action.id, action.keys):
            for other in owners.setdefault(key, []):
                ids = [other.id, action.id]
                if _together(action.scope, other.scope) and not wanted.keys().isdisjoint(ids):
                    return key, ids
            owners[key].append(action)
    return None


def _together(one: Scope, other: Scope) -> bool:
    """Whether keys of both scopes act at the same time. Other screens cover the chat, or come before it."""
    scopes: set[Scope] = {one, other}
    return len(scopes) == 1 or "app" in scopes or ("chat" in scopes and scopes.isdisjoint(_SCREENS))
