"""The chat screen's deeds: what every action of scope "chat" does."""

from __future__ import annotations

import inspect

from textual import on

from core.errors import UserError
from tui.chat_session import Replacement
from tui.commands import BY_ID, Action, Assign, Call, Need, bindings, read_line
from tui.conversation import Exchange
from tui.keys import key_word
from tui.needs import met
from tui.outcome import Outcome
from tui.screens.chat_find import ChatFind
from tui.terminal import TerminalUnavailable, edit_in_editor, show_in_pager
from tui.widgets.message_keys import MessageKeys
from tui.widgets.plain import plain
from tui.widgets.prompt import Prompt
from tui.widgets.sidebar_row import SidebarRow

_TWICE_S = 1.0
_OFFERED_S = 5.0  # as long as the offer shows


class ChatScreen(ChatFind):
    """The chat. Its keys come before those of the focused widget: the editor binds F6, F7 and ctrl+c."""

    BINDINGS = bindings("chat", priority=True)

    _interrupted = float("-inf")
    """When ctrl+c was last pressed while idle."""
    _offered = float("-inf")
    """When it was last offered to give up the load."""

    # --- from a key, a word or the palette to a deed ----------------------------------------------

    async def action_perform(self, id: str) -> None:
        """Do an action by its id; what is wrong with that is said."""
        try:
            await self.perform(BY_ID[id])
        except UserError as error:
            self.flash(str(error), "error")

    async def perform(self, action: Action, argument: str = "") -> None:
        """Do `action`, or say what it lacks. Raises UserError where it cannot be done as it is asked for."""
        missing = action.enabled
        if missing is not None and not self.has(missing):
            self.flash(str(missing), "warning")
            return
        target = self.app if action.scope == "app" else self
        method = getattr(target, f"action_{action.id}")
        result = method(argument) if action.takes_argument else method()
        if inspect.isawaitable(result):
            await result

    def has(self, need: Need) -> bool:
        """True where what an action needs is there."""
        return met(self.session, need)

    @on(Prompt.Sent)
    async def _sent(self, message: Prompt.Sent) -> None:
        text = message.text.strip("\n")
        if not text.strip():
            self._continue(asked=False)
            return
        try:
            meaning = read_line(text)
            match meaning:
                case Call(action, argument):
                    self._clear_prompt(text)
                    await self.perform(action, argument)
                case Assign():
                    self._assign(meaning)
                    self._clear_prompt(text)
                case str(words):
                    self._say(words, text)
        except UserError as error:
            self.prompt.replace_text(message.text)  # to be put right
            self.flash(str(error), "error")

    def _clear_prompt(self, sent: str) -> None:
        self.prompt.remember(sent)
        self.prompt.clear()

    def _say(self, words: str, typed: str) -> None:
        if self.session.replacing is not None:
            self.flash("one moment: the reply before is being stopped", "warning")
            return
        editing, conversation = self._editing, self.session.conversation
        if editing is not None and editing is not conversation.last and self._still_running():
            return
        self._clear_prompt(typed)
        self._editing = None
        if editing is not None and editing in conversation.exchanges:
            self.replace(Replacement(editing, words))
        else:
            self.send(words)

    @on(MessageKeys.Typed)
    def _typed_there(self, message: MessageKeys.Typed) -> None:
        """What is typed into the transcript is meant for the prompt."""
        self.prompt.focus()
        self.prompt.insert(message.text)

    # --- stopping and leaving -------------------------------------------------------------------

    def action_back(self) -> None:
        """The first that applies: what is being typed, the overlay, a selection, the focus, the reply."""
        focused = self.focused
        if isinstance(focused, SidebarRow) and focused.typed is not None:
            focused.cancel()
        elif focused is self.prompt and self.prompt.close_completion():
            return
        elif self.sidebar.has_class("-open"):
            self._leave_settings()
        elif self.finding:
            self.end_find(back=True)
        elif self.selections:
            self.clear_selection()
        elif focused is not self.prompt:
            self.set_focus(self.prompt)
        elif self.action_stop() or self._give_up_load("back"):
            return
        elif self._editing is not None:
            self._editing = None
            self.prompt.clear()
            self.flash("the message stays as it was")

    def action_stop(self) -> bool:
        """Stop the reply; once that is under way, or while the model loads, take back what waits.

        False where nothing runs.
        """
        taken = self.session.take_back()
        if taken:
            self._taken_back(taken)
            return True
        stopped = self.session.stop()
        if stopped:
            self.status.end_flash()
        self._show_now()
        return stopped

    def _taken_back(self, exchanges: list[Exchange]) -> None:
        """Messages that will not be answered go back to where they were typed."""
        for exchange in exchanges:
            if self.transcript.has(exchange.user_key):
                self.transcript.remove_from(exchange.user_key)
        where = "in the history of the prompt"
        if not self.prompt.text:
            self.prompt.replace_text("\n".join(exchange.user for exchange in exchanges))
            where = "back in the prompt"
        self._show_now()
        self.flash(f"{len(exchanges)} not sent: {where}")

    def _give_up_load(self, key: str) -> bool:
        """Offer to give up the load; the second time, do it. False where nothing is being loaded."""
        if not self.session.is_loading:
            return False
        now = self.session.clock()
        if now - self._offered <= _OFFERED_S:
            self._offered = float("-inf")
            self.session.unload()
            self.status.end_flash()
            self._show_now()
        else:
            self._offered = now
            self.flash(f"{key_word(key)} again gives up the load; {key_word('quit')} quits")
        return True

    def action_interrupt(self) -> None:
        """Copy and clear a selection; else stop the reply; else, the second time within a second, quit.

        While the model loads it offers to give that up.
        """
        selected = self.prompt.selected_text if self.focused is self.prompt else ""
        selected = selected or self.get_selected_text() or ""
        if selected:
            self.copy(selected)
            self.clear_selection()
            self.prompt.move_cursor(self.prompt.cursor_location)
        elif not self.action_stop() and not self._give_up_load("interrupt"):
            now = self.session.clock()
            if now - self._interrupted <= _TWICE_S:
                self.app.exit(Outcome())
            self._interrupted = now
            self.flash(f"{key_word('interrupt')} again quits")

    # --- the conversation -----------------------------------------------------------------------

    def action_reset(self) -> None:
        """Defaults everywhere, and a new chat."""
        self.session.settings.reset_all()
        self._configured()
        self.action_new_chat()
        self.flash("all settings are at their defaults; new chat")

    def action_regenerate(self) -> None:
        """The last message once more."""
        exchange = self._last_exchange()
        if exchange is not None:
            self.replace(Replacement(exchange, again=True))

    def action_continue(self) -> None:
        """More of a reply that was cut off."""
        self._continue(asked=True)

    def _continue(self, *, asked: bool) -> None:
        """Go on with the last reply, if it was cut off; where it was not, say so to whoever asked."""
        if self.session.busy:
            if asked:
                self.flash("a reply is still running", "warning")
            return
        if self.session.go_on():
            self.status.end_flash()
            self._present_running()
            self._show_now()
        elif asked:
            self.flash("the last reply has come to its end; send a message, or regenerate it", "warning")

    def action_previous(self) -> None:
        """The version before."""
        self._walk(-1)

    def action_next(self) -> None:
        """The version after."""
        self._walk(1)

    def _walk(self, steps: int) -> None:
        if self.session.busy:
            self.flash(f"a reply is still running; stop it first ({key_word('back')})", "warning")
            return
        self._editing = None
        where = self.session.walk(steps)
        self.show_conversation()
        self.flash(where)

    def action_edit(self) -> None:
        """The last message back into the prompt."""
        exchange = self._last_exchange()
        if exchange is not None:
            self.edit(exchange)

    def action_erase(self) -> None:
        """Drop the last exchange."""
        exchange = self._last_exchange()
        if exchange is not None:
            self.replace(Replacement(exchange))

    def _last_exchange(self) -> Exchange | None:
        """The exchange that can be replaced; says why where it cannot."""
        if self.session.conversation.queued or self.session.replacing is not None:
            self.flash(f"messages are still waiting; stop them first ({key_word('back')})", "warning")
            return None
        return self.session.conversation.last

    def action_debug(self) -> None:
        """More or fewer figures under replies to come; those of the last one at once."""
        self._debug = not self._debug
        exchange = self.session.conversation.last
        if self._debug and exchange is not None and exchange.done is not None:
            self.note(self._footer(exchange, exchange.done))
        self.flash(f"figures under replies: {'all' if self._debug else 'short'}")

    # --- scrolling ------------------------------------------------------------------------------

    def action_page_up(self) -> None:
        """Scroll the conversation up."""
        self.transcript.scroll_page_up(animate=False)

    def action_page_down(self) -> None:
        """Scroll the conversation down."""
        self.transcript.scroll_page_down(animate=False)

    @on(Prompt.EndPressed)
    def action_follow(self) -> None:
        """To the newest text, and on with it."""
        self.transcript.follow()

    # --- other programs -------------------------------------------------------------------------

    def action_pager(self) -> None:
        """The conversation in $PAGER."""
        text = plain(self.session.conversation.as_text(self.transcript.assistant_label)).plain
        try:
            show_in_pager(self.app, text)
        except TerminalUnavailable as error:
            self.flash(str(error), "error")

    def action_editor(self) -> None:
        """The prompt in an editor of the user's."""
        try:
            self.prompt.replace_text(edit_in_editor(self.app, self.prompt.text))
        except TerminalUnavailable as error:
            self.flash(str(error), "error")
