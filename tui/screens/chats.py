"""What is done with the saved conversations: opened, renamed, deleted and brought back, exported."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

from textual import on
from textual.widgets import OptionList
from textual.worker import WorkerCancelled

from core.errors import UserError
from core.history.records import ChatRow
from core.history.title import clean_title
from tui.export import write
from tui.history_thread import HistoryThread
from tui.keys import key_word
from tui.screens.chats_view import ChatsView, Owner
from tui.screens.text_dialog import rename_dialog
from tui.widgets.chat_list import shown_title


@dataclass(frozen=True, slots=True)
class Deleted:
    """A chat that was taken off the list, and where it stood when these words were searched for."""

    row: ChatRow
    at: int
    words: str


class ChatsScreen(ChatsView):
    """Ends with the chat to open, or None.

    `deleted` are the chats that can be brought back, in the order in which they went; they outlive this
    screen.
    """

    def __init__(
        self, history: HistoryThread, owner: Owner, *, opened: int | None, words: str, deleted: list[Deleted]
    ) -> None:
        super().__init__(history, owner, opened=opened, words=words)
        self._deleted = deleted

    @on(OptionList.OptionSelected)
    def action_open_chat(self) -> None:
        """Open the chat under the cursor; of a search that still runs, the first one that it finds."""
        self.search.call_later(self._open_typed)  # behind the characters that wait in its queue

    def _open_typed(self) -> None:
        self._look_anew()
        self.run_worker(self._open(), group="open", exclusive=True)

    async def _open(self) -> None:
        if self._search is not None and self.searching:
            try:
                await self._search.wait()
            except WorkerCancelled:  # more was typed since
                return
        row = self.chats.row
        if row is None or row.id == self._opened:
            if row is not None:
                self.dismiss(None)
            return
        try:
            chat = await self._history.read(lambda history: history.load(row.id))
        except (UserError, KeyError) as error:
            self._failed(row, error)
        else:
            self.dismiss(chat)

    def action_rename_chat(self) -> None:
        """Another title for the chat under the cursor."""
        row = self.chats.row
        if row is None:
            return

        def done(title: str | None) -> None:
            if title is not None:
                self._do(self._rename(row, title))

        self.app.push_screen(rename_dialog(row.title), done)

    async def _rename(self, row: ChatRow, title: str) -> None:
        try:
            await self._history.write(lambda history: history.rename(row.id, title))
        except (UserError, KeyError) as error:
            self._failed(row, error)
            return
        shown = clean_title(title)
        self._owner.chat_renamed(row.id, shown)
        if self.is_running:
            self.chats.change(replace(row, title=shown))

    def action_delete_chat(self) -> None:
        """Take the chat under the cursor off the list, for now."""
        row = self.chats.row
        at = None if row is None else self.chats.take_out(row.id)
        if row is not None and at is not None:
            self._deleted.append(deleted := Deleted(row, at, self._words))
            self._say(f"deleted {_quoted(row)} · {key_word('restore_chat')} brings it back")
            self._going.add(row.id)
            self._do(self._delete(deleted))

    async def _delete(self, deleted: Deleted) -> None:
        row = deleted.row
        try:
            await self._history.write(lambda history: history.delete(row.id))
        except (UserError, KeyError) as error:
            if deleted in self._deleted:
                self._deleted.remove(deleted)
            self._going.discard(row.id)
            self._put_back(deleted)
            self._failed(row, error)
            return
        self._going.discard(row.id)
        self._owner.chat_deleted(row.id)
        if row.id == self._opened and self.is_running:
            self._opened = self.chats.opened = None

    def action_restore_chat(self) -> None:
        """Bring the chat back that was deleted last."""
        if self._deleted:
            self._do(self._restore(self._deleted.pop()))
        else:
            self._say("nothing was deleted", "warning")

    async def _restore(self, deleted: Deleted) -> None:
        row = deleted.row
        try:
            await self._history.write(lambda history: history.restore(row.id))
        except (UserError, KeyError) as error:
            if isinstance(error, UserError):  # it may work the next time
                self._deleted.append(deleted)
            self._failed(row, error)
            return
        self._put_back(deleted)
        self._say(f"{_quoted(row)} is back")

    def _put_back(self, deleted: Deleted) -> None:
        """Show a chat where it stood, if that can be told; else the list from its beginning."""
        if not self.is_running:
            return
        if deleted.words == self._words and deleted.at <= len(self.chats.rows):
            self.chats.put_in(deleted.at, deleted.row)
        else:
            self._look()

    def action_export_chat(self) -> None:
        """The chat under the cursor as a file in the working folder."""
        row = self.chats.row
        if row is not None:
            self._do(self._export(row))

    async def _export(self, row: ChatRow) -> None:
        try:
            path = await self._history.write(lambda history: write(history.load(row.id), ""))
        except (UserError, KeyError) as error:
            self._failed(row, error)
        else:
            self._say(f"written to {path.absolute()}")

    def _do(self, deed: Coroutine[Any, Any, None]) -> None:
        """Change something: the app sees to it, whether this screen is still there or not."""
        self.app.run_worker(deed)

    def _failed(self, row: ChatRow, error: UserError | KeyError) -> None:
        """Say why nothing was done. A chat that another window has removed leaves the list."""
        if isinstance(error, UserError):
            self._say(str(error), "error")
        else:
            if self.is_running:
                self.chats.take_out(row.id)
            self._say(f"{_quoted(row)} is not there any more", "warning")


def _quoted(row: ChatRow) -> str:
    title = shown_title(row.title)
    return f"'{title if len(title) <= 40 else f'{title[:39]}…'}'"
