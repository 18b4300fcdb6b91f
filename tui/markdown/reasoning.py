"""Parts the reasoning that a reply begins with from its answer, before anything is taken for Markdown."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

NAMES = ("think", "thinking", "reasoning")

_TAGS = tuple(f"<{slash}{name}>" for name in NAMES for slash in ("", "/"))
_TAG = re.compile(rf"<(/?)({'|'.join(NAMES)})>", re.IGNORECASE)
_MARK = re.compile(rf"{_TAG.pattern}|`|\n", re.IGNORECASE)
_FENCE = re.compile(r"`{3,}|~{3,}")
_HEAD = 80
"""Characters at the beginning of a line that are looked at to tell whether it is a fence."""


class Part(NamedTuple):
    """Text of a reply; `reasoning` tells whether it stood between tags, which are left out."""

    reasoning: bool
    text: str


class ReasoningParser:
    """Takes a reply as it comes; where it is cut makes no difference to what it is parted into.

    Reasoning is what stands between `<think>` and `</think>`, or tags of the other names, at the very
    beginning. It may hold more of the kind; there is no reasoning further on. A tag in inline code or in
    a fence is text like any other.
    """

    def __init__(self) -> None:
        self.lines = 0
        """Lines of the reasoning so far, without empty ones at its ends."""
        self._state: Literal["start", "inside", "answer"] = "start"
        self._held = ""  # may yet turn out to be a tag
        self._nested: list[str] = []  # names of the tags that are open
        self._seen = False  # whether any were
        self._newlines = 0  # since the last line of reasoning that is not empty
        self._blank = True  # whether all of the present line is
        # Of the present line, to tell code from prose: its first characters and its backticks.
        self._head = ""
        self._ticks = 0
        self._fence = ""

    @property
    def over(self) -> bool:
        """Whether there was reasoning and it has come to its end."""
        return bool(self.lines) and self._state != "inside"

    def feed(self, text: str) -> list[Part]:
        """Takes more text; the parts of it that are certain."""
        found: list[Part] = []
        self._held += text
        while self._held and self._step(found):
            pass
        return found

    def close(self) -> list[Part]:
        """Ends the text; what was held back."""
        held, self._held = self._held, ""
        if not held:
            return []
        if self._state == "inside":
            self._count(held)
        return [Part(self._state == "inside", held)]

    def _step(self, found: list[Part]) -> bool:
        """Goes on to the next state, if there is one in what is held."""
        if self._state == "start":
            return self._begin(found)
        if self._state == "inside":
            return self._reason(found)
        text, self._held = self._held, ""
        if text:
            found.append(Part(False, text))
        return False

    def _begin(self, found: list[Part]) -> bool:
        """Reasoning, an answer, or not yet clear which."""
        text = self._held.lstrip()
        match = _TAG.match(text)
        if match is not None and not match[1]:
            if self.lines:
                self._take("\n\n", found)
            self._held = text[match.end() :]
            self._state, self._nested = "inside", [match[2].lower()]
            self._seen = True
            self._fence = ""
            self._new_line()
        elif text and not _may_become_tag(text):
            self._held = text if self._seen else self._held
            self._state = "answer"
        else:
            return False
        return True

    def _reason(self, found: list[Part]) -> bool:
        """Takes what is held up to the end of the reasoning or to what may be a tag; True at the end."""
        held, done = self._held, 0
        for match in _MARK.finditer(held):
            self._look(held[done : match.start()])
            done = match.end()
            code = match[2] is None or self._in_code()
            if code or not self._enter_or_leave(match[2].lower(), closing=bool(match[1])):
                self._look(match[0])
            elif not self._nested:
                self._take(held[: match.start()], found)
                self._held, self._state = held[done:], "start"
                return True
        rest = held[done:]
        start = rest.rfind("<")
        keep = len(rest) - start if start >= 0 and _may_become_tag(rest[start:]) else 0
        self._look(rest[: len(rest) - keep])
        self._take(held[: len(held) - keep], found)
        self._held = held[len(held) - keep :]
        return False

    def _enter_or_leave(self, name: str, *, closing: bool) -> bool:
        """Takes account of a tag; False if it closes what is not open, and is thus no tag."""
        if not closing:
            self._nested.append(name)
        elif name in self._nested:
            while self._nested.pop() != name:
                pass
        else:
            return False
        return True

    def _take(self, text: str, found: list[Part]) -> None:
        if text:
            self._count(text)
            found.append(Part(True, text))

    def _count(self, text: str) -> None:
        for index, line in enumerate(text.split("\n")):
            if index:
                self._newlines += bool(self.lines)
                self._blank = True
            if self._blank and line.strip():
                self._blank = False
                self.lines += max(1, self._newlines)
                self._newlines = 0

    # Lines, as far as they tell code from prose.

    def _look(self, text: str) -> None:
        if text == "\n":
            self._end_line()
        else:
            self._ticks += text == "`"
            self._head += text[: _HEAD - len(self._head)]

    def _end_line(self) -> None:
        if self._closes_fence():
            self._fence = ""
        elif not self._fence and (opening := _FENCE.match(self._head.lstrip())):
            self._fence = opening[0]
        self._new_line()

    def _new_line(self) -> None:
        self._head, self._ticks = "", 0

    def _in_code(self) -> bool:
        if self._fence:
            return not self._closes_fence()
        return self._ticks % 2 == 1 or _FENCE.match(self._head.lstrip()) is not None

    def _closes_fence(self) -> bool:
        line, mark = self._head.strip(), self._fence
        return bool(mark) and len(line) >= len(mark) and not line.strip(mark[0])


def _may_become_tag(text: str) -> bool:
    return any(tag.startswith(text.lower()) for tag in _TAGS)
