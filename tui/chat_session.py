"""The chat without its looks: what is sent to the engine when, and what is going on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from core.engine.backend import Backend, Sink
from core.engine.events import (
    Command,
    Delta,
    Done,
    Load,
    Loading,
    ModelInfo,
    Prefill,
    Ready,
    Rewind,
    Stop,
    Submit,
)
from core.options import LoadOptions
from tui.conversation import Conversation, Exchange
from tui.figures import load_progress, rate, summary
from tui.placement import Placement
from tui.settings import Settings

_WINDOW_S = 3.0  # the speed shown is the mean over this time, so that it can be read
_SURPRISES = 32  # and the surprise over this many tokens


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
        self.model: ModelInfo | None = None
        self.loading: Loading | None = None
        self.placement = Placement()
        self.surprises: deque[float] = deque(maxlen=_SURPRISES)
        self._times: deque[tuple[float, int]] = deque()
        self._stopping: int | None = None
        self._replacing: tuple[Exchange, str | None] | None = None
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

    def replace(self, exchange: Exchange, text: str | None) -> None:
        """Drop the last exchange and say `text` in its place (None: nothing).

        Where its reply is still running, that is stopped first and the rest happens at its end, since
        only then is it known where the conversation goes back to.
        """
        if exchange.done is None:
            self._replacing = (exchange, text)
            self.stop()
            return
        self.conversation.drop(exchange)
        # A run that ended before its first token has left no message behind.
        if exchange.done.user_id is not None:
            self._submit(Rewind(exchange.done.parent_id))
        if text is not None:
            self.send(text)

    def apply(self) -> None:
        """Have the pending placement made true, at once. Raises UserError where it cannot be had."""
        self._submit(self.placement.apply())

    @property
    def replacing(self) -> Exchange | None:
        """The exchange that is being stopped in order to be replaced."""
        return self._replacing[0] if self._replacing else None

    def take_replacement(self, finished: Exchange) -> tuple[Exchange, str | None] | None:
        """What was to replace `finished`, now that it has ended."""
        if self._replacing is None or self._replacing[0] is not finished:
            return None
        replacement, self._replacing = self._replacing, None
        return replacement

    def new_chat(self) -> None:
        """Stop everything and go back to the empty start."""
        if self.conversation.unfinished:
            self._stopping = self.conversation.unfinished[-1]
            self._submit(Stop(self._stopping))
        self._replacing = None
        self.conversation.exchanges.clear()
        self._submit(Rewind(None))

    # --- what the engine says -------------------------------------------------------------------

    def loaded(self, ready: Ready) -> None:
        """The model answers from now on."""
        self.model, self.loading = ready.model, None

    def load_progressed(self, loading: Loading) -> None:
        """The load went on."""
        self.loading = loading

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
            return state if self._stopping is not None else f"{state} · Esc stop"
        last = self.conversation.last
        state = self.placement.progress() or "idle"
        return " · ".join((state, *(summary(last) if last and last.tokens else ())))

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
            state = f"prefill {running.prefill.done}/{running.prefill.total}"
        return " · ".join(filter(None, (state, moving)))

    @staticmethod
    def _waiting(state: str, queued: int) -> str:
        return f"{state} · {queued} queued" if queued else state
