"""A backend without torch: a small simulation of the engine on a clock that the test moves."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from core.engine.backend import Sink
from core.engine.commands import (
    Apply,
    Command,
    Load,
    OpenChat,
    ReadCache,
    Resume,
    Rewind,
    Stop,
    Submit,
    Unload,
)
from core.engine.conversation import Conversation, Message
from core.engine.events import (
    Begun,
    CacheRead,
    Delta,
    Done,
    Event,
    Failed,
    Loading,
    ModelInfo,
    Moved,
    Notice,
    Opened,
    Placed,
    Placing,
    Prefill,
    Ready,
    Reason,
    Reply,
    Stats,
    Unloaded,
)
from core.text.sanitize import sanitize
from core.weights.plan import Plan
from tests.fake_plans import moved_bytes, readings

MODEL = ModelInfo(
    name="fake-135m",
    parameters=135_000_000,
    weight_bytes=270_000_000,
    dtype="float16",
    device="cpu",
    chat_format="chatml",
    context=4096,
    layers=30,
    load_s=1.0,
    max_context=8192,
    kv_bytes=23040,
)

LOAD: tuple[tuple[float, Event], ...] = (
    (0.0, Loading("starting torch")),
    (0.5, Loading("reading weights", 0, 270_000_000)),
    (0.5, Loading("reading weights", 116_000_000, 270_000_000)),
    (0.5, Ready(MODEL)),
)
"""Events of a load, each with the seconds since the one before."""

LLAMA_7B = replace(
    MODEL,
    name="llama-2-7b-chat",
    device="cuda:0",
    chat_format="llama2",
    context=2048,
    layers=32,
    max_context=4096,
    kv_bytes=524288,
)
SIMULATED_7B = replace(LLAMA_7B, device="sim")


def loads(plan: Plan, model: ModelInfo = LLAMA_7B) -> tuple[tuple[float, Event], ...]:
    """The events of a load after which `plan` is in force."""
    return (*LOAD[:-1], (0.5, Placed(plan)), (0.0, Ready(model)))


PREFILL_S = 0.1
MOVE_S, MOVE_STEPS = 1.0, 4


class FakeBackend:
    """Answers the n-th message with the n-th of `replies`, `token_s` from token to token.

    Of a text every word is a token; other sequences are the tokens, sanitised one by one as the engine does.
    Nothing happens by itself: `advance` moves the clock and delivers what is due, on the caller's
    thread. `commands` records everything that was submitted. An Apply takes MOVE_S, or is refused with
    the line in `refusal`.
    """

    def __init__(
        self,
        replies: Sequence[str | Sequence[str]] = ("Hello there.",),
        *,
        load: Sequence[tuple[float, Event]] = LOAD,
        token_s: float = 0.1,
        surprise: float = 2.0,
    ) -> None:
        self.commands: list[Command] = []
        self.refusal = ""
        self.plan: Plan | None = None  # in force
        self._applying = 0
        self.now = 0.0
        self._replies = itertools.cycle(replies)
        self._load, self._token_s, self._surprise = load, token_s, surprise
        self._sink: Sink | None = None
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._ready = False
        self._asleep, self._loads = False, 0
        self._waiting: deque[Submit | Resume | Rewind | OpenChat] = deque()
        self._running: _Reply | None = None
        self._stopped = 0
        self._talk = Conversation()

    # --- the protocol ---------------------------------------------------------------------------

    def start(self, sink: Sink) -> None:
        """Begin to deliver events."""
        self._sink = sink

    def submit(self, command: Command) -> None:
        """Record a command and set off what it asks for."""
        assert self._sink is not None, "a command before start"
        self.commands.append(command)
        match command:
            case Load():
                self._begin_load()
            case Submit() | Resume() | Rewind() | OpenChat():
                if self._asleep and isinstance(command, Submit | Resume):
                    self._asleep = False
                    self.emit(Notice("loaded again for this message"))
                    self._begin_load()
                self._waiting.append(command)
                self._next()
            case Apply(plan):
                self._apply(plan)
            case Unload():
                self._loads += 1  # what is due of a load under way does not come any more
                self._ready, self._asleep = False, True
                self.emit(Unloaded())
            case ReadCache():
                self.emit(CacheRead(24, MODEL.context, MODEL.kv_bytes, 3))
            case Stop(run):
                self._stopped = max(self._stopped, run)

    def close(self, timeout: float) -> bool:
        """Drop what is due."""
        self._due.clear()
        return True

    # --- the test's side ------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        """Deliver an event now."""
        assert self._sink is not None, "an event before start"
        self._sink(event)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._due and self._due[0][0] <= end:
            self.now, _, act = heapq.heappop(self._due)
            act()
        self.now = end

    def of_type(self, kind: type[Command]) -> list[Command]:
        """The commands of one type so far."""
        return [command for command in self.commands if isinstance(command, kind)]

    # --- the engine's side ----------------------------------------------------------------------

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + seconds, next(self._order), act))

    def _begin_load(self) -> None:
        self._loads += 1
        number, at = self._loads, 0.0
        for delay, event in self._load:
            at += delay
            self._after(at, lambda event=event: self._loaded(number, event))

    def _loaded(self, number: int, event: Event) -> None:
        if number != self._loads:
            return
        if isinstance(event, Placed):
            self.plan = event.plan
        self.emit(event)
        if isinstance(event, Ready):
            self._ready = True
            self._next()

    def _apply(self, plan: Plan) -> None:
        self._applying += 1
        number, before = self._applying, self.plan
        assert before is not None, "an Apply before the first Placed"
        total = moved_bytes(before, plan)
        for step in range(MOVE_STEPS):
            placing = Placing(total * step // MOVE_STEPS, total)
            self._after(MOVE_S * step / MOVE_STEPS, lambda placing=placing: self._move(number, placing))
        self._after(MOVE_S, lambda: self._move(number, self._settled(before, plan)))

    def _settled(self, before: Plan, plan: Plan) -> Placed:
        return Placed(before if self.refusal else plan)

    def _move(self, number: int, event: Placing | Placed) -> None:
        if number != self._applying:  # a later Apply has taken its place
            return
        if isinstance(event, Placed):
            self.plan = event.plan
            if self.refusal:
                self.emit(Failed(self.refusal))
        self.emit(event)

    def _next(self) -> None:
        while self._ready and self._running is None and self._waiting:
            match self._waiting.popleft():
                case Rewind(message_id):
                    self._talk.rewind(message_id)
                    self.emit(Moved(message_id))
                case OpenChat(messages, head, chat):
                    self._talk = Conversation(messages, head)
                    self.emit(Opened(chat, head, messages))
                case Submit(run) | Resume(run) if run <= self._stopped:
                    self.emit(Done(run, Reason.CANCELLED, Stats(), head=self._talk.head))
                case Submit(run, text):
                    before = self._talk.head
                    self._begin(run, self._talk.add("user", text), None, before)
                case Resume(run):
                    assert self._talk.head is not None
                    head = self._talk.messages[self._talk.head]
                    user = (
                        head
                        if head.parent is None or head.role == "user"
                        else self._talk.messages[head.parent]
                    )
                    self._begin(run, user, None if head is user else head, head.id)

    def _begin(self, run: int, user: Message, earlier: Message | None, before: int | None) -> None:
        reply = earlier or self._talk.add("assistant", "")
        self.emit(Begun(run, user.id, reply.id, user.parent, user.text, continues=earlier is not None))
        self._running = _Reply(run, user, reply, before, _tokens(next(self._replies), reply.text))
        self._after(PREFILL_S, self._prefill)

    def _prefill(self) -> None:
        reply = self._running
        assert reply is not None
        self.emit(Prefill(reply.run, 10, 20, 0))
        self._after(PREFILL_S, self._step)

    def _step(self) -> None:
        reply = self._running
        assert reply is not None
        if reply.run <= self._stopped:
            self._finish(reply, Reason.CANCELLED)
        elif reply.sent == len(reply.tokens):
            self._finish(reply, Reason.STOP)
        else:
            self.emit(Delta(reply.run, reply.tokens[reply.sent], (reply.sent,), (self._surprise,)))
            reply.sent += 1
            self._after(self._token_s, self._step)

    def _finish(self, reply: _Reply, reason: Reason) -> None:
        stats = Stats(ttft_s=2 * PREFILL_S, decode_tok_s=1 / self._token_s)
        earlier, user, talk = reply.earlier, reply.user, self._talk
        text = earlier.text + "".join(reply.tokens[: reply.sent])
        surprise = (*earlier.surprise, *(self._surprise,) * reply.sent)
        tokens = (*earlier.tokens, *range(reply.sent))
        result = Reply(text, tokens, surprise, reason, 7, None, 20, 0, stats)
        reply_id: int | None = earlier.id
        if tokens:
            talk.put(replace(earlier, text=text, tokens=tokens, surprise=surprise, reason=reason))
        else:
            talk.rewind(reply.before)
            talk.discard(earlier.id)
            reply_id = None
        self._running = None
        self.emit(Done(reply.run, reason, stats, result, user.id, reply_id, user.parent, talk.head))
        self._next()


class _Reply:
    """A reply on its way; `before` is where the head was."""

    def __init__(
        self, run: int, user: Message, earlier: Message, before: int | None, tokens: Sequence[str]
    ) -> None:
        self.run, self.user, self.earlier, self.before = run, user, earlier, before
        self.tokens, self.sent = tokens, 0


def _tokens(reply: str | Sequence[str], earlier: str) -> list[str]:
    """The tokens of a reply that goes on behind `earlier`."""
    if not isinstance(reply, str):
        return [sanitize(token) for token in reply]
    first, *others = reply.split(" ")
    return [f" {first}" if earlier else first, *(f" {word}" for word in others)]


class LiveFakeBackend(FakeBackend):
    """The same on the real clock, from a thread of its own as the engine has: for runs on a terminal.

    With `meters` it reads them every second, once a plan is in force.
    """

    def __init__(
        self,
        replies: Sequence[str | Sequence[str]] = ("Hello there.",),
        *,
        load: Sequence[tuple[float, Event]] = LOAD,
        token_s: float = 0.1,
        meters: bool = False,
    ) -> None:
        super().__init__(replies, load=load, token_s=token_s)
        self._meters = meters
        self._lock = threading.RLock()
        self._closing = threading.Event()

    def start(self, sink: Sink) -> None:
        """Begin to deliver events, from another thread."""
        super().start(sink)
        threading.Thread(target=self._tick, daemon=True).start()

    def submit(self, command: Command) -> None:
        """Record a command and set off what it asks for."""
        with self._lock:
            super().submit(command)

    def close(self, timeout: float) -> bool:
        """Stop the thread."""
        self._closing.set()
        return super().close(timeout)

    def _tick(self) -> None:
        last = read = time.monotonic()
        while not self._closing.wait(0.01):
            now = time.monotonic()
            with self._lock:
                if self._meters and self.plan is not None and now >= read:
                    read = now + 1
                    self.emit(readings(self.plan, speed=0.85 if self._running else 0.0))
                self.advance(now - last)
            last = now
