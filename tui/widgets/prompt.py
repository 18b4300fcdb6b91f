"""Where the user types: grows with the text, sends on Enter, remembers what was sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from textual import events, on
from textual.filter import LineFilter
from textual.message import Message
from textual.timer import Timer
from textual.widgets import TextArea
from textual.widgets.text_area import Selection

from core.text.sanitize import sanitize
from tui.commands import BY_ID, bindings
from tui.compat import later, paint_now
from tui.glyphs import literal
from tui.keys import keys_of
from tui.widgets.completion import CompletionList

_HISTORY = ("history_back", "history_on")
# Where the user's keymap moves an action of ours off a key, Textual takes the editor's own binding with it.
_WITHIN = {"up": "action_cursor_up", "down": "action_cursor_down"}

_PASTE_S = 0.03  # an Enter followed by more input within this time was pasted, not pressed


class Prompt(TextArea):
    """A text area that sends.

    Keys of scope "prompt" come from the actions' table; the editor's own keep their meaning.
    """

    BINDINGS = bindings("prompt")

    class Sent(Message):
        """The user sent this text."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    class EndPressed(Message):
        """End was pressed where the cursor could go no further."""

    def __init__(self, placeholder: str, id: str) -> None:
        super().__init__(
            id=id, compact=True, highlight_cursor_line=False, placeholder=placeholder, show_line_numbers=False
        )
        # A blinking cursor repaints twice a second for ever.
        self.cursor_blink = False
        self._history: list[str] = []
        self._position = 0  # in the history; its length stands for the draft
        self._draft = ""
        self._enter: Timer | None = None
        self.completion: CompletionList | None = None
        """The list of what a command could become; None where no commands are typed."""

    def get_line_filters(self) -> Sequence[LineFilter]:
        """What the user writes is drawn as it is, whatever becomes of our own characters."""
        filters = super().get_line_filters()
        return literal(filters) if self.text else filters

    @on(TextArea.Changed)
    @on(TextArea.SelectionChanged)
    def _paint(self) -> None:
        """Have a key seen at once, whatever else is painted."""
        paint_now(self.screen, self)

    def replace_text(self, text: str) -> None:
        """Put `text` in, with the cursor at its end. It may come from a database or from another program."""
        self.text = sanitize(text)
        self.move_cursor(self.document.end)

    def remember(self, text: str) -> None:
        """Add a sent text to the history."""
        if not self._history or self._history[-1] != text:
            self._history.append(text)
        self._position = len(self._history)

    def remember_earlier(self, texts: Iterable[str]) -> None:
        """Add texts of earlier sessions before the history of this one, oldest first."""
        known = set(self._history)
        earlier = [text for text in texts if text not in known]
        self._history[:0] = earlier
        self._position += len(earlier)

    @property
    def enter_pending(self) -> bool:
        """True for the moment in which an Enter may yet turn out to be part of a paste."""
        return self._enter is not None

    # --- Enter ----------------------------------------------------------------------------------

    async def _on_key(self, event: events.Key) -> None:
        """Enter and the keys for a new line, in the order in which they were typed.

        As bindings they would run past characters that still wait in this widget's queue.
        """
        if self._enter is not None:  # more input came: the Enter before was part of a paste
            self._enter.stop()
            self._enter = None
            self.action_newline()
        if event.key in keys_of(BY_ID["send"]):
            event.stop()
            event.prevent_default()
            self.action_send()
        elif event.key in keys_of(BY_ID["newline"]):
            event.stop()
            event.prevent_default()
            self.action_newline()
        elif event.key in keys_of(BY_ID["complete"]) and self._list is not None:
            event.stop()
            event.prevent_default()
            self.action_complete()
        elif event.key in _WITHIN and not any(event.key in keys_of(BY_ID[id]) for id in _HISTORY):
            event.stop()
            getattr(self, _WITHIN[event.key])()
        else:
            await super()._on_key(event)

    def action_send(self) -> None:
        """Send, unless more input follows at once."""
        self._enter = later(self, _PASTE_S, self._send)

    def action_newline(self) -> None:
        """A new line in place of what is selected."""
        self.replace("\n", *self.selection, maintain_selection_offset=False)

    def _send(self) -> None:
        self._enter = None
        completed = None if self._list is None else self._list.instead_of_sending()
        if completed is not None:
            self.replace_text(completed)
        else:
            self.post_message(self.Sent(self.text))

    def undo(self) -> None:
        """As Textual's; it puts the cursor where the text was changed."""
        self._from_the_start(super().undo)

    def redo(self) -> None:
        """The same for what was undone."""
        self._from_the_start(super().redo)

    def _from_the_start(self, deed: Callable[[], None]) -> None:
        """Textual looks for the cursor in a text that may have lost its line, and the app ends."""
        text, selection = self.text, self.selection
        self.selection = Selection()
        deed()
        if self.text == text:
            self.selection = selection

    # --- completion -----------------------------------------------------------------------------

    @property
    def _list(self) -> CompletionList | None:
        """The list for the text as it is now, where there is something to choose."""
        if self.completion is None:
            return None
        self.completion.look(self.text)
        return self.completion if self.completion.is_open else None

    @on(TextArea.Changed)
    def _follow(self) -> None:
        if self.completion is not None:
            self.completion.look(self.text)

    def action_complete(self) -> None:
        """Take what the list has under its cursor; without a list, on to the next part of the screen."""
        if self._list is not None:
            self.replace_text(self._list.taken())
        else:
            self.screen.focus_next()

    def close_completion(self) -> bool:
        """Close the list until something else is typed; False where none is open."""
        if self._list is None:
            return False
        self._list.dismiss(self.text)
        return True

    # --- history --------------------------------------------------------------------------------

    def action_perform(self, id: str) -> None:
        """One of the prompt's keys."""
        getattr(self, f"action_{id}")()

    def action_history_back(self) -> None:
        """At the first line the text sent before; elsewhere a line up."""
        if self._list is not None:
            self._list.move(-1)
        elif self.navigator.is_first_wrapped_line(self.cursor_location) and self._position > 0:
            self._recall(self._position - 1)
        else:
            self.action_cursor_up()

    def action_history_on(self) -> None:
        """At the last line the text sent after; elsewhere a line down."""
        last = self.navigator.is_last_wrapped_line(self.cursor_location)
        if self._list is not None:
            self._list.move(1)
        elif last and self._position < len(self._history):
            self._recall(self._position + 1)
        else:
            self.action_cursor_down()

    def _recall(self, position: int) -> None:
        if self._position == len(self._history):
            self._draft = self.text
        self._position = position
        self.replace_text(self._history[position] if position < len(self._history) else self._draft)
        if self.completion is not None:  # the arrows walk on through the history
            self.completion.dismiss(self.text)

    def action_cursor_line_end(self, select: bool = False) -> None:
        """To the end of the line; from the end of the text, on to the end of the conversation."""
        if not select and self.cursor_at_end_of_text:
            self.post_message(self.EndPressed())
        else:
            super().action_cursor_line_end(select)
