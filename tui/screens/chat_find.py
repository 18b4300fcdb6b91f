"""The chat screen's search: words that are found in the conversation as they are typed."""

from __future__ import annotations

from textual import on
from textual.widget import Widget

from tui.screens.chat_transcript import ChatTranscript
from tui.widgets.find_line import FindLine

_KEYS = (("find_next",), ("find_previous",))
_CLASS = "-finding"


class ChatFind(ChatTranscript):
    """Finds words in the chat, in a line of its own above the prompt."""

    _before_find: Widget | None = None
    """What had the focus."""
    _words: str | None = None
    """What was searched for last."""

    @property
    def finding(self) -> bool:
        """Whether the line is open."""
        return self.has_class(_CLASS)

    @property
    def _find_line(self) -> FindLine:
        return self.query_one("#find", FindLine)

    def _local_keys(self) -> tuple[tuple[str, ...], ...] | None:
        return _KEYS if self._typing_words else super()._local_keys()

    @property
    def _typing_words(self) -> bool:
        return self.finding and self.focused is self._find_line.input

    # --- what is done -----------------------------------------------------------------------------

    def action_find(self, words: str) -> None:
        """Open the line, with these words in it or those of the last time, and go to the first find."""
        line = self._find_line
        if not self.finding:
            self._before_find = self.focused
            self.add_class(_CLASS)
        if words:
            line.input.value = words
        line.input.focus()
        line.input.select_all()
        self._words = None
        self._search(line.input.value)

    @on(FindLine.Typed)
    def _typed_words(self) -> None:
        if self.finding:
            self._search(self._find_line.input.value)  # more may have been typed since

    def _search(self, words: str) -> None:
        if words != self._words:
            self._words = words
            self._find_line.show(*self.transcript.find(words))

    def action_find_next(self) -> None:
        """The next find."""
        self._step_find(1)

    def action_find_previous(self) -> None:
        """The find before."""
        self._step_find(-1)

    def _step_find(self, steps: int) -> None:
        self._search(self._find_line.input.value)  # which may have been typed this moment
        self._find_line.show(*self.transcript.step_find(steps))

    def end_find(self, *, back: bool) -> None:
        """Close the line; with `back`, to where one was."""
        self.remove_class(_CLASS)
        self.transcript.end_find(back=back)
        before, self._before_find = self._before_find, None
        if before is not None and before.is_attached:
            self.set_focus(before)
        else:
            self.set_focus(self.prompt)

    def action_messages(self) -> None:
        """From a find, to the message that it is in."""
        found = self.transcript.found_in if self.finding else None
        if self.finding:
            self.end_find(back=False)
        if found is None:
            super().action_messages()
        else:
            self.transcript.mark(found)
            self._walk_on()
