"""The chat screen's messages: walked over by keys, copied, sent again in other words, answered again."""

from __future__ import annotations

from tui import clipboard
from tui.chat_session import Replacement
from tui.commands import Need
from tui.conversation import Exchange
from tui.keys import key_word
from tui.screens.chat_engine import ChatEngine
from tui.widgets.sidebar_row import SidebarRow
from tui.widgets.transcript import Transcript

_KEYS = (
    *(("message_up", "message_down"), ("copy_message",), ("code_block",), ("edit_message",)),
    *(("regenerate_message",), ("sibling_before", "sibling_after"), ("fold",)),
)


class ChatTranscript(ChatEngine):
    """Transcript mode: the transcript has the focus and a message is marked, which the keys act on."""

    @property
    def walking(self) -> bool:
        """Whether transcript mode is on."""
        return isinstance(self.focused, Transcript) and self.transcript.current is not None

    def _local_keys(self) -> tuple[tuple[str, ...], ...] | None:
        return _KEYS if self.walking else super()._local_keys()

    def on_descendant_focus(self) -> None:
        """Transcript mode ends where the prompt has the focus, or a setting."""
        if self.focused is self.prompt or isinstance(self.focused, SidebarRow):
            self.transcript.unmark()

    # --- walking --------------------------------------------------------------------------------

    def action_messages(self) -> None:
        """To the messages, from the last in view on; there, to the one above."""
        if isinstance(self.focused, SidebarRow):
            self.focus_previous(SidebarRow)  # shift+tab there
        elif self.walking:
            self.transcript.step(-1)
        elif self.transcript.mark_last_in_view():
            self._walk_on()
        else:
            self.flash(str(Need.EXCHANGE), "warning")

    def _walk_on(self) -> None:
        """Have the keys act on the message that is marked."""
        self.set_focus(self.transcript)
        self._paint_status()

    def action_message_up(self) -> None:
        """To the message above."""
        self.transcript.step(-1)

    def action_message_down(self) -> None:
        """To the message below."""
        self.transcript.step(1)

    def action_code_block(self) -> None:
        """To the next block of code in the message."""
        at = self.transcript.step_code()
        if at is None:
            self.flash("there is no block of code in this message", "warning")
        else:
            self.flash(f"block of code {at[0]} of {at[1]} · {key_word('copy_message')} copies it")

    def action_fold(self) -> None:
        """Fold the message, or show more of it."""
        self.transcript.toggle()

    # --- what is done with a message ----------------------------------------------------------------

    def action_copy_message(self) -> None:
        """The message to the clipboard, or the block of code."""
        transcript, code = self.transcript, self.transcript.code
        if code is not None:
            self.copy(code, "the block of code, ")
        elif transcript.current is not None:
            self.copy(transcript.text_of(transcript.current), "the message, ")

    def action_edit_message(self) -> None:
        """The message into the prompt; of a reply, what was replied to."""
        exchange = self._exchange_to_replace()
        if exchange is not None:
            self.edit(exchange)

    def action_regenerate_message(self) -> None:
        """The message answered again."""
        exchange = self._exchange_to_replace()
        if exchange is not None:
            self._editing = None
            self.replace(Replacement(exchange, again=True))
            self.set_focus(self.prompt)

    def action_sibling_before(self) -> None:
        """The version of the message before."""
        self._walk_versions(-1)

    def action_sibling_after(self) -> None:
        """The version of the message after."""
        self._walk_versions(1)

    def _walk_versions(self, steps: int) -> None:
        exchange = self._exchange()
        if exchange is None or self._still_running():
            return
        key, conversation = self.transcript.current, self.session.conversation
        is_reply, head = key == exchange.reply_key, conversation.tree.head
        at, id = conversation.exchanges.index(exchange), exchange.reply_id if is_reply else exchange.user_id
        where = self.session.walk(steps, id) if id is not None else "there is only one version"
        if conversation.tree.head != head:
            self._editing = None
            self.show_conversation()
            there = conversation.exchanges[at]
            self.transcript.mark(there.reply_key if is_reply else there.user_key)
        self.flash(where)

    def _exchange(self) -> Exchange | None:
        """The exchange whose message or reply is marked."""
        key, exchanges = self.transcript.current, self.session.conversation.exchanges
        return next((one for one in exchanges if key in (one.user_key, one.reply_key)), None)

    def _exchange_to_replace(self) -> Exchange | None:
        """That exchange, if something else can be in its place; says why where it cannot."""
        exchange, conversation = self._exchange(), self.session.conversation
        if exchange is None:
            return None
        if self.session.replacing is not None or conversation.queued:
            self.flash(f"messages are still waiting; stop them first ({key_word('back')})", "warning")
            return None
        if exchange is not conversation.running and self._still_running():
            return None
        return exchange

    def _still_running(self) -> bool:
        if self.session.busy:
            self.flash("a reply is still running; stop it first", "warning")
        return self.session.busy

    def edit(self, exchange: Exchange) -> None:
        """Have the user write another message in the place of this one."""
        self._editing = exchange
        if self.prompt.text.strip():
            self.prompt.remember(self.prompt.text)
        self.prompt.replace_text(exchange.user)
        self.set_focus(self.prompt)
        last = exchange is self.session.conversation.last
        what = "the last message and its reply" if last else "this message and all that follows it"
        take, leave = key_word("send"), key_word("back")
        self.flash(f"{take} replaces {what}, {leave} leaves them")

    # --- the clipboard ------------------------------------------------------------------------------

    def action_copy(self) -> None:
        """The last reply to the clipboard."""
        exchange = self.session.conversation.last_reply
        if exchange is not None:
            self.copy(exchange.reply, "the last reply, ")

    def copy(self, text: str, what: str = "") -> None:
        """Put `text` on the clipboard and say which way that went; `what` it is goes before its length."""
        self.run_worker(self._copy(text, what), group="clipboard", exclusive=True)

    async def _copy(self, text: str, what: str) -> None:
        way = await clipboard.copy(self.app, text)
        characters = f"{len(text)} character{'' if len(text) == 1 else 's'}"
        self.flash(f"copied {what}{characters}{',' if what else ''} {way}")
