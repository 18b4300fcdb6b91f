"""The one place where engine events become Textual messages."""

from __future__ import annotations

from textual.message_pump import MessagePump

from core.engine.events import Event
from tui.messages import MESSAGE_OF


class Bridge:
    """A backend's sink: hands events over to `target` from whatever thread they come on.

    Never blocks and never raises: an engine that still talks while the app leaves, or after it has
    left, talks to nobody.
    """

    def __init__(self, target: MessagePump) -> None:
        self._target = target

    def __call__(self, event: Event) -> None:
        """Queue `event` for the target, if the screen has any use for it."""
        message = MESSAGE_OF.get(type(event))
        if message is None:
            return
        try:
            self._target.post_message(message(event))
        except RuntimeError:  # the event loop is closed, or the target has left the app
            return
