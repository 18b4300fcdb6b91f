"""The table of actions as others read it: the rows of the help page, and the README's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from tui.commands import ACTIONS, Action, Scope, key_name

PLACES: dict[Scope, str] = {
    "settings": "In the settings",
    "transcript": "At the messages",
    "find": "In a search",
    "chats": "In the list of chats",
    "map": "In the memory map",
    "start": "On the start screen",
}
"""Where the keys of a scope act; those of the others act in the chat."""


def rows(
    keys_of: Callable[[Action], tuple[str, ...]], here: Scope | None = None
) -> Iterator[tuple[str, str, str]]:
    """Keys, slash command and explanation of the actions of one place, or of all, for the help page."""
    for action in ACTIONS:
        if here is None or action.scope == here:
            keys = ", ".join(key_name(key) for key in keys_of(action))
            place = f"{PLACES[action.scope]}: " if here is None and action.scope in PLACES else ""
            yield keys, action.slash, f"{place}{action.help}"


def markdown_tables() -> str:
    """The README's tables of keys and commands, with the ids by which the configuration gives other keys.

    First the chat's; those of other places are folded.
    """
    parts = [_table(action for action in ACTIONS if action.scope not in PLACES)]
    for scope, place in PLACES.items():
        table = _table(action for action in ACTIONS if action.scope == scope)
        parts.append(f"<details><summary>{place}</summary>\n\n{table}\n\n</details>")
    return "\n\n".join(parts)


def _table(actions: Iterable[Action]) -> str:
    lines = ["| key | command | what it does | id |", "|---|---|---|---|"]
    for action in actions:
        keys = ", ".join(key_name(key) for key in action.keys)
        slash = f"`{action.slash}`" if action.slash else ""
        lines.append(f"| {keys} | {slash} | {action.help} | `{action.id}` |")
    return "\n".join(lines)
