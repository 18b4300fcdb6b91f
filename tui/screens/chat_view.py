"""The chat screen's looks: its parts, and how they follow what the engine says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal

from core.engine.events import Done, Reason, Snapshot
from tui import messages
from tui.bridge import Bridge
from tui.chat_session import ChatSession, Replacement
from tui.compat import SafeClicks, freeze_garbage, write_sequence
from tui.conversation import Exchange
from tui.figures import cut_words, footer
from tui.glyphs import drawn
from tui.keys import key_word
from tui.outcome import Outcome
from tui.screens.gauges import GaugesScreen
from tui.screens.sizes import TooSmall
from tui.slash_completion import Completions, Sources, complete
from tui.throttle import Throttle
from tui.widgets.completion import CompletionList
from tui.widgets.find_line import FindLine
from tui.widgets.gauges import Gauges
from tui.widgets.header import Header
from tui.widgets.key_bar import KeyBar
from tui.widgets.message_keys import MessageKeys
from tui.widgets.plain import PlainStatic, plain
from tui.widgets.prompt import Prompt
from tui.widgets.sidebar import Sidebar
from tui.widgets.sidebar_row import SidebarRow
from tui.widgets.status_line import Level, StatusLine
from tui.widgets.transcript import Transcript
from tui.window_title import WindowTitle, words

if TYPE_CHECKING:
    from tui.app import LlamaApp

_STATUS_S = 0.25
_HEADER_S = 1.0
_GAUGES_S = 1.0
_SLOW_S = 10.0  # from which on a reply is one that people do not wait for


def _placeholder(*, tiny: bool = False) -> str:
    """What to do in the prompt; where there is no key bar, also how to go on from there."""
    send = f"Message · {key_word('send')} sends"
    if tiny:
        return f"{send} · {key_word('help')} help"
    return f"{send} · / commands · {key_word('newline')} new line"


class ChatView(SafeClicks):
    """Shows a ChatSession. Engine events arrive here as messages; the session keeps the truth."""

    AUTO_FOCUS = "#prompt"

    def __init__(self, session: ChatSession, model_name: str, notes: tuple[str, ...] = ()) -> None:
        super().__init__(id="chat")
        self.session = session
        self._model_name = model_name
        self._notes = notes
        self._debug = False
        self._failure = ""
        self._writing = asyncio.Lock()  # held while the configuration is written
        self._presented = 0  # the newest run in the transcript
        self._snapshot: Snapshot | None = None
        self._status_soon = Throttle(self, _STATUS_S, self._paint_status)
        self._header_soon = Throttle(self, _HEADER_S, self._paint_header)
        self._meters_soon = Throttle(self, _GAUGES_S, self._paint_meters)
        self._speed_soon = Throttle(self, _GAUGES_S, self._paint_speed)
        self._window = WindowTitle(lambda sequence: write_sequence(self.app, sequence))

    def compose(self) -> ComposeResult:
        """Header, gauges, settings and transcript, status, prompt, keys."""
        yield Header(self._model_name, simulated=self.session.options.device == "sim", id="header")
        yield Gauges(id="gauges")
        with Container(id="body"):
            # First, so that tab from the prompt leads to the settings.
            yield Sidebar(self.session.settings, self.session.placement, id="sidebar")
            # The status line is no wider than the transcript: Textual renders every widget within the
            # smallest rectangle around all changes of a frame, and these two change the most.
            with MessageKeys(id="main"):
                yield Transcript(id="transcript")
                with Horizontal(id="status-row"):
                    yield StatusLine(id="status")
                    yield PlainStatic("↓ new text below (End)", id="new-text")
            yield CompletionList(self._completions, id="completion")
        yield FindLine(id="find")
        with Horizontal(id="prompt-row"):
            yield PlainStatic("\u203a", id="prompt-sign")
            yield Prompt(_placeholder(), id="prompt")
        yield KeyBar(id="keys")
        yield TooSmall()

    def on_mount(self) -> None:
        """Start the engine once the first frame is out, so that its import of torch delays nothing."""
        self.transcript.assistant_label = self._label(self._model_name)
        self.prompt.completion = self.query_one(CompletionList)
        for note in self._notes:
            self.note(note, "warning")
        self._paint_status()
        self.call_after_refresh(self.set_timer, 0.01, self._start)

    def _start(self) -> None:
        self.session.start(Bridge(self))

    def gauges_page(self) -> GaugesScreen:
        """The full page of what the gauges show here."""
        gauges = self.query_one("#gauges", Gauges)
        return GaugesScreen(self.session, gauges.readings, self._model_name)

    def _completions(self, text: str) -> Completions:
        return complete(text, Sources(self.session.settings, lambda: self.app.available_themes))

    @on(CompletionList.Taken)
    def _completion_taken(self, message: CompletionList.Taken) -> None:
        self.prompt.replace_text(message.text)
        self.prompt.focus()

    # --- parts ----------------------------------------------------------------------------------

    @property
    def transcript(self) -> Transcript:
        """The conversation."""
        return self.query_one("#transcript", Transcript)

    @property
    def prompt(self) -> Prompt:
        """Where the user types."""
        return self.query_one("#prompt", Prompt)

    @property
    def sidebar(self) -> Sidebar:
        """The settings."""
        return self.query_one("#sidebar", Sidebar)

    def note(self, text: str, level: Level = "info") -> None:
        """Say something in the transcript."""
        self.transcript.add_note(plain(text).plain, level)

    @property
    def status(self) -> StatusLine:
        """What is going on."""
        return self.query_one("#status", StatusLine)

    def flash(self, text: str, level: Level = "info") -> None:
        """Say something in the status line for a few seconds."""
        # What was still being done when the app began to close ends behind its widgets.
        for status in self.query("#status").results(StatusLine):
            status.flash(text, level)

    @staticmethod
    def _label(name: str) -> str:
        """A short name for the one who answers."""
        return plain(name).plain.lower().replace("_", "-").split("-")[0][:12] or "llama"

    # --- what the engine says -------------------------------------------------------------------

    @on(messages.LoadProgressed)
    def _load_progressed(self, message: messages.LoadProgressed) -> None:
        self.session.load_progressed(message.event)
        self._status_soon.request()

    @on(messages.ModelReady)
    def _model_ready(self, message: messages.ModelReady) -> None:
        self.session.loaded(message.event)
        model = message.event.model
        self.transcript.assistant_label = self._label(model.name)
        self.query_one("#header", Header).loaded(model)
        self.sidebar.loaded(model)
        self._show_now()
        self._ring_if_away()
        freeze_garbage()

    @on(messages.RunBegun)
    def _run_begun(self, message: messages.RunBegun) -> None:
        self.session.begun(message.event)

    @on(messages.ContextCut)
    def _context_cut(self, message: messages.ContextCut) -> None:
        self.show_conversation()
        self.flash(cut_words(message.event), "warning")

    @on(messages.PrefillProgressed)
    def _prefill_progressed(self, message: messages.PrefillProgressed) -> None:
        if self.session.prefilled(message.event):
            self._status_soon.request()
            self._header_soon.request()

    @on(messages.TextArrived)
    def _text_arrived(self, message: messages.TextArrived) -> None:
        exchange = self.session.grew(message.event)
        if exchange is None:
            return
        self.transcript.append(exchange.reply_key, message.event.text)
        if not self.transcript.following:
            self.add_class("-new-text")
        self._status_soon.request()
        self._header_soon.request()
        self._speed_soon.request()

    @on(messages.RunFinished)
    def _run_finished(self, message: messages.RunFinished) -> None:
        done = message.event
        exchange = self.session.finished(done)
        if self.session.took >= _SLOW_S and done.reason is not Reason.CANCELLED:
            self._ring_if_away()
        if exchange is not None:
            self.transcript.finish(exchange.reply_key, self._footer(exchange, done))
            if done.reason is Reason.ERROR and done.error and done.error != self._failure:
                self.note(done.error, "error")
            replacement = self.session.take_replacement(exchange)
            if replacement is not None:
                self.replace(replacement)
        self._present_running()
        self._paint_speed()
        self._show_now()

    @on(messages.MetersRead)
    def _meters_read(self, message: messages.MetersRead) -> None:
        self._snapshot = message.event
        self._meters_soon.request()

    @on(messages.Noticed)
    def _noticed(self, message: messages.Noticed) -> None:
        self.note(message.event.text, message.event.level)

    @on(messages.EngineFailed)
    def _engine_failed(self, message: messages.EngineFailed) -> None:
        failed = message.event
        if failed.fatal:
            outcome = Outcome(2 if failed.user else 1, plain(failed.text).plain)
            cast("LlamaApp", self.app).fail(outcome)
            return
        self._failure = failed.text
        self.note(failed.text, "error")

    def _ring_if_away(self) -> None:
        """Ring, if the user is looking at another window: something ended that takes its time."""
        if not self.app.app_focus:
            self.app.bell()

    # --- exchanges on screen --------------------------------------------------------------------

    def send(self, text: str) -> None:
        """Send a message. It is shown when its turn comes; until then it is counted as queued."""
        self.session.send(text)
        self.status.end_flash()
        self._present_running()
        self._show_now()

    def replace(self, change: Replacement) -> None:
        """Put something else in the place of an exchange; one that is running is stopped first."""
        exchange, transcript = change.exchange, self.transcript
        self.session.replace(change)
        if exchange not in self.session.conversation.exchanges and transcript.has(exchange.user_key):
            transcript.remove_from(exchange.user_key)
        self._present_running()
        self._show_now()

    def show_conversation(self) -> None:
        """Show the exchanges as they are now, and where older ones have left the context."""
        transcript, conversation = self.transcript, self.session.conversation
        left = conversation.left
        transcript.clear()
        for exchange in conversation.exchanges:
            if exchange is left:
                self.note("the model no longer sees what stands above: the context was full")
            running = exchange is conversation.running
            if exchange.run in conversation.unfinished and not running:
                continue  # it waits for its turn
            transcript.add_message(exchange.user_key, "user", plain(exchange.user).plain)
            if exchange.done is None and not running:
                continue  # never answered
            key, text, done = exchange.reply_key, exchange.reply, exchange.done
            footer = "" if done is None else self._footer(exchange, done)
            transcript.add_message(key, "assistant", text, streaming=done is None, footer=footer)
        transcript.follow()
        self._show_now()

    def _footer(self, exchange: Exchange, done: Done) -> str:
        place = self.session.conversation.place(exchange)
        return footer(exchange, done, debug=self._debug, place=place)

    def _present_running(self) -> None:
        """Show the message whose turn it is and the beginning of its reply, once."""
        exchange = self.session.conversation.running
        if exchange is None or exchange.run <= self._presented:
            return
        self._presented = exchange.run
        self._failure = ""
        transcript = self.transcript
        if transcript.has(exchange.user_key):  # another reply to what stands there, or more of it
            transcript.remove_after(exchange.user_key)
        else:
            transcript.add_message(exchange.user_key, "user", plain(exchange.user).plain)
        transcript.add_message(exchange.reply_key, "assistant", exchange.reply, streaming=True)
        transcript.follow()

    # --- painting -------------------------------------------------------------------------------

    def _show_now(self) -> None:
        """After a change that the user waits for: no need to hold back."""
        self._paint_status()
        self._paint_header()

    def _paint_status(self) -> None:
        session = self.session
        title = words(session.title, busy=session.busy)
        self._window.show(drawn(self.app.get_line_filters(), title))
        keys, tiny = self._local_keys(), self.has_class("-tiny")
        leave = f"{key_word('back')} back · " if tiny and keys is not None else ""
        state = session.state(hint=keys is None, brief=tiny)
        self.status.state(leave + state, busy=session.at_work)
        pending = session.placement.pending
        self.query_one("#keys", KeyBar).show(busy=session.busy, pending=pending, row_keys=keys)

    def _local_keys(self) -> tuple[tuple[str, ...], ...] | None:
        """The actions that the key bar shows for where the cursor is; None for those of the chat."""
        return self.focused.KEYS if isinstance(self.focused, SidebarRow) else None

    def _paint_header(self) -> None:
        self.query_one("#header", Header).used(self.session.context_used)

    def _paint_meters(self) -> None:
        if self._snapshot is not None:
            speed = self.session.speed if self.session.busy else None
            self.query_one("#gauges", Gauges).read(self._snapshot, speed)

    def _paint_speed(self) -> None:
        session = self.session
        self.query_one("#gauges", Gauges).talk(session.speed, session.surprises, session.settings.tau)

    def on_screen_resume(self) -> None:
        """It is seen, perhaps again."""
        for transcript in self.query(Transcript):  # none before the first time
            transcript.catch_up()

    def on_descendant_focus(self) -> None:
        """The keys that matter depend on where the cursor is."""
        self._paint_status()

    @on(Transcript.FollowChanged)
    def _follow_changed(self, message: Transcript.FollowChanged) -> None:
        if message.following:
            self.remove_class("-new-text")

    def on_resize(self, event: events.Resize) -> None:
        """Set the size's classes; TCSS does the rest."""
        width, height = event.size
        self.set_class(width < 100, "-narrow")
        self.set_class(height < 30, "-low")
        self.set_class(width < 60 or height < 16, "-tiny")
        self.query_one(TooSmall).check(self, event.size)
        self.prompt.placeholder = _placeholder(tiny=self.has_class("-tiny"))
        self._paint_status()
