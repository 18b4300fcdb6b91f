"""Colours for code, by Pygments; lexers are looked up and imported when a fence first names them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from tui.markdown.lines import Span

if TYPE_CHECKING:
    from pygments.lexer import Lexer

MAX_CODE = 6000
"""Characters, context included, above which a chunk of code stays plain."""

_STYLES = {
    "Keyword": "code-keyword",
    "Name.Builtin": "code-function",
    "Name.Class": "code-function",
    "Name.Decorator": "code-function",
    "Name.Function": "code-function",
    "Name.Tag": "code-keyword",
    "Name.Attribute": "code-function",
    "Literal.String": "code-string",
    "Literal.Number": "code-number",
    "Comment": "code-comment",
    "Operator": "code-operator",
    "Generic.Deleted": "code-keyword",
    "Generic.Inserted": "code-string",
    "Generic.Heading": "code-function",
    "Generic.Subheading": "code-function",
}


def highlight(code: str, language: str, context: str = "") -> list[list[Span]]:
    """The spans of each line of `code`, which follows the lines of `context` in the same file."""
    count = code.count("\n") + 1
    lexer = _lexer(language.lower()) if language else None
    if lexer is None or len(code) + len(context) > MAX_CODE:
        return [[] for _ in range(count)]
    before = f"{context}\n" if context else ""
    lines: list[list[Span]] = [[]]
    column = 0
    for kind, text in lexer.get_tokens(before + code):
        style = _style(str(kind))
        for index, part in enumerate(text.split("\n")):
            if index:
                lines.append([])
                column = 0
            if part and style:
                lines[-1].append(Span(column, column + len(part), (style,)))
            column += len(part)
    skipped = before.count("\n")
    found = lines[skipped : skipped + count]
    return found + [[] for _ in range(count - len(found))]


@lru_cache(maxsize=64)
def _lexer(language: str) -> Lexer | None:
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


@lru_cache(maxsize=256)
def _style(kind: str) -> str:
    """The style of a token type, or of the nearest type above it: "Token.Name.Function.Magic"."""
    name = kind.removeprefix("Token.")
    while name:
        if name in _STYLES:
            return _STYLES[name]
        name = name.rpartition(".")[0]
    return ""
