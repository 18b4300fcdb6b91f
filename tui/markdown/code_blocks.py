"""The code blocks of a message, each as a whole again."""

from __future__ import annotations

from typing import NamedTuple

from tui.markdown.section import Section


class CodeBlock(NamedTuple):
    """A block of code: the indexes of its first and last piece, and its text."""

    first: int
    last: int
    text: str


def code_blocks(section: Section) -> list[CodeBlock]:
    """The blocks of code that the message shows, from top to bottom."""
    found: list[CodeBlock] = []
    for index, piece in enumerate(section.pieces):
        block = piece.block
        if piece.hidden or block.kind != "code":
            continue
        if block.joint is None or not found:
            found.append(CodeBlock(index, index, block.source))
        else:
            first, _, text = found[-1]
            found[-1] = CodeBlock(first, index, text + block.joint + block.source)
    return found
