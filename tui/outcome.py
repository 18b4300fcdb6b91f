"""How a session ended."""

from __future__ import annotations

from dataclasses import dataclass

from core.text.sanitize import one_line

_LONGEST = 60  # characters of a title


@dataclass(frozen=True, slots=True)
class Outcome:
    """The exit status, and lines for stderr once the terminal is restored (empty: nothing to say).

    `line` says what happened; `command` is one to be copied.
    """

    exit_code: int = 0
    line: str = ""
    command: str = ""


def resume_command(chat: int, title: str) -> str:
    """What goes on with a saved conversation. The title stands in a comment, so that a shell takes it all."""
    return f'llama-tui --resume {chat}   # goes on with "{one_line(title, _LONGEST)}"'
