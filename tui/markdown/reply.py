"""A reply as blocks: the reasoning that it may begin with, then its answer, each Markdown by itself."""

from __future__ import annotations

from dataclasses import replace

from tui.markdown.blocks import Block, Thought
from tui.markdown.reasoning import Part, ReasoningParser
from tui.markdown.splitter import Splitter


class ReplySplitter:
    """Blocks of a reply. Those of the reasoning are `aside`, and come first."""

    def __init__(self) -> None:
        self._parser = ReasoningParser()
        self._reasoning: Splitter | None = None
        self._answer = Splitter()
        self._answered = False

    @property
    def thought(self) -> Thought | None:
        """What is known of the reasoning; None where there is none."""
        lines = self._parser.lines
        return Thought(lines, self._parser.over) if lines else None

    def feed(self, text: str) -> list[Block]:
        """Takes more text; the blocks that it finished."""
        done: list[Block] = []
        for part in self._parser.feed(text):
            self._take(part, done)
        if self._parser.over:
            self._end_reasoning(done)
        return done

    def close(self) -> list[Block]:
        """Ends the text; the blocks that were still open."""
        done: list[Block] = []
        for part in self._parser.close():
            self._take(part, done)
        self._end_reasoning(done)
        self._add(self._answer.close(), done)
        return done

    @property
    def tail(self) -> Block:
        """The open end, as it was typed."""
        if self._reasoning is not None:
            return replace(self._reasoning.tail, aside=True)
        tail = self._answer.tail
        return tail if self._answered else self._first(tail)

    def _take(self, part: Part, done: list[Block]) -> None:
        if part.reasoning:
            if self._reasoning is None:
                self._reasoning = Splitter()
            done += [replace(block, aside=True) for block in self._reasoning.feed(part.text)]
        else:
            self._end_reasoning(done)
            self._add(self._answer.feed(part.text), done)

    def _end_reasoning(self, done: list[Block]) -> None:
        if self._reasoning is not None:
            done += [replace(block, aside=True) for block in self._reasoning.close()]
            self._reasoning = None

    def _add(self, blocks: list[Block], done: list[Block]) -> None:
        for block in blocks:
            done.append(block if self._answered else self._first(block))
            self._answered = True

    def _first(self, block: Block) -> Block:
        """The first block of the answer, set apart from any reasoning before it."""
        return replace(block, gap=True) if self._parser.lines else block
