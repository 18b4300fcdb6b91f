"""The chat without its looks: what is sent to the engine when, and what is going on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from core.engine.backend import Backend, Sink
from core.engine.commands import (
    Command,
    Load,
    OpenChat,
    ReadCache,
    Resume,
    Rewind,
    Stop,
    Submit,
    Unload,
    Watch,
)
from core.engine.events import Begun, Delta, Done, Loading, ModelInfo, Placing, Prefill, Ready, Saved
from core.history.records import Chat
from core.options import LoadOptions
from core.text.sanitize import one_line
from tui.conversation import Conversation, Exchange
from tui.figures import cut_words, gigabytes, load_progress, prefill_progress, rate, seconds, summary
from tui.keys import key_word
from tui.pace import Pace
from tui.placement import Placement
from tui.settings import Settings

_NEXT = 30  # characters of a message that waits


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
        self.asleep = False
        """Whether the model was unloaded and is not being loaded again."""
        self.placement = Placement()
        self.took = 0.0
        """Seconds of the last run that ended."""
        self._begun_at = clock()
        self._decoding, self._prefilling, self._moving = Pace(clock), Pace(clock), Pace(clock)
        self._giving_up = False  # the load that is under way
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
        """Stop the running reply, or all that waits for the model; False where nothing runs."""
        unfinished = self.conversation.unfinished
        if not unfinished:
            return False
        self._stopping = unfinished[0] if self.model is not None else unfinished[-1]
        self._submit(Stop(self._stopping))
        return True

    def take_back(self) -> list[Exchange]:
        """Messages that have not begun leave the conversation: those that wait for the model, or for a reply
        that is being stopped already.
        """
        if self.model is not None and self._stopping is None:
            return []
        waiting = self.conversation.waiting(all=self.model is None)
        if waiting:
            self._stopping = self.conversation.unfinished[-1]
            self._submit(Stop(self._stopping))
            for exchange in waiting:
                self.conversation.exchanges.remove(exchange)
        return waiting

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
            self.conversation.drop_after(exchange)
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

    def walk(self, steps: int, message_id: int | None = None) -> str:
        """To a sibling of a message, or of the last that has any; where one is now, in words."""
        fork = self.conversation.fork(message_id)
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

    def watch(self, *, shown: bool) -> None:
        """Have the engine tell what it does at every moment, or no longer."""
        self._submit(Watch(shown))

    def unload(self) -> None:
        """Have the engine give the model's memory back, or give up its load.

        The next message loads it again.
        """
        self._giving_up = self.is_loading
        self._submit(Unload())

    def read_cache(self) -> None:
        """Have the engine tell what its KV cache holds."""
        self._submit(ReadCache())

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
        self.model, self.loading, self.asleep, self._giving_up = ready.model, None, False, False

    def load_progressed(self, loading: Loading) -> None:
        """The load went on."""
        self.loading, self.asleep = loading, False

    def unloaded(self) -> None:
        """The model is out of memory."""
        self.model, self.loading, self.asleep, self._giving_up = None, None, True, False
        self.placement.gone()

    def begun(self, begun: Begun) -> Exchange | None:
        """A run has its place in the conversation; the exchange, if it is on screen."""
        self._begun_at = self.clock()
        self._prefilling.clear()
        return self.conversation.note_begun(begun)

    def prefilled(self, prefill: Prefill) -> Exchange | None:
        """More of the prompt has been run; the exchange, if it is on screen."""
        self._prefilling.note(prefill.done)
        return self.conversation.note_prefill(prefill)

    def moved(self, placing: Placing) -> None:
        """Weights are on their way to other places."""
        self._moving.note(placing.done_bytes)
        self.placement.moved(placing)

    def grew(self, delta: Delta) -> Exchange | None:
        """A reply grew; the exchange, if it is on screen."""
        exchange = self.conversation.note_delta(delta)
        if exchange is not None:
            self._decoding.note(exchange.tokens)
        return exchange

    def finished(self, done: Done) -> Exchange | None:
        """A run ended; the exchange, if it is on screen."""
        if done.run == self._stopping:
            self._stopping = None
        self.took = self.clock() - self._begun_at
        self._decoding.clear()
        return self.conversation.note_done(done)

    # --- what is going on -----------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """True while the engine owes an answer."""
        return bool(self.conversation.unfinished)

    @property
    def at_work(self) -> bool:
        """True while anything goes on: a reply, a load, weights on their way."""
        return self.busy or self.is_loading or bool(self.placement.progress())

    @property
    def surprises(self) -> Sequence[float]:
        """The surprise of each token of the reply that runs, or ran last, in bits."""
        exchange = self.conversation.running or self.conversation.last
        return () if exchange is None else exchange.surprises

    @property
    def is_loading(self) -> bool:
        """True until there is a model, unless it was unloaded."""
        return self.model is None and not self.asleep

    @property
    def context_used(self) -> int:
        """Tokens in the context. The last one of a reply that filled it found no room."""
        used = self.conversation.context_used
        return used if self.model is None else min(used, self.model.context)

    @property
    def speed(self) -> float | None:
        """Tokens per second of the running reply over the last seconds; None before two tokens."""
        return self._decoding.rate

    def state(self, *, hint: bool = True, brief: bool = False) -> str:
        """What is going on, for the status line; with `hint` also the key that stops it.

        `brief` leaves of a running reply what 40 columns hold.
        """
        if self.asleep and not self.busy:
            return "the model is unloaded · the next message loads it again"
        if self.model is None:
            return self._with_queue(self._load_state(), "takes back" if hint else "")
        if self.busy:
            does = "stop" if self._stopping is None else "takes back"
            return self._with_queue(self._run_state(brief=brief), does if hint else "")
        last = self.conversation.last
        state = self._move_state() or "idle"
        ahead = last.done.cut if last and last.done else None
        parts = (state, *(summary(last) if last and last.tokens else ()))
        return " · ".join((*parts, f"next message: {cut_words(ahead)}") if ahead else parts)

    def _load_state(self) -> str:
        if self._giving_up:
            return "giving up the load"
        return "starting" if self.loading is None else load_progress(self.loading)

    def _move_state(self) -> str:
        """How far weights have come that move, how fast, and how long they still take."""
        placing, parts = self.placement.placing, [self.placement.progress()]
        rate = self._moving.rate if placing is not None else None
        if placing is not None and rate is not None:
            parts.append(f"{gigabytes(rate)} GB/s")
            parts.append(f"{seconds(self._moving.left(placing.total_bytes) or 0.0)} left")
        return " · ".join(filter(None, parts))

    def _run_state(self, *, brief: bool) -> str:
        running = self.conversation.running
        if self._stopping == self.conversation.unfinished[0] or running is None:
            return "stopping"
        moving = self._move_state()
        if running.tokens:
            most = self.settings.values["max_tokens"]
            speed = f" {rate(self.speed)} tok/s" if self.speed else ""
            if brief and not moving:
                return f"{speed.strip() or 'replying'} · {running.tokens}/{most} tok"
            limit = self.placement.limit()
            weights = moving or (f"limited by {limit}" if limit else "")
            return " · ".join(filter(None, (f"replying{speed}", f"token {running.tokens}/{most}", weights)))
        if running.prefill is None:
            state = "waiting for the engine"
        else:
            prefill = running.prefill
            state = prefill_progress(prefill, self._prefilling.rate, self._prefilling.left(prefill.total))
        return " · ".join(filter(None, (state, moving)))

    def _with_queue(self, state: str, does: str) -> str:
        """`state`, how many messages wait, what Esc does (empty: not said), and which comes next."""
        loading = self.model is None
        queued = len(self.conversation.unfinished) if loading else self.conversation.queued
        parts = [state, *([f"{queued} queued"] if queued else ())]
        if does == "stop" or (does and queued):
            parts.append(f"{key_word('back')} {does}")
        waiting = self.conversation.waiting(all=loading)
        if waiting:
            parts.append(f"next: {one_line(waiting[0].user, _NEXT)}")
        return " · ".join(parts)
