"""The messages of a run without a screen: from --prompt, --script or stdin."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from core.errors import UserError


def read_messages(typed: dict[str, Any]) -> Iterator[str] | None:
    """What to answer without a screen; None for the chat. Reads stdin only where nothing else is given."""
    prompt, script = typed.get("prompt"), typed.get("script")
    if prompt is not None and script is not None:
        raise UserError("--prompt and --script are both given; leave one out")
    if prompt is not None:
        return iter([_checked(prompt, "--prompt", typed)])
    if script is not None:
        return _lines(script)
    if not sys.stdin.isatty():
        return iter([_checked(_stdin().read(), "stdin", typed)])
    reason = undrawable()
    if reason is not None:
        raise UserError(reason)
    return None


def undrawable() -> str | None:
    """Why no full screen can be shown here, and the way out; None where it can."""
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        return "no terminal to draw on; give --prompt TEXT, --script FILE, or text on stdin"
    if os.environ.get("TERM", "dumb") == "dumb":
        return (
            "TERM=dumb: this terminal cannot show a full screen; give --prompt TEXT or --script FILE, "
            "or --script - to talk line by line"
        )
    return None


def asks_for_lines(typed: dict[str, Any]) -> bool:
    """Whether somebody at a terminal talks with the model line by line, with nothing drawn."""
    script = "prompt" not in typed and typed.get("script") == "-"
    return script and not typed.get("json") and sys.stdin.isatty() and sys.stdout.isatty()


def _checked(text: str, source: str, typed: dict[str, Any]) -> str:
    text = text.removesuffix("\n") if source == "stdin" else text
    if not text.strip() and not typed.get("raw"):
        raise UserError(f"{source} is empty; give a message, or --raw to complete from nothing")
    return text


def _lines(script: str) -> Iterator[str]:
    """One message a line; blank lines say nothing."""
    try:
        if script == "-":
            file = _stdin()
        else:
            file = open(os.path.expanduser(script), encoding="utf-8", errors="replace")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"--script {script}: cannot be read ({error.strerror}); give a text file") from None

    def read() -> Iterator[str]:
        with file:
            for line in file:
                if line.strip():
                    yield line.removesuffix("\n")

    return read()


def _stdin() -> Any:
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    return sys.stdin
