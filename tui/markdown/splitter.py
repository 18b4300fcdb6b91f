"""Cuts a growing Markdown text into blocks that can be parsed one by one, in time linear in the new text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

from tui.markdown.blocks import OPEN_LIMIT, Block, break_position
from tui.markdown.lists import ITEM, ListNesting
from tui.markdown.pipes import starts_table, widened

CODE_LINES = 6
"""Lines of a fence that are committed together."""
CODE_CONTEXT = 40
"""Lines before a chunk of a fence that its highlighting may look at."""

_RULE = re.compile(r"(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$")
_UNDERLINE = re.compile(r"(?:=+|-+)$")
_HEADING = re.compile(r"#{1,6}(?:[ \t]|$)")
_LANGUAGE = re.compile(r"\{?\.?[\w+#.,-]*\}?", re.ASCII)
_FENCE = re.compile(r"(`{3,})([^`]*)$|(~{3,})(.*)$")

_Kind = Literal["", "paragraph", "quote", "table", "code"]


@dataclass(slots=True)
class _Fence:
    mark: str
    column: int
    language: str
    context: list[str] = field(default_factory=list)
    joint: str | None = None  # of the next chunk


class Splitter:
    """The top-level blocks and the list items of Markdown, found line by line.

    The open block is kept twice: as it will be parsed, without list markers and indentation, and as
    it was typed, to be shown until it is finished.
    """

    def __init__(self) -> None:
        self._lists = ListNesting()
        self._fence: _Fence | None = None
        self._kind: _Kind = ""
        self._lines: list[str] = []
        self._typed: list[str] = []
        self._size = 0  # characters of `_typed`, or of `_lines` in a fence
        self._partial = ""  # the line that has no end yet
        self._inside_line = False  # `_partial` goes on from a line that was cut
        self._inline = False
        self._indent = 0
        self._marker = ""
        self._gap = False
        self._again = False  # the open table repeats the head of one that was cut

    def feed(self, text: str) -> list[Block]:
        """Takes more text; the blocks that it finished."""
        done: list[Block] = []
        head, *others = text.split("\n")
        self._extend(head, done)
        for part in others:
            self._end_line(done)
            self._extend(part, done)
        return done

    def close(self) -> list[Block]:
        """Ends the text; the blocks that were still open. A fence without an end is code all the same."""
        done: list[Block] = []
        if self._partial:
            self._end_line(done)
        self._close_fence(done)
        self._commit(done)
        return done

    @property
    def tail(self) -> Block:
        """The open block and the line without an end, as they were typed; in a fence the code so far."""
        partial = [self._partial] if self._partial else []
        if self._fence is None:
            return Block("plain", "\n".join(self._typed + partial), gap=self._gap)
        if not self._partial.strip(self._fence.mark[0] + " "):
            partial = []  # most likely the closing mark on its way
        code, joint = "\n".join(self._lines + partial), self._fence.joint
        return Block("code", code, self._indent, gap=self._gap, joint=joint)

    # The length of the open block.

    def _extend(self, text: str, done: list[Block]) -> None:
        while text:
            room = max(0, OPEN_LIMIT - self._size - len(self._partial))
            self._partial += text[:room]
            text = text[room:]
            if text:
                self._cut(done)

    def _cut(self, done: list[Block]) -> None:
        """Commits the full lines of a block that got too long or, where there are none, most of its line."""
        if self._fence is not None and self._lines:
            self._commit_code(done)
        elif self._lines:
            head, rows = self._lines[:2], len(self._lines) - 2
            again = self._kind == "table" and (rows > 0 or not self._again)
            self._commit(done)
            if again and sum(map(len, head)) < OPEN_LIMIT // 2:
                self._kind, self._lines, self._again = "table", head, True
        else:
            end = break_position(self._partial)
            rest, self._partial = self._partial[end:], self._partial[:end]
            self._end_line(done)
            if self._fence is not None:
                self._commit_code(done)
                self._fence.joint = ""
            elif self._kind == "quote":
                self._commit(done)
                rest = "> " + rest
            else:
                self._commit(done)
                self._inside_line = True
            self._partial = rest

    # Lines.

    def _end_line(self, done: list[Block]) -> None:
        line, self._partial = self._partial, ""
        if self._inside_line:
            self._inside_line = False
            self._indent = self._lists.indent
            self._kind, self._lines, self._inline = "paragraph", [line], True
        elif self._fence is not None:
            self._code_line(line, done)
        elif line.strip(" \t"):
            self._line(line, done)
        else:
            self._commit(done)
            self._gap = True
        if self._lines:
            self._size += len(line) + 1
            if self._fence is None:
                self._typed.append(line)

    def _line(self, line: str, done: list[Block]) -> None:
        """Continues the open block with a line that is not blank, or opens the one that it starts."""
        text = line.strip(" \t")
        column = _column(line)
        flowing = self._kind in ("paragraph", "quote", "table")
        if not self._lists and column >= 4:
            if flowing:
                self._flow(line, column)
            else:
                self._indented(line, 4, done)
        elif self._kind == "paragraph" and self._lists.holds(column) and _UNDERLINE.match(text):
            self._lines.append(text)
            self._commit(done)
        elif _RULE.match(text):
            self._single("---", column, done)
        elif (item := ITEM.match(text)) and self._starts_item(item, text):
            self._item(item, text, column, done)
        elif fence := _FENCE.match(text):
            self._start("", column, done)
            self._open_fence(fence, column)
        elif _HEADING.match(text):
            self._single(text, column, done)
        elif text.startswith(">"):
            if self._kind != "quote":
                self._start("quote", column, done)
            self._lines.append(text)
        elif self._kind == "paragraph" and starts_table(self._lines[-1], text):
            self._open_table(text, done)
        elif flowing:
            self._flow(line, column)
        elif self._lists.holds(column) and column >= self._lists.content + 4:
            self._indented(line, self._lists.content + 4, done)
        else:
            self._start("paragraph", column, done)
            self._lines.append(text)

    def _flow(self, line: str, column: int) -> None:
        """Continues a paragraph, whose lines keep their indentation, or a quote or table, whose do not."""
        self._lines.append(_dedent(line, self._lists.content if self._kind == "paragraph" else column))

    def _starts_item(self, item: re.Match[str], text: str) -> bool:
        """An ordered item does not interrupt a paragraph: "in the year\\n1986. A good one" is no list."""
        if self._lists or self._kind != "paragraph":
            return True
        return item.group(1) in (None, "1") and item.end() < len(text)

    def _item(self, item: re.Match[str], text: str, column: int, done: list[Block]) -> None:
        self._commit(done)
        self._indent, self._marker = self._lists.enter(item, column)
        content = text[item.end() :]
        if fence := _FENCE.match(content):
            self._lines = [""]
            self._commit(done)
            self._indent = self._lists.indent
            self._open_fence(fence, self._lists.content)
        else:
            self._kind, self._lines = "paragraph", [content]

    def _single(self, text: str, column: int, done: list[Block]) -> None:
        """A block of one line."""
        self._start("paragraph", column, done)
        self._lines.append(text)
        self._commit(done)

    def _indented(self, line: str, columns: int, done: list[Block]) -> None:
        if self._kind != "code":
            self._start("code", _column(line), done)
        self._lines.append(_dedent(line, columns))

    def _open_table(self, text: str, done: list[Block]) -> None:
        """Makes the last line of the open paragraph the head of a table."""
        head, typed = self._lines.pop(), self._typed.pop()
        indent, marker = self._lists.indent, ""
        if not self._lines:
            indent, marker = self._indent, self._marker
        self._commit(done)
        self._indent, self._marker = indent, marker
        self._kind, self._lines, self._typed, self._size = "table", [head, text], [typed], len(typed) + 1

    # Fences.

    def _open_fence(self, match: re.Match[str], column: int) -> None:
        info = (match.group(2) or match.group(4) or "").strip()
        language = re.split(r"[\s,{}]", info.lstrip("{."), maxsplit=1)[0]
        self._fence = _Fence(match.group(1) or match.group(3), column, language)
        if not _LANGUAGE.fullmatch(info):  # small models put code there, which must not vanish
            self._lines.append(info)

    def _code_line(self, line: str, done: list[Block]) -> None:
        assert self._fence is not None
        text, mark = line.strip(" \t"), self._fence.mark
        if len(text) >= len(mark) and not text.strip(mark[0]):
            self._close_fence(done)
            return
        self._lines.append(_dedent(line, self._fence.column) if self._fence.column else line)
        if len(self._lines) >= CODE_LINES:
            self._commit_code(done)

    def _close_fence(self, done: list[Block]) -> None:
        if self._fence is not None:
            if self._lines or self._fence.joint is None:
                self._commit_code(done)
            self._fence = None

    def _commit_code(self, done: list[Block]) -> None:
        fence = self._fence
        assert fence is not None
        code, context = "\n".join(self._lines), "\n".join(fence.context)
        self._emit(Block("code", code, language=fence.language, context=context, joint=fence.joint), done)
        fence.context = [*fence.context, *self._lines][-CODE_CONTEXT:]
        fence.joint = "\n"
        self._lines, self._size = [], 0

    # The open block.

    def _start(self, kind: _Kind, column: int, done: list[Block]) -> None:
        """Ends the open block and opens one at this column of the source."""
        self._commit(done)
        self._lists.leave(column)
        self._indent = self._lists.indent
        self._kind = kind

    def _commit(self, done: list[Block]) -> None:
        """Ends the open block, if there is one."""
        if self._lines and not (self._again and len(self._lines) == 2):
            kind: Literal["code", "inline", "markdown"] = "code" if self._kind == "code" else "markdown"
            if self._inline:
                kind = "inline"
            lines = widened(self._lines) if self._kind == "table" else self._lines
            self._emit(Block(kind, "\n".join(lines), marker=self._marker), done)
        self._kind, self._lines, self._typed, self._size = "", [], [], 0
        self._marker, self._inline, self._again = "", False, False

    def _emit(self, block: Block, done: list[Block]) -> None:
        done.append(replace(block, indent=self._indent, gap=self._gap))
        self._gap = False


def _column(line: str) -> int:
    """The column at which the text of a line starts."""
    return len(line[: len(line) - len(line.lstrip(" \t"))].expandtabs(4))


def _dedent(line: str, columns: int) -> str:
    """`line` without up to `columns` columns of indentation."""
    text = line.lstrip(" \t")
    return " " * max(0, _column(line) - columns) + text
