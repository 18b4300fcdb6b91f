"""The Markdown dialect of replies: CommonMark with tables and strikethrough, in which nothing disappears.

No HTML, no entities, no link definitions: what looks like them is text. Importing this module takes
some 80 ms, which is why `render` does it at its first use.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

_ESCAPABLE = frozenset("*_`~#>+-.")
"""Characters whose backslash is a Markdown escape; before others it is literal, as in the \\( of TeX."""
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class _Parser(MarkdownIt):
    """Links are shown, never followed, so their addresses stay as they were written."""

    def normalizeLink(self, url: str) -> str:
        return url

    def validateLink(self, url: str) -> bool:
        return True


def _escape(state: StateInline, silent: bool) -> bool:
    """Takes a backslash and the punctuation after it as text, with the backslash unless it is an escape."""
    pair = state.src[state.pos : state.pos + 2]
    if len(pair) < 2 or pair[0] != "\\" or pair[1] not in _PUNCTUATION:
        return False
    if not silent:
        token = state.push("text_special", "", 0)
        token.content = pair[1] if pair[1] in _ESCAPABLE else pair
        token.markup = pair
        token.info = "escape"
    state.pos += 2
    return True


def _newline(state: StateInline, silent: bool) -> bool:
    """Ends a line and keeps the blanks that begin the next: code without a fence stays readable."""
    if state.src[state.pos] != "\n":
        return False
    if not silent:
        state.pending = state.pending.rstrip(" ")
        state.push("softbreak", "br", 0)
    state.pos += 1
    return True


@cache
def _parser() -> MarkdownIt:
    # Bare addresses are left alone: finding them costs more than all other rules together.
    parser = _Parser("gfm-like", {"html": False, "linkify": False})
    parser.disable(["entity", "html_block", "html_inline", "reference", "linkify"])
    parser.inline.ruler.at("escape", _escape)
    parser.inline.ruler.at("newline", _newline)
    return parser


def parse(source: str) -> list[Token]:
    """The tokens of a block."""
    return _parser().parse(source)


def is_cut(tokens: Sequence[Token]) -> bool:
    """Whether something is missing: the parser drops what is nested deeper than it goes."""
    deepest = _parser().options["maxNesting"] - 1
    return any(token.nesting > 0 and token.level >= deepest for token in tokens)


def parse_inline(source: str) -> list[Token]:
    """The one token of a text that is known to be a paragraph."""
    return _parser().parseInline(source)
