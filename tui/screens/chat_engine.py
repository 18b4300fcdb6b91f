"""The chat screen's engine: what it holds in memory, how far it is, and the memory given back."""

from __future__ import annotations

from textual import on

from tui import messages
from tui.figures import cache_words
from tui.keys import key_word
from tui.screens.chat_saved import ChatSaved
from tui.widgets.header import Header


class ChatEngine(ChatSaved):
    """Asks the engine, and tells what it says."""

    # --- the KV cache -----------------------------------------------------------------------------

    def action_cache(self) -> None:
        """What the KV cache holds."""
        if self._is_loaded():
            self.session.read_cache()
            if self.session.busy:
                self.flash("what the cache holds comes when the reply has ended")

    @on(messages.CacheTold)
    def _cache_told(self, message: messages.CacheTold) -> None:
        self.note(cache_words(message.event))

    # --- how far it is ----------------------------------------------------------------------------

    def action_progress(self) -> None:
        """How far the load or the reply is, to be read again later."""
        self.note(self.session.state())

    # --- the model's memory -----------------------------------------------------------------------

    def action_unload(self) -> None:
        """Give the model's memory back."""
        if self.session.busy:
            self.flash(f"a reply is still running; stop it first ({key_word('back')})", "warning")
        elif self._is_loaded():
            self.session.unload()

    @on(messages.ModelUnloaded)
    def _model_unloaded(self) -> None:
        self.session.unloaded()
        self.query_one("#header", Header).unloaded()
        self._placement_changed()
        self._show_now()

    def _is_loaded(self) -> bool:
        """Whether there is a model; says why not."""
        if self.session.model is not None:
            return True
        self.flash(
            "the model is unloaded" if self.session.asleep else "the model is still loading", "warning"
        )
        return False
