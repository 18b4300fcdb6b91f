"""How a session ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """The exit status, and a line for stderr once the terminal is restored (empty: nothing to say)."""

    exit_code: int = 0
    line: str = ""
