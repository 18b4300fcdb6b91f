"""On which line of a TOML file something stands; tomlkit keeps the layout, but no line numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import tomlkit
from tomlkit.container import Container
from tomlkit.items import AoT, InlineTable, Item, Table

_MARK = "\x00"  # cannot stand in a TOML file


def line_of(text: str, path: Sequence[str]) -> int | None:
    """The line, from 1, of the key or table header at `path` in the TOML file `text`.

    Of its nearest parent where it has no line of its own; None where there is neither. tomlkit writes a file
    back letter by letter, so a mark put before the key there comes out where the key is.
    """
    for length in range(len(path), 0, -1):
        document = tomlkit.parse(text)
        for item in _items(document, path[:length]):
            item.trivia.indent += _MARK
            before, mark, _ = tomlkit.dumps(document).partition(_MARK)
            if mark:
                return before.count("\n") + 1
            item.trivia.indent = item.trivia.indent.removesuffix(_MARK)
    return None


def _items(container: Container, path: Sequence[str]) -> Iterator[Item]:
    """Everything that stands at `path`, and what is in it: many a table has no header of its own."""
    for key, item in container.body:
        if key is None or (path and key.key != path[0]):
            continue
        inner: list[Item] = list(item.body) if isinstance(item, AoT) else [item]
        for each in inner:
            if len(path) <= 1:
                yield each
            if isinstance(each, (Table, InlineTable)):
                yield from _items(each.value, path[1:])
