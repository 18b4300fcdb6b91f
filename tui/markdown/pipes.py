"""Rows of tables as they are written, with pipes between their cells."""

from __future__ import annotations

import re

_DELIMITER_ROW = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?$")
_PIPE = re.compile(r"(?<!\\)\|")


def starts_table(head: str, delimiters: str) -> bool:
    """Whether two lines are the head of a table and the row of dashes below it."""
    return "|" in head and bool(_DELIMITER_ROW.match(delimiters)) and _cells(head) == _cells(delimiters)


def widened(rows: list[str]) -> list[str]:
    """The rows with a head that has a cell for every cell of the longest; without one they would vanish."""
    head, delimiters, *others = rows
    missing = max(map(_cells, rows)) - _cells(head)
    if missing <= 0:
        return rows
    return [
        head.removesuffix("|") + "|  " * missing + "|",
        delimiters.removesuffix("|") + "|--" * missing + "|",
        *others,
    ]


def _cells(row: str) -> int:
    return len(_PIPE.split(row.strip(" \t").removeprefix("|").removesuffix("|")))
