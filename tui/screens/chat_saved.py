"""The chat screen's conversations: a new one, a saved one, their titles and files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual import on

from core.engine.events import Notice
from core.errors import UserError
from core.history.records import Chat
from core.history.title import clean_title
from core.options import BY_KEY
from core.text.sanitize import sanitize
from tui import messages
from tui.chat_session import ChatSession
from tui.conversation import Exchange
from tui.export import write
from tui.history_thread import HistoryThread
from tui.screens.chat_placement import ChatPlacement
from tui.screens.chats import ChatsScreen, Deleted
from tui.screens.text_dialog import rename_dialog
from tui.widgets.header import Header

if TYPE_CHECKING:
    from core.history.store import History

_RECALLED = 200  # messages of earlier chats
_LEAVING_S = 1.0  # for what is still to be written when the app ends


class ChatSaved(ChatPlacement):
    """Goes from conversation to conversation. Without a history nothing is saved, and every deed says so."""

    _editing: Exchange | None = None
    """The exchange whose message is in the prompt again."""

    def __init__(
        self,
        session: ChatSession,
        model_name: str,
        notes: tuple[str, ...] = (),
        *,
        history: History | None = None,
        chat: Chat | None = None,
    ) -> None:
        super().__init__(session, model_name, notes)
        self._history = None if history is None else HistoryThread(history)
        if history is not None:
            history.tell(self._history_said)
        self._at_start = chat
        self._deleted: list[Deleted] = []

    def on_mount(self) -> None:
        """Open the chat that was asked for; the settings at start come from there already."""
        if self._at_start is not None:
            self.call_next(self._open, self._at_start)
        if self._history is not None:
            self.call_after_refresh(self._recall, self._history)

    def _recall(self, history: HistoryThread) -> None:
        self.run_worker(self._recalled(history), group="recall")

    async def _recalled(self, history: HistoryThread) -> None:
        """What was said in earlier chats comes back at the prompt, like what is said in this one."""
        try:
            said = await history.read(lambda saved: saved.said(_RECALLED))
        except UserError as error:
            self.note(f"messages of earlier chats are not at hand: {error}", "warning")
        else:
            self.prompt.remember_earlier(sanitize(text) for text in reversed(said))

    def on_unmount(self) -> None:
        """Finish what is to be written."""
        if self._history is not None:
            self._history.close(_LEAVING_S)

    def _history_said(self, text: str) -> None:
        """A line of the database's, from its thread."""
        self.post_message(messages.Noticed(Notice(text, "warning")))

    # --- from one to another ----------------------------------------------------------------------

    def action_new_chat(self) -> None:
        """An empty conversation."""
        self._editing = None
        self.session.new_chat()
        self.transcript.clear()
        self.remove_class("-new-text")
        self._show_now()
        self._show_title()
        self.flash("new chat")

    def _open(self, chat: Chat) -> bool:
        """Go on with a saved conversation; False where that cannot be."""
        try:
            self.session.open(chat)
        except ValueError as error:
            self.flash(f"this chat is damaged and cannot be opened: {error}", "error")
            return False
        self._editing = None
        for exchange in self.session.conversation.exchanges:
            self.prompt.remember(exchange.user)
        self.remove_class("-new-text")
        self.status.end_flash()
        self.show_conversation()
        self._show_title()
        return True

    @on(messages.ChatSaved)
    def _chat_saved(self, message: messages.ChatSaved) -> None:
        if self.session.saved(message.event):
            self._show_title()

    def _show_title(self) -> None:
        self.query_one("#header", Header).talk(self.session.title)

    # --- the list -------------------------------------------------------------------------------

    def action_chats(self, words: str) -> None:
        """The list of saved conversations, with a search in it where there are words."""
        history = self._require_history()
        if any(isinstance(screen, ChatsScreen) for screen in self.app.screen_stack):
            return
        screen = ChatsScreen(history, self, opened=self.session.chat, words=words, deleted=self._deleted)
        self.app.push_screen(screen, self._chosen)

    def _chosen(self, chat: Chat | None) -> None:
        if chat is None or not self._open(chat):
            return
        settings = self.session.settings
        if any(saved.settings for saved in chat.messages) and settings.values["system"] != chat.system:
            settings.set(BY_KEY["system"], chat.system)
            self._configured()

    def chat_renamed(self, chat: int, title: str) -> None:
        """Show the title, if it is that of the open conversation."""
        if chat == self.session.chat:
            self.session.title = title
            self._show_title()

    def chat_deleted(self, chat: int) -> None:
        """What was deleted cannot go on here."""
        if chat == self.session.chat:
            self.action_new_chat()

    # --- the one that is open ---------------------------------------------------------------------

    def action_rename(self, title: str) -> None:
        """`/rename TITLE`; alone it opens the present one. Raises UserError where nothing is saved."""
        history, chat = self._require_history(), self._require_chat()

        def done(title: str | None) -> None:
            if title is not None:
                self.run_worker(self._rename(history, chat, title))

        if title:
            done(title)
        else:
            self.app.push_screen(rename_dialog(self.session.title), done)

    async def _rename(self, history: HistoryThread, chat: int, title: str) -> None:
        try:
            await history.write(lambda saved: saved.rename(chat, title))
        except UserError as error:
            self.flash(str(error), "error")
        except KeyError:
            self._say_gone()
        else:
            self.chat_renamed(chat, clean_title(title))
            self.flash(f"this chat is now called {clean_title(title)}")

    def action_export(self, file: str) -> None:
        """`/export FILE`; alone it makes a name. Raises UserError where nothing is saved."""
        self.run_worker(self._export(self._require_history(), self._require_chat(), file))

    async def _export(self, history: HistoryThread, chat: int, file: str) -> None:
        try:
            path = await history.write(lambda saved: write(saved.load(chat), file))
        except UserError as error:
            self.flash(str(error), "error")
        except KeyError:
            self._say_gone()
        else:
            self.flash(f"written to {path.absolute()}")

    def _say_gone(self) -> None:
        self.flash("this chat is not in the history any more", "error")

    def _require_history(self) -> HistoryThread:
        if self._history is None:
            raise UserError("the history is switched off in this session (--no-history)")
        return self._history

    def _require_chat(self) -> int:
        if self.session.chat is None:
            raise UserError("this chat is not saved yet; its first message saves it")
        return self.session.chat
