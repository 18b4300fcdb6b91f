"""One message or note of a conversation: its text as pieces, laid out one by one when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tui.markdown.blocks import Block, BlockSource, Thought, printable
from tui.markdown.lines import Prefix, Row
from tui.markdown.offsets import Offsets
from tui.markdown.pieces import Fold, Frame, Piece, rows_about

_FIRST_WORDS = 200
"""Characters of a folded message that are looked at to show how it begins."""


class Section:
    """A message or a note.

    Text is kept as it came and divided into blocks when the section is first looked at, so adding a
    long history costs little. `serial` orders the sections of a conversation; it is never used twice.
    Notes have no `key`. A message can be folded, or only its reasoning; what is hidden stays laid out.
    """

    def __init__(
        self,
        serial: int,
        source: BlockSource,
        label: Prefix = (),
        gap: bool = True,
        key: int | None = None,
    ) -> None:
        self.serial = serial
        self.key = key
        self.gap = gap
        self.pieces: list[Piece] = []
        self._source = source
        self.label = label
        self._texts: list[str] = []
        self._fed = 0  # how many of `_texts` the source has
        self._waiting = 0  # characters that it does not have
        self._waiting_lines = 0
        self._ends: Sequence[Block] | None = None  # what follows the text, once that is complete
        self._open = True
        self._tail = False  # the last piece is the open end
        self._offsets = Offsets()
        self._reasoning: Fold | None = None  # the row above the reasoning
        self._reasoning_open: bool | None = None  # None until someone said so: open until it is over
        self._summary: Fold | None = None  # all that is shown of a folded message; the last piece

    @property
    def text(self) -> str:
        """The whole text as it was given."""
        return "".join(self._texts)

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._ends is not None

    def append(self, text: str) -> None:
        """Adds text; it shows up with the next `flush`. Raises ValueError if the text is complete."""
        if self.ended:
            raise ValueError(f"the message is complete, no place for {text!r}")
        self._texts.append(text)
        self._waiting += len(text)
        self._waiting_lines += text.count("\n")

    def end(self, *blocks: Block) -> None:
        """Completes the text, to be followed by `blocks`."""
        self._ends = blocks

    def height(self, frame: Frame) -> int:
        """Height in rows, estimated where nothing is laid out yet."""
        if not self._waiting or self.folded:
            return self._offsets.total
        width = frame.width - frame.indent
        return self._offsets.total + rows_about(self._waiting, self._waiting_lines, width)

    def flush(self, frame: Frame) -> bool:
        """Divides the text that was added into pieces. False if there was none."""
        if not self._open or (self._fed == len(self._texts) and not self.ended and self.pieces):
            return False
        blocks = self._source.feed(printable("".join(self._texts[self._fed :])))
        self._fed, self._waiting, self._waiting_lines = len(self._texts), 0, 0
        if self.ended:
            blocks += self._source.close()
            self._open = False
        if self._summary is not None:
            self._pop()
        old = self._pop_tail()
        for block in blocks:
            self._add(block, frame)
        tail = Block("plain", "") if self.ended else self._source.tail
        if tail.source.strip() or (self.label and not self.pieces):
            self._add(tail if tail.source.strip() else Block("plain", ""), frame)
            self._tail = not self.ended
            if self._tail and old is not None and old.rows is not None and not blocks:
                self._lay_out(len(self.pieces) - 1, frame, old.rows)
        for block in self._ends or ():
            self._add(block, frame)
        if self._summary is not None:
            self._append(self._summary)
        self._show_folds(frame)
        return True

    def measure(self, first: int, last: int, frame: Frame, near: set[Piece]) -> bool:
        """Lays out the pieces in rows `first` to `last` and adds them to `near`. False if all were."""
        changed = self.flush(frame)
        index = self._offsets.find(first)
        top = self._offsets.start(index)
        while index < len(self.pieces) and top < last:
            piece = self.pieces[index]
            if not piece.hidden:
                if piece.rows is None:
                    self._lay_out(index, frame)
                    changed = True
                near.add(piece)
                top += piece.height
            index += 1
        return changed

    def reframe(self, frame: Frame, same_indents: bool) -> None:
        """Drops all rows because the frame changed."""
        for piece in self.pieces:
            piece.reframe(frame, same_indents)
        self._stack()

    # --- where things are -------------------------------------------------------------------------

    def find(self, row: int) -> tuple[int, int]:
        """Index of the piece at this row of the section, and the row inside it."""
        index = self._offsets.find(row)
        return index, row - self._offsets.start(index)

    def start(self, index: int) -> int:
        """The row of the section at which a piece begins."""
        return self._offsets.start(index)

    @property
    def first_shown(self) -> int:
        """Index of the first piece of which anything is shown; 0 where that is not known yet."""
        return next((index for index, piece in enumerate(self.pieces) if not piece.hidden), 0)

    def rows(self, top: int) -> Iterator[tuple[int, Row]]:
        """The rows from `top` on, as far as they are laid out, each with the index of its piece."""
        start, skipped = self.find(top)
        for index in range(start, len(self.pieces)):
            piece = self.pieces[index]
            if not piece.hidden:
                for row in (piece.rows or ())[skipped:]:
                    yield index, row
            skipped = 0

    # --- folding ----------------------------------------------------------------------------------

    @property
    def folded(self) -> bool:
        """Whether one row stands for the whole message."""
        return self._summary is not None

    @property
    def reasoning_open(self) -> bool | None:
        """Whether the reasoning is shown; None where there is none, or the text is not divided yet."""
        thought = self._source.thought
        if self._reasoning is None or thought is None:
            return None
        return not thought.over if self._reasoning_open is None else self._reasoning_open

    def fold(self, frame: Frame, folded: bool) -> None:
        """Has one row stand for the message, or shows it again. Nothing is wrapped anew."""
        if folded == self.folded:
            return
        if folded:
            self._summary = Fold(Block("plain", ""), frame, self.label, self.gap)
            self._append(self._summary)
        else:
            self._pop()
            self._summary = None
        self._hide()
        self._show_folds(frame)

    def open_reasoning(self, frame: Frame, shown: bool | None) -> None:
        """Shows the reasoning or hides it, and stays with that; None: as it is by itself."""
        self._reasoning_open = shown
        self._show_folds(frame)

    def keep_reasoning(self) -> None:
        """Leaves the reasoning open when it is over, if it is not yet: someone is reading it."""
        if self.reasoning_open:
            self._reasoning_open = True

    def _show_folds(self, frame: Frame) -> None:
        """Has the rows that say what is folded say what is true now, and hides what is."""
        thought, shown = self._source.thought, self.reasoning_open
        if self._reasoning is not None and thought is not None:
            if any(piece.block.aside and piece.hidden == shown for piece in self._first_aside()):
                self._hide()
            self._say(0, _reasoning_words(thought, shown=bool(shown)))
        if self._summary is not None:
            self._say(len(self.pieces) - 1, self._summary_words())

    def _summary_words(self) -> str:
        answer = [one for one in self.pieces if not (one.block.aside or isinstance(one, Fold))]
        texts = filter(str.strip, (piece.block.source for piece in answer))
        words = " ".join(next(texts, self.text)[:_FIRST_WORDS].split())
        return f"▸ {_lines(self.text.strip().count(chr(10)) + 1)} · {printable(words)}"

    def _first_aside(self) -> Sequence[Piece]:
        return () if self.folded else self.pieces[1:2]

    def _say(self, index: int, words: str) -> None:
        fold = self.pieces[index]
        assert isinstance(fold, Fold)
        fold.say(words)

    def _hides(self, piece: Piece) -> bool:
        if self.folded:
            return piece is not self._summary
        return piece.block.aside and self.reasoning_open is False

    def _hide(self) -> None:
        for piece in self.pieces:
            piece.hidden = self._hides(piece)
        self._stack()

    # --- pieces -----------------------------------------------------------------------------------

    def _add(self, block: Block, frame: Frame) -> None:
        if block.aside and self._reasoning is None:
            self._reasoning = Fold(Block("plain", ""), frame, self.label, self.gap)
            self._append(self._reasoning)
        first = not self.pieces
        gap = self.gap if first else block.gap and self.pieces[-1] is not self._reasoning
        self._append(Piece(block, frame, self.label if first else (), gap))

    def _append(self, piece: Piece) -> None:
        piece.hidden = self._hides(piece)
        self.pieces.append(piece)
        self._offsets.append(piece.shown)

    def _pop(self) -> Piece:
        self._offsets.truncate(len(self.pieces) - 1)
        return self.pieces.pop()

    def _pop_tail(self) -> Piece | None:
        if not self._tail:
            return None
        self._tail = False
        return self._pop()

    def _lay_out(self, index: int, frame: Frame, reuse: Sequence[Row] = ()) -> None:
        piece = self.pieces[index]
        piece.lay_out(frame, reuse)
        self._offsets.set(index, piece.shown)

    def _stack(self) -> None:
        self._offsets = Offsets(piece.shown for piece in self.pieces)


def _reasoning_words(thought: Thought, *, shown: bool) -> str:
    sign = "▾" if shown else "▸"
    return f"{sign} {'thought for' if thought.over else 'thinking,'} {_lines(thought.lines)}"


def _lines(count: int) -> str:
    return f"{count} line" if count == 1 else f"{count} lines"
