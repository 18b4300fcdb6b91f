"""The list of saved conversations: its looks, and how it is found as one types."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Protocol

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input
from textual.worker import Worker

from core.errors import UserError
from core.history.records import Chat, ChatRow
from core.text.sanitize import one_line
from tui.commands import Scope, bindings
from tui.compat import paint_now
from tui.history_thread import HistoryThread
from tui.widgets.chat_list import ChatList
from tui.widgets.key_bar import KeyBar
from tui.widgets.plain import PlainStatic
from tui.widgets.status_line import Level

if TYPE_CHECKING:
    from core.history.store import History

_PAGE = 50
_KEYS = ("open_chat", "close_chats", "delete_chat", "rename_chat", "restore_chat", "export_chat")
_PATIENCE_S = 0.2  # a search that takes longer says so
_FIRST_PICTURE_S = 0.05
"""How long the page waits for its first rows, which usually are there in time to be drawn with it."""


class Owner(Protocol):
    """Whoever shows a conversation, and is told what happens to it in the list."""

    def chat_renamed(self, chat: int, title: str) -> None:
        """A chat has another title."""

    def chat_deleted(self, chat: int) -> None:
        """A chat is gone from the list."""

    def flash(self, text: str, level: Level) -> None:
        """Something is to be said when the list is closed already."""


class ChatsView(ModalScreen[Chat | None]):
    """A search box, and below it what it finds, page by page. `opened` is marked in the list."""

    # Before the keys of the search box, which has the focus.
    BINDINGS = bindings("chats", priority=True)
    PLACE: ClassVar[Scope] = "chats"
    AUTO_FOCUS = "#chats-search"

    def __init__(self, history: HistoryThread, owner: Owner, *, opened: int | None, words: str) -> None:
        super().__init__()
        self._history, self._owner, self._opened = history, owner, opened
        self._words = words
        self._going: set[int] = set()  # chats that are being deleted, and may still be found
        self._search: Worker[None] | None = None  # the list as it is to be
        self._more: Worker[None] | None = None  # the next rows of it
        self._complete = False  # nothing is behind the last row
        self._passing = False  # what is said is about the list as it was
        self._looked = asyncio.Event()  # the first search has ended

    def compose(self) -> ComposeResult:
        """Search box, list, a line that says what happened, keys."""
        with Vertical(id="chats"):
            yield Input(
                self._words,
                "Search titles and messages",
                id="chats-search",
                compact=True,
                select_on_focus=False,
            )
            yield ChatList(self._opened, id="chats-list")
            yield PlainStatic(id="chats-said")
            yield KeyBar("chats-keys", tuple((id,) for id in _KEYS))

    async def on_mount(self) -> None:
        """Fetch the first rows."""
        self.search.cursor_blink = False  # it would repaint twice a second for ever
        self._look()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._looked.wait(), _FIRST_PICTURE_S)

    def on_resize(self, event: events.Resize) -> None:
        """Where room is scarce, the list has all of it."""
        self.set_class(event.size.height < 30 or event.size.width < 60, "-low")

    @property
    def search(self) -> Input:
        """Where words are typed."""
        return self.query_one("#chats-search", Input)

    @property
    def chats(self) -> ChatList:
        """The list."""
        return self.query_one("#chats-list", ChatList)

    def _say(self, text: str, level: Level = "info", *, passing: bool = False) -> None:
        """Say something below the list; `passing` is over with the next one."""
        if not self.is_running or not self._is_there:
            self._owner.flash(text, level)
            return
        self._passing = passing
        line = self.query_one("#chats-said", PlainStatic)
        line.set_class(level == "warning", "-warning")
        line.set_class(level == "error", "-error")
        line.show(text)

    # --- the list -------------------------------------------------------------------------------

    @on(Input.Changed)
    def _look_anew(self) -> None:
        """Search, if other words are typed than those that were searched for."""
        if self.search.value.strip() != self._words:
            self._look()

    def _look(self) -> None:
        """Fetch the first rows for what is typed, in place of whatever is being fetched."""
        self._words = self.search.value.strip()
        self._complete = False
        if self._more is not None:
            self._more.cancel()
        self._search = self.run_worker(partial(self._first, self._words), group="search", exclusive=True)

    async def _first(self, words: str) -> None:
        waiting = self.set_timer(_PATIENCE_S, lambda: self._say("searching …", passing=True))
        try:
            rows = await self._page(words, 0)
        finally:
            waiting.stop()
            self._looked.set()
        if not self._is_there:
            return
        self.chats.show(rows or ())
        if rows:
            if self._passing:
                self._say("")
        elif rows is not None:
            self._say(_nothing(words), passing=True)
        paint_now(self, self.chats, self.query_one("#chats-said"))

    @property
    def searching(self) -> bool:
        """Whether the list is not yet what the words in the box find."""
        return self._search is not None and not self._search.is_finished

    @on(ChatList.NearEnd)
    def _near_end(self) -> None:
        fetching = self._more is not None and not self._more.is_finished
        # When it was said there may have been fewer rows.
        if self.chats.is_near_end and not (self.searching or fetching or self._complete):
            self._more = self.run_worker(partial(self._next, self._words), group="more")

    async def _next(self, words: str) -> None:
        rows = await self._page(words, len(self.chats.rows))
        if rows is not None and self._is_there:
            self.chats.extend(rows)

    @property
    def _is_there(self) -> bool:
        """False once the page has begun to close, which goes on while the history is read."""
        return bool(self.query("#chats-list"))

    async def _page(self, words: str, skip: int) -> list[ChatRow] | None:
        """Some rows, None where they cannot be had."""

        def deed(history: History) -> list[ChatRow]:
            return history.search(words, skip, _PAGE) if words else history.rows(skip, _PAGE)

        try:
            rows = await self._history.read(deed)
        except UserError as error:
            self._complete = True
            self._say(str(error), "error", passing=True)
            return None
        self._complete = len(rows) < _PAGE
        return [row for row in rows if row.id not in self._going]

    # --- keys -----------------------------------------------------------------------------------

    def action_perform(self, id: str) -> None:
        """One of the list's keys."""
        getattr(self, f"action_{id}")()

    def action_chat_up(self) -> None:
        """The row above."""
        self.chats.move(-1)

    def action_chat_down(self) -> None:
        """The row below."""
        self.chats.move(1)

    def action_chats_page_up(self) -> None:
        """A page up."""
        self.chats.move(-self.chats.page)

    def action_chats_page_down(self) -> None:
        """A page down."""
        self.chats.move(self.chats.page)

    def action_first_chat(self) -> None:
        """The newest."""
        self.chats.move(-len(self.chats.rows))

    def action_last_chat(self) -> None:
        """The oldest that is there; more of them are fetched then."""
        self.chats.move(len(self.chats.rows))

    def on_key(self, event: events.Key) -> None:
        """Wherever the mouse has left the focus, what is typed is searched for."""
        if event.is_printable and event.character is not None:
            event.stop()
            self.search.focus()
            self.search.insert_text_at_cursor(event.character)

    def action_close_chats(self) -> None:
        """What is searched for is forgotten first."""
        if self.search.value:
            self.search.clear()
        else:
            self.dismiss(None)


def _nothing(words: str) -> str:
    if words:
        return f"no chat has words that begin with {one_line(words)}"
    return "no chat is saved yet; the first message of one saves it"
