"""Blocks: pieces of text that can be rendered without what came before them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

OPEN_LIMIT = 3000
"""Characters that may stay open before they are cut; bounds what it costs to render one block."""

_SENTENCE_END = re.compile(r"[.!?…]['\")]? |[。\uff01\uff1f]")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_LINE_ENDS = str.maketrans({"\r": None, "\u2028": "\n", "\u2029": "\n"})


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a text.

    `indent` is the width in cells of the list items around it, `marker` the bullet or number shown
    before its first line. `gap` asks for an empty row above it. `context` is code that precedes a
    chunk of code and is only looked at; `joint` is what stands between that chunk and the one before,
    None where there is none. `style` names the style of plain text. `aside` is what belongs to the
    reasoning before an answer.
    """

    kind: Literal["markdown", "inline", "code", "plain"]
    source: str
    indent: int = 0
    marker: str = ""
    gap: bool = False
    language: str = ""
    context: str = ""
    joint: str | None = None
    style: str = ""
    aside: bool = False


class Thought(NamedTuple):
    """The reasoning before an answer: its lines so far, and whether it has come to its end."""

    lines: int
    over: bool


class BlockSource(Protocol):
    """Turns arriving text into blocks. How the text is divided into calls makes no difference to them."""

    def feed(self, text: str) -> list[Block]:
        """Takes more text; the blocks that it finished."""

    def close(self) -> list[Block]:
        """Ends the text; the blocks that were still open."""

    @property
    def tail(self) -> Block:
        """The open end, as it was typed."""

    @property
    def thought(self) -> Thought | None:
        """What is known of the reasoning; None where there is none."""


class PlainSplitter:
    """Text that is no Markdown, such as what a user typed; cut only where it gets too long."""

    thought = None

    def __init__(self) -> None:
        self._open = ""

    def feed(self, text: str) -> list[Block]:
        """Takes more text; the blocks that it finished."""
        done = []
        self._open += text
        start = 0
        while len(self._open) - start > OPEN_LIMIT:
            part = self._open[start : start + OPEN_LIMIT]
            newline = part.rfind("\n")
            end = newline if newline >= 0 else break_position(part)
            done.append(Block("plain", part[:end]))
            start += end + (newline >= 0)
        self._open = self._open[start:]
        return done

    def close(self) -> list[Block]:
        """Ends the text; the block that was still open, without empty lines at its end."""
        source = self._open.rstrip("\n")
        self._open = ""
        return [Block("plain", source)] if source else []

    @property
    def tail(self) -> Block:
        """The open end."""
        return Block("plain", self._open)


def break_position(text: str) -> int:
    """Where to cut a long line: after a sentence, else after a word, of its second half; else at its end."""
    half = len(text) // 2
    ends = [match.end() for match in _SENTENCE_END.finditer(text, half)]
    return ends[-1] if ends else text.rfind(" ", half) + 1 or len(text)


def printable(text: str) -> str:
    """`text` without what would break a row of the screen, should the sanitiser have let it through."""
    return text if text.isprintable() else _UNPRINTABLE.sub("\ufffd", text.translate(_LINE_ENDS))
