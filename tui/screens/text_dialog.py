"""A text to edit, over the chat."""

from __future__ import annotations

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen

from tui.keys import key_word
from tui.widgets.plain import PlainStatic
from tui.widgets.prompt import Prompt


class TextDialog(ModalScreen[str | None]):
    """Edits a text: Enter takes it, Esc leaves it as it was (None). `empty` says what no text means."""

    def __init__(self, title: str, help: str, text: str, *, empty: str) -> None:
        super().__init__()
        self._title_shown, self._help_shown, self._text, self._empty = title, help, text, empty

    def compose(self) -> ComposeResult:
        """Title, explanation, text, keys."""
        with Vertical(id="dialog"):
            yield PlainStatic(self._title_shown, id="dialog-title")
            yield PlainStatic(self._help_shown)
            yield Prompt(self._empty, id="dialog-text")
            keys = f"{key_word('send')} takes it   {key_word('newline')} new line   Esc leaves it"
            yield PlainStatic(keys, id="dialog-keys")

    def on_mount(self) -> None:
        """Begin at the end of the text."""
        self.query_one(Prompt).replace_text(self._text)

    @on(Prompt.Sent)
    def _taken(self, message: Prompt.Sent) -> None:
        self.dismiss(message.text.strip())

    def on_key(self, event: events.Key) -> None:
        """Esc closes."""
        if event.key == "escape":
            event.stop()
            self.dismiss(None)


def rename_dialog(title: str) -> TextDialog:
    """Asks for another title."""
    return TextDialog("Rename", "What this chat is called.", title, empty="a title needs a word")
