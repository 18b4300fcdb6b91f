"""Where the keys of the messages act."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.containers import Vertical
from textual.message import Message

from tui.commands import Scope
from tui.keys import action_of
from tui.widgets.transcript import Transcript


class MessageKeys(Vertical):
    """Around a transcript: takes the keys that are pressed there, in the order in which they were.

    While a message is marked they are those of the messages. As bindings they would run past letters that
    still wait: who types "/redo" there does not mean the r.
    """

    PLACE: ClassVar[Scope] = "transcript"

    class Typed(Message):
        """A letter that is no key of the messages or came when none was marked; or what was pasted."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    async def on_key(self, event: events.Key) -> None:
        """Do what the key says, or pass on what was typed."""
        transcript = self.query_one(Transcript)
        walking = transcript.current is not None and self.screen.focused is transcript
        action = action_of("transcript", event.key) if walking else None
        if action is not None:
            event.stop()
            await self.screen.run_action(f"perform('{action.id}')")
        elif event.is_printable and event.character:
            event.stop()
            transcript.unmark()  # at once: the next letter may wait already
            self.post_message(self.Typed(event.character))

    def on_paste(self, event: events.Paste) -> None:
        """Pass on what is pasted."""
        event.stop()
        self.query_one(Transcript).unmark()
        self.post_message(self.Typed(event.text))
