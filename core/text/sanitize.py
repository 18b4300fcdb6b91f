"""What may reach a terminal of a text that someone else wrote: a model, a file, the database."""

from __future__ import annotations

import re

_LINE_BREAKS = (0x2028, 0x2029)

_DROPPED = (
    range(0x09),  # C0 without tab and line feed: escape sequences begin here
    range(0x0B, 0x20),
    range(0x7F, 0xA0),  # DEL and C1, whose U+009B is an escape sequence's beginning in one character
    (0x00AD,),  # soft hyphen: terminals disagree on whether it takes a cell
    (0x061C, 0x200E, 0x200F),  # bidirectional marks
    range(0x202A, 0x202F),  # bidirectional embeddings and overrides
    range(0x2066, 0x206A),  # bidirectional isolates
    (0x180E, 0x200B, 0xFEFF),  # spaces without width
    range(0x2060, 0x2065),  # word joiner, invisible operators
    range(0x206A, 0x2070),  # deprecated format characters
    range(0xFFF9, 0xFFFC),  # interlinear annotation, which hides text
    range(0xD800, 0xE000),  # lone surrogates: no terminal, file or database can take them
    range(0xE0000, 0xE0080),  # tags: a whole hidden ASCII; three regional flags lose their pattern
)
# Kept though invisible: U+200D and the variation selectors, which emoji are made of, and U+200C,
# without which Persian and several Indic scripts are misspelt.

_TABLE: dict[int, str | None] = dict.fromkeys(_LINE_BREAKS, "\n") | {
    code: None for codes in _DROPPED for code in codes
}

_SURROGATES = re.compile("[\ud800-\udfff]")


def sanitize(text: str) -> str:
    """`text` without control, bidirectional and spoofing characters; line separators become "\\n".

    Each character is judged alone, so what is cut into pieces between two calls passes no more than
    the whole: sanitize(a + b) == sanitize(a) + sanitize(b).
    """
    return text.translate(_TABLE)


def one_line(text: object, longest: int = 200) -> str:
    """`text`, which may quote a file, as part of a line for the user."""
    return " ".join(sanitize(str(text)[:longest]).split())


def without_surrogates(text: str) -> str:
    """`text` with U+FFFD for every lone surrogate, so that it can be encoded as UTF-8.

    Python makes them of arguments and file names that are not UTF-8.
    """
    return _SURROGATES.sub("\ufffd", text)
