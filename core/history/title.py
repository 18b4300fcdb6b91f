"""What a conversation is called."""

from __future__ import annotations

from core.text.sanitize import sanitize

_LONGEST = 60  # characters of a title that is taken from a message
_LIMIT = 200  # and of one that a user gives


def clean_title(text: str) -> str:
    """`text` in one line without control characters; empty where nothing can be seen of it."""
    return " ".join(sanitize(text).split())[:_LIMIT].rstrip()


def title_of(message: str) -> str:
    """A title from the first message: its beginning, whole words."""
    # A message may be a book; no more of it is looked at than a title may need.
    words = " ".join(sanitize(message[: 10 * _LIMIT]).split())
    if len(words) <= _LONGEST:
        return words or "untitled"
    cut = words[:_LONGEST]
    return f"{cut[: cut.rfind(' ')] if ' ' in cut else cut}…"
