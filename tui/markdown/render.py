"""Blocks to lines: what a block looks like before its width is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len

from tui.markdown.blocks import Block
from tui.markdown.highlight import highlight
from tui.markdown.lines import Element, Line, Prefix, Span
from tui.markdown.lists import BULLETS

if TYPE_CHECKING:
    from markdown_it.token import Token

_QUOTE_BAR = "▌ "
_ASIDE_BAR = "│ "


def render(block: Block, indent: int = 0, code_padding: int = 0) -> list[Element]:
    """The elements of a block.

    `indent` cells stand before everything, `code_padding` between the edge of a code block and its text.
    """
    margin: Prefix = ((" " * (indent + block.indent), ""),)
    style = block.style
    if block.aside:
        margin = ((" " * indent, ""), (_ASIDE_BAR, "aside-bar"), (" " * block.indent, ""))
        style = style or "aside"
    if block.kind == "plain":
        return [
            Line(text.expandtabs(4), first=margin, rest=margin, style=style, inline=True)
            for text in block.source.split("\n")
        ]
    if block.kind == "code":
        return _code(block.source, margin, code_padding, block.language, block.context)

    from tui.markdown.parser import is_cut, parse, parse_inline

    tokens = parse_inline(block.source) if block.kind == "inline" else parse(block.source)
    renderer = _Renderer(margin, code_padding, block.indent, style)
    if block.marker:
        renderer.enter_item(block.marker)
    if is_cut(tokens):
        renderer.add_text([(text.expandtabs(4), ()) for text in block.source.split("\n")])
    else:
        renderer.walk(tokens)
    if block.marker and not renderer.elements:
        renderer.add_text([("", ())])
    return renderer.elements


def warm_up() -> None:
    """Imports the Markdown parser and the most likely lexer, some 100 ms that no paint should wait for."""
    from tui.markdown.parser import parse

    parse("")
    highlight("", "python")


def _code(source: str, margin: Prefix, padding: int, language: str = "", context: str = "") -> list[Element]:
    prefix = (*margin, (" " * padding, "code")) if padding else margin
    source, context = source.expandtabs(4), context.expandtabs(4)
    spans = highlight(source, language, context)
    return [
        Line(text, tuple(line), prefix, prefix, style="code", fill=" ", words=False)
        for text, line in zip(source.split("\n"), spans, strict=True)
    ]


class _Container:
    """A list item or quote: `first` stands before its first line, `rest` before the others."""

    def __init__(self, first: tuple[str, str], rest: tuple[str, str]) -> None:
        self.first = first
        self.rest = rest
        self.entered = False


class _Renderer:
    """Walks over the tokens of a block and adds up its elements."""

    def __init__(self, margin: Prefix, code_padding: int, nesting: int, style: str) -> None:
        self.elements: list[Element] = []
        self._style = style
        self._nesting = nesting
        self._margin = margin
        self._code_padding = code_padding
        self._containers: list[_Container] = []
        self._lists: list[int | None] = []  # the next number of each list around, None if it is not ordered
        self._line_end = 0  # of the last element, in the source

    def walk(self, tokens: Sequence[Token]) -> None:
        """Adds the elements of these tokens."""
        stream = iter(tokens)
        for token in stream:
            match token.type:
                case "bullet_list_open":
                    self._lists.append(None)
                case "ordered_list_open":
                    self._lists.append(int(token.attrGet("start") or 1))
                case "bullet_list_close" | "ordered_list_close":
                    self._lists.pop()
                case "list_item_open":
                    self.enter_item(self._next_marker(token))
                case "blockquote_open":
                    self._containers.append(_Container((_QUOTE_BAR, "quote-bar"), (_QUOTE_BAR, "quote-bar")))
                case "list_item_close" | "blockquote_close":
                    self._leave()
                case _:
                    self._leaf(token, stream)

    def enter_item(self, marker: str) -> None:
        """Opens a list item whose first line follows `marker`."""
        self._containers.append(_Container((marker, "bullet"), (" " * cell_len(marker), "")))

    def add_text(self, lines: Sequence[tuple[str, tuple[Span, ...]]], style: str = "") -> None:
        """Adds the lines of a paragraph or heading."""
        style = style or ("quote" if self._in_quote else self._style)
        copied = self._copied()
        for text, spans in lines:
            first, rest = self._prefixes()
            plain = not self._containers
            self.elements.append(Line(text, spans, first, rest, style, inline=plain, copied=copied))
            copied = ""

    def _leaf(self, token: Token, stream: Iterator[Token]) -> None:
        """Adds an element, with an empty line before it if the source has one there."""
        if token.map is not None:
            if self.elements and token.map[0] > self._line_end:
                _, rest = self._prefixes(peek=True)
                self.elements.append(Line("", first=rest, rest=rest))
            self._line_end = token.map[1]
        match token.type:
            case "inline":
                self._inline(token)
            case "heading_open":
                level = "heading-1" if token.tag == "h1" else "heading"
                self._inline(next(stream), level)
            case "fence" | "code_block":
                self._code(token)
            case "hr":
                first, rest = self._prefixes()
                self.elements.append(Line("", first=first, rest=rest, style="rule", fill="─"))
            case "table_open":
                self._table(stream)

    def _inline(self, token: Token, style: str = "") -> None:
        from tui.markdown.inline import inline_lines

        self.add_text(inline_lines(token.children or []), style)

    def _code(self, token: Token) -> None:
        first, rest = self._prefixes()
        source = token.content.removesuffix("\n")
        lines = _code(source, rest, self._code_padding, token.info.strip())
        if first != rest:
            lines[:0] = [Line("", first=first, rest=rest)]
        self.elements += lines

    def _table(self, stream: Iterator[Token]) -> None:
        from tui.markdown.inline import inline_lines
        from tui.markdown.table import Table

        rows: list[list[tuple[str, tuple[Span, ...]]]] = []
        aligns: list[str] = []
        for token in stream:
            if token.type == "table_close":
                break
            if token.type == "tr_open":
                rows.append([])
            elif token.type == "th_open":
                aligns.append(str(token.attrGet("style") or "").rpartition(":")[2].replace("left", ""))
            elif token.type == "inline":
                rows[-1].append(inline_lines(token.children or [])[0])
        first, rest = self._prefixes()
        self.elements.append(Table(rows, aligns, first, rest))

    def _leave(self) -> None:
        """Closes an item or quote; one without content still shows its marker."""
        if not self._containers[-1].entered:
            self.add_text([("", ())])
        self._containers.pop()

    def _next_marker(self, token: Token) -> str:
        number = self._lists[-1]
        if number is None:
            return f"{BULLETS[min(len(self._lists), len(BULLETS)) - 1]} "
        self._lists[-1] = number + 1
        return f"{number}{token.markup} "

    @property
    def _in_quote(self) -> bool:
        return any(container.first[1] == "quote-bar" for container in self._containers)

    def _copied(self) -> str:
        """What is copied with the first line of an item: its marker, a bullet as Markdown has it."""
        marks = [item.first[0] for item in self._containers if item.first[1] == "bullet" and not item.entered]
        text = "".join("- " if mark[0] in BULLETS else mark for mark in marks)
        return " " * self._nesting + text if text else ""

    def _prefixes(self, peek: bool = False) -> tuple[Prefix, Prefix]:
        """What stands before the first row of the next line, and before its others."""
        rest = (*self._margin, *(container.rest for container in self._containers))
        if peek:
            return rest, rest
        first = (*self._margin, *(item.rest if item.entered else item.first for item in self._containers))
        for container in self._containers:
            container.entered = True
        return first, rest
