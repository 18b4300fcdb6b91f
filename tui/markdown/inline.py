"""Inline Markdown tokens to text and spans."""

from __future__ import annotations

from collections.abc import Iterable

from markdown_it.token import Token

from tui.markdown.lines import Span

Text = tuple[str, tuple[Span, ...]]
"""The text of a line and its spans."""

_STYLES = {"em": "em", "strong": "strong", "s": "strike", "link": "link"}


def inline_lines(tokens: Iterable[Token]) -> list[Text]:
    """The lines of a paragraph; a line break in the source is one on the screen."""
    writer = _Writer()
    for token in tokens:
        writer.write(token)
    writer.end_line()
    return writer.lines


class _Writer:
    def __init__(self) -> None:
        self.lines: list[Text] = []
        self._text = ""
        self._spans: list[Span] = []
        self._styles: list[str] = []
        self._links: list[tuple[str, str]] = []  # address, text of the line when the link began

    def write(self, token: Token) -> None:
        name, _, part = token.type.rpartition("_")
        if token.type in ("softbreak", "hardbreak"):
            self.end_line()
        elif token.type == "code_inline":
            self._put(token.content, "inline-code")
        elif token.type == "image":
            self._put(token.content, "link")
            self._put_address(_address(token, "src"), token.content)
        elif part == "open":
            if name == "link":
                self._links.append((_address(token, "href"), self._text))
            self._styles.append(_STYLES[name])
        elif part == "close":
            self._styles.pop()
            if name == "link":
                address, before = self._links.pop()
                self._put_address(address, self._text.removeprefix(before))
        else:
            self._put(token.content)

    def end_line(self) -> None:
        self.lines.append((self._text, tuple(self._spans)))
        self._text, self._spans = "", []

    def _put(self, text: str, *styles: str) -> None:
        text = text.replace("\t", "    ")
        start = len(self._text)
        self._text += text
        if text and (self._styles or styles):
            self._spans.append(Span(start, len(self._text), (*self._styles, *styles)))

    def _put_address(self, address: str, shown: str) -> None:
        """Shows where a link leads, unless its text says so."""
        if address and address not in (shown, f"mailto:{shown}"):
            self._put(f" ({address})" if shown else address, "url")


def _address(token: Token, attribute: str) -> str:
    title = token.attrGet("title")
    address = str(token.attrGet(attribute) or "")
    return f'{address} "{title}"' if title else address
