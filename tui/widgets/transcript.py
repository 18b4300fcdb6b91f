"""The transcript: a conversation as one scrolling column."""

from __future__ import annotations

from typing import Any, Literal

from tui.markdown.blocks import Block, PlainSplitter, printable
from tui.markdown.reply import ReplySplitter
from tui.widgets.transcript_find import TranscriptFind

_NOTE_STYLES = {"info": "note", "warning": "warning", "error": "error"}


class Transcript(TranscriptFind):
    """Messages and notes. Replies are Markdown, what the user wrote is shown as it is."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.assistant_label = "llama"
        """What stands before the replies that are added from now on."""

    def add_message(
        self,
        key: int,
        role: Literal["user", "assistant"],
        text: str = "",
        *,
        streaming: bool = False,
        footer: str = "",
    ) -> None:
        """Adds a message, with a line of figures below it. With `streaming`, `append` and `finish` follow.

        KeyError if `key` is taken.
        """
        user = role == "user"
        name = "you" if user else " ".join(printable(self.assistant_label).split())
        label = ((f"{name} ▸ ", f"{role}-label"),)
        section = self._document.add(key, PlainSplitter() if user else ReplySplitter(), label)
        section.append(text)
        if not streaming:
            section.end(*_figures(footer))
        self._document.changed(self._document.index(key))
        self._settle_soon()

    def append(self, key: int, text: str) -> None:
        """Adds text to a streaming message; it is painted with the next tick."""
        index = self._document.index(key)
        self._document.sections[index].append(text)
        self._document.changed(index)
        self._schedule_tick()

    def finish(self, key: int, footer: str = "") -> None:
        """Completes a streaming message and paints it at once, with a line of figures below it."""
        index = self._document.index(key)
        self._document.sections[index].end(*_figures(footer))
        self._document.changed(index)
        self._settle()

    def add_note(self, text: str, level: str = "info") -> None:
        """Adds a line that is part of no message; `level` is "info", "warning" or "error"."""
        self._document.add_note(text, _NOTE_STYLES[level])
        self._settle_soon()

    def remove_from(self, key: int) -> None:
        """Removes a message and everything after it."""
        self._document.truncate(self._document.index(key))
        self._settle_at_end()

    def remove_after(self, key: int) -> None:
        """Removes everything after a message."""
        self._document.truncate(self._document.index(key) + 1)
        self._settle_at_end()

    def clear(self) -> None:
        """Removes everything."""
        self._document.truncate(0)
        self.follow()

    def has(self, key: int) -> bool:
        """Whether there is a message with this key."""
        return self._document.has(key)

    def text_of(self, key: int) -> str:
        """The text of a message as it was given."""
        return self._document.sections[self._document.index(key)].text


def _figures(footer: str) -> list[Block]:
    return [Block("plain", printable(footer), style="footer")] if footer else []
