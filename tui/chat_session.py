"""The chat without its looks: what is sent to the engine when, and what is going on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from core.engine.backend import Backend, Sink
from core.engine.events import (
    Begun,
    Command,
    Delta,
    Done,
    Load,
    Loading,
    ModelInfo,
    OpenChat,
    Prefill,
    Ready,
    Resume,
    Rewind,
    Saved,
    Stop,
    Submit,
)
from core.history.records import Chat
from core.options import LoadOptions
from tui.conversation import Conversation, Exchange
from tui.figures import cut_words, load_progress, rate, summary
from tui.keys import key_word
from tui.placement import Placement
from tui.settings import Settings

_WINDOW_S = 3.0  # the speed shown is the mean over this time, so that it can be read
_SURPRISES = 32  # and the surprise over this many tokens


@dataclass(frozen=True, slots=True)
class Replacement:
    """What is to be in the place of an exchange: another message, nothing, or the same one answered again."""

    exchange: Exchange
    text: str | None = None
    again: bool = False


class ChatSession:
    """One conversation with one backend. Plain state: a screen calls it and shows what it says."""

    def __init__(
        self,
        backend: Backend,
        options: LoadOptions,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backend = backend
        self.options = options
        self.settings = settings
        self.clock = clock
        self.conversation = Conversation()
        self.chat: int | None = None
        """The number under which the conversation is saved; None while it is not."""
        self.title = ""
        self.model: ModelInfo | None = None
        self.loading: Loading | None = None
        self.placement = Placement()
        self.surprises: deque[float] = deque(maxlen=_SURPRISES)
        self._times: deque[tuple[float, int]] = deque()
        self._stopping: int | None = None
        self._replacing: Replacement | None = None
        self._known = False  # the number was known before the first message of this session
        self._early: list[Command] | None = []  # what comes before the start; None after it

    # --- what the user does ---------------------------------------------------------------------

    def start(self, sink: Sink) -> None:
        """Start the engine and load the model, then submit what the user did in the meantime.

        Called once, after the first frame: whoever types fast can be earlier.
        """
        early, self._early = self._early or [], None
        self.backend.start(sink)
        self._submit(Load(self.options))
        self.configure()
        for command in early:
            self._submit(command)

    def _submit(self, command: Command) -> None:
        if self._early is None:
            self.backend.submit(command)
        else:
            self._early.append(command)

    def configure(self) -> None:
        """Tell the engine the settings; a running reply has them from its next token on."""
        self._submit(self.settings.configure())

    def send(self, text: str) -> Exchange:
        """Submit a message; the engine lets it wait where something else comes first."""
        exchange = self.conversation.submit(text)
        self._submit(Submit(exchange.run, text))
        return exchange

    def stop(self) -> bool:
        """Stop the running reply, or take back what waits for the model; False where nothing runs."""
        unfinished = self.conversation.unfinished
        if not unfinished:
            return False
        self._stopping = unfinished[0] if self.model is not None else unfinished[-1]
        self._submit(Stop(self._stopping))
        return True

    def replace(self, change: Replacement) -> None:
        """Put something else in the place of an exchange, beside it in the tree.

        Where its reply is still running, that is stopped first and the rest happens at its end.
        """
        exchange = change.exchange
        if exchange.done is None and exchange.run in self.conversation.unfinished:
            self._replacing = change
            self.stop()
            return
        if change.again and exchange.user_id is not None:
            self._submit(Rewind(exchange.user_id))
            self._resume(exchange, again=True)
            return
        self.conversation.drop(exchange)
        if exchange.user_id is not None:  # or the run never began
            self._submit(Rewind(exchange.parent_id))
            self.conversation.tree.rewind(exchange.parent_id)
        text = exchange.user if change.again else change.text
        if text is not None:
            self.send(text)

    def go_on(self) -> bool:
        """Have the model go on with the last reply; False where that was not cut off."""
        last = self.conversation.last
        if last is None or not last.cut_off:
            return False
        self._resume(last, again=False)
        return True

    def _resume(self, exchange: Exchange, *, again: bool) -> None:
        self.conversation.resume(exchange, again=again)
        self._submit(Resume(exchange.run))

    def walk(self, steps: int) -> str:
        """To the sibling of the message nearest the end that has any; where one is now, in words."""
        fork = self.conversation.fork()
        if fork is None:
            return "there is only one version; regenerate or edit makes another"
        at, ids = fork
        to = max(0, min(len(ids) - 1, at + steps))
        if to != at:
            head = self.conversation.tree.leaf(ids[to]).id
            self._submit(Rewind(head))
            self.conversation.go_to(head)
        return f"version {to + 1} of {len(ids)}"

    def apply(self) -> None:
        """Have the pending placement made true, at once. Raises UserError where it cannot be had."""
        self._submit(self.placement.apply())

    @property
    def replacing(self) -> Exchange | None:
        """The exchange that is being stopped in order to be replaced."""
        return self._replacing.exchange if self._replacing else None

    def take_replacement(self, finished: Exchange) -> Replacement | None:
        """What was to replace `finished`, now that it has ended."""
        if self._replacing is None or self._replacing.exchange is not finished:
            return None
        replacement, self._replacing = self._replacing, None
        return replacement

    def new_chat(self) -> None:
        """Stop everything and begin an empty conversation."""
        self.conversation.clear()
        self._leave(OpenChat())

    def open(self, chat: Chat) -> None:
        """Stop everything and go on with a saved conversation. ValueError where its messages are no tree."""
        self.conversation.open(chat.messages, chat.head)
        self._leave(OpenChat(tuple(saved.message for saved in chat.messages), chat.head, chat.id))
        self.chat, self.title, self._known = chat.id, chat.title, True

    def _leave(self, another: OpenChat) -> None:
        """Stop what the conversation before still owes, and have the engine open another one."""
        if self.conversation.unfinished:
            self._stopping = self.conversation.unfinished[-1]
            self._submit(Stop(self._stopping))
        self._replacing = None
        self.chat, self.title, self._known = None, "", False
        self._submit(another)

    def saved(self, saved: Saved) -> bool:
        """The conversation has a number; False where that is news of one that was left."""
        if saved.before is None:
            news = not self._known and bool(self.conversation.tree.messages)
        else:
            news = saved.before == self.chat
        if not news:
            return False
        self.chat, self.title = saved.chat, saved.title
        return True

    # --- what the engine says -------------------------------------------------------------------

    def loaded(self, ready: Ready) -> None:
        """The model answers from now on."""
        self.model, self.loading = ready.model, None

    def load_progressed(self, loading: Loading) -> None:
        """The load went on."""
        self.loading = loading

    def begun(self, begun: Begun) -> Exchange | None:
        """A run has its place in the conversation; the exchange, if it is on screen."""
        return self.conversation.note_begun(begun)

    def prefilled(self, prefill: Prefill) -> Exchange | None:
        """More of the prompt is in the cache; the exchange, if it is on screen."""
        return self.conversation.note_prefill(prefill)

    def grew(self, delta: Delta) -> Exchange | None:
        """A reply grew; the exchange, if it is on screen."""
        exchange = self.conversation.note_delta(delta)
        if exchange is not None:
            self.surprises.extend(delta.surprises)
            self._times.append((self.clock(), exchange.tokens))
            while self._times[0][0] < self._times[-1][0] - _WINDOW_S:
                self._times.popleft()
        return exchange

    def finished(self, done: Done) -> Exchange | None:
        """A run ended; the exchange, if it is on screen."""
        if done.run == self._stopping:
            self._stopping = None
        self._times.clear()
        self.surprises.clear()
        return self.conversation.note_done(done)

    # --- what is going on -----------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """True while the engine owes an answer."""
        return bool(self.conversation.unfinished)

    @property
    def speed(self) -> float | None:
        """Tokens per second of the running reply over the last seconds; None before two tokens."""
        if len(self._times) < 2:
            return None
        (t0, n0), (t1, n1) = self._times[0], self._times[-1]
        return (n1 - n0) / (t1 - t0) if t1 > t0 else None

    @property
    def surprise(self) -> float | None:
        """The mean surprise of the last tokens of the running reply, in bits."""
        return sum(self.surprises) / len(self.surprises) if self.surprises else None

    def state(self) -> str:
        """What is going on, for the status line."""
        if self.model is None:
            return self._waiting(self._load_state(), len(self.conversation.unfinished))
        if self.busy:
            state = self._waiting(self._run_state(), self.conversation.queued)
            return state if self._stopping is not None else f"{state} · {key_word('back')} stop"
        last = self.conversation.last
        state = self.placement.progress() or "idle"
        ahead = last.done.cut if last and last.done else None
        parts = (state, *(summary(last) if last and last.tokens else ()))
        return " · ".join((*parts, f"next message: {cut_words(ahead)}") if ahead else parts)

    def _load_state(self) -> str:
        return "starting" if self.loading is None else load_progress(self.loading)

    def _run_state(self) -> str:
        running = self.conversation.running
        if self._stopping == self.conversation.unfinished[0] or running is None:
            return "stopping"
        moving = self.placement.progress()
        if running.tokens:
            most = self.settings.values["max_tokens"]
            speed = f" {rate(self.speed)} tok/s" if self.speed else ""
            limit = self.placement.limit()
            weights = moving or (f"limited by {limit}" if limit else "")
            return " · ".join(filter(None, (f"replying{speed}", f"token {running.tokens}/{most}", weights)))
        if running.prefill is None:
            state = "waiting for the engine"
        else:
            cached = f" · cached {running.prefill.cached}" if running.prefill.cached else ""
            state = f"prefill {running.prefill.done}/{running.prefill.total}{cached}"
        return " · ".join(filter(None, (state, moving)))

    @staticmethod
    def _waiting(state: str, queued: int) -> str:
        return f"{state} · {queued} queued" if queued else state
