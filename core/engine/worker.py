"""The local backend: one thread that owns torch, commands in through a queue, events out.

Every torch call, the import included, happens on that thread: a second OpenMP pool would cost a
third of the speed. This module itself imports no torch, so the interface can name it at once.
"""

from __future__ import annotations

import gc
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from core.engine.asleep import Asleep
from core.engine.backend import Sink
from core.engine.commands import (
    Apply,
    Command,
    Configure,
    Load,
    OpenChat,
    ReadCache,
    Resume,
    Rewind,
    Score,
    Shutdown,
    Stop,
    Submit,
    Unload,
    Watch,
)
from core.engine.conversation import Conversation
from core.engine.events import Done, Failed, Loading, Notice, Ready, Reason, Scored, Stats, Unloaded
from core.errors import Cancelled, UserError
from core.monitor import Monitor, Watcher
from core.options import Sampling
from core.traffic import TrafficMeter, activity

if TYPE_CHECKING:
    from core.engine.load import Engine
    from core.engine.session import Session
    from core.weights.ledger import Ledger
    from core.weights.plan import Plan

log = logging.getLogger(__name__)


class LocalBackend:
    """Runs a model in this process. `meters` sends a Snapshot a second.

    Stop, Configure and Apply act at once, past the queue: a running reply looks at them before every
    unit, every token and every pass; a load looks at Unload. Everything else is done in the order it came.
    """

    def __init__(self, *, meters: bool = False) -> None:
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._settings = Configure(Sampling())
        self._stopped = -1  # every run up to this number has been stopped
        self._wanted: deque[Apply] = deque(maxlen=1)  # the placement that is asked for; the latest wins
        self._closing = threading.Event()
        self._engine: Engine | None = None
        self._session: Session | None = None
        self._loaded: tuple[Load, Plan] | None = None  # as it was loaded, whatever moved since
        self._asleep: Asleep | None = None
        self._unwanted = threading.Event()  # the load under way is to be given up
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._sink: Sink = _nowhere
        self._meters = meters
        self._monitor: Monitor | None = None
        self._watcher: Watcher | None = None

    def start(self, sink: Sink) -> None:
        """Begin to take commands and to deliver events to `sink`."""
        self._sink = sink
        self._thread.start()
        if self._meters:
            meter = TrafficMeter(self._ledger)
            self._monitor = Monitor(sink, meter.read)
            self._monitor.start()

    def submit(self, command: Command) -> None:
        """Hand over a command; returns at once, from any thread."""
        match command:
            case Stop(run):
                self._stopped = max(self._stopped, run)
            case Configure():
                self._settings = command
            case Apply():
                self._wanted.append(command)
                self._commands.put(command)  # where nothing runs that would look
            case Load():
                self._unwanted.clear()
                self._commands.put(command)
            case Unload():
                self._unwanted.set()
                self._commands.put(command)
            case Watch(shown):
                self._watch(shown)
            case Shutdown():
                self._closing.set()
                self._commands.put(command)
            case _:
                self._commands.put(command)

    def close(self, timeout: float) -> bool:
        """Stop everything; True if the thread ended within `timeout` seconds."""
        if self._monitor is not None:
            self._monitor.stop()
        self._watch(False)
        self.submit(Shutdown())
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _watch(self, shown: bool) -> None:
        """Begin to send what the engine does, or stop that."""
        if self._watcher is not None:
            self._watcher.stop()
        self._watcher = Watcher(self._sink, lambda: activity(self._ledger())) if shown else None
        if self._watcher is not None:
            self._watcher.start()

    def _ledger(self) -> Ledger | None:
        engine = self._engine
        return None if engine is None else engine.machine.ledger

    def _run(self) -> None:
        while not self._closing.is_set():
            command = self._commands.get()
            try:
                self._handle(command)
            except Exception as error:  # the worker outlives whatever goes wrong in one command
                self._report(command, error)
        if self._engine is not None:
            self._engine.placement.close()

    def _handle(self, command: Command) -> None:
        match command:
            case Load():
                self._load(command)
            case Submit() | Resume():
                self._reply(command)
            case Score():
                self._score(command)
            case Apply():
                self._apply()
            case Rewind(message_id):
                if self._session is not None:
                    self._session.rewind(message_id)
                elif self._asleep is not None:
                    self._sink(self._asleep.rewind(message_id))
            case OpenChat():
                if self._session is not None:
                    self._session.open(command)
                elif self._asleep is not None:
                    self._sink(self._asleep.open(command))
            case Unload():
                self._unload()
            case ReadCache():
                self._sink(self._required().cache())

    def _load(self, command: Load) -> None:
        self._asleep = None
        if self._engine is not None:
            self._drop()
        try:
            self._start(command, lambda: self._unwanted.is_set() or self._closing.is_set())
        except Cancelled:
            self._asleep, self._given_up = Asleep(command, Conversation(), None), True
            return
        assert self._engine is not None
        self._sink(self._engine.placement.placed())
        self._sink(Ready(self._engine.info))

    def _start(
        self, command: Load, cancelled: Callable[[], bool], conversation: Conversation | None = None
    ) -> None:
        """The engine and a session on it. Raises UserError, and Cancelled when the flag is seen."""
        self._sink(Loading("starting torch"))
        from core.engine.load import load
        from core.engine.session import Session

        engine = load(command.options, self._sink, cancelled)
        engine.runner.before = self._between_passes
        session = Session(engine, lambda: self._settings, self._sink, conversation)
        self._engine, self._session = engine, session
        self._loaded = command, engine.placement.plan

    def _drop(self) -> None:
        """Give the engine and all its memory back."""
        assert self._engine is not None
        self._engine.placement.close()
        self._engine = self._session = None
        # The model refers to itself in places, and the interface may have frozen it: see gc.freeze.
        gc.unfreeze()
        gc.collect()
        import torch

        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # what the allocator keeps for the next tensors

    # --- without a model --------------------------------------------------------------------------

    def _unload(self) -> None:
        if self._given_up:
            self._given_up = False
            self._sink(Unloaded())
            return
        conversation = self._required().conversation
        assert self._engine is not None
        assert self._loaded is not None
        (load, before), plan = self._loaded, self._engine.placement.plan
        self._asleep = Asleep(load, conversation, None if plan == before else plan)
        self._drop()
        self._sink(Unloaded())

    def _required(self) -> Session:
        if self._session is None:
            raise UserError("no model is loaded; the next message loads it")
        return self._session

    def _wake(self, run: int) -> None:
        """Load the model again for a run. Raises UserError, and Cancelled where that is stopped."""
        asleep = self._asleep
        assert asleep is not None
        self._sink(Notice("the model was unloaded; it is loaded again for this message"))
        try:
            self._start(asleep.load, lambda: self._is_stopped(run), asleep.conversation)
            assert self._engine is not None
            placement = self._engine.placement
            if asleep.plan is not None:
                placement.apply(asleep.plan)
                self._engine.runner.rows = placement.plan.rows
        except BaseException:
            if self._engine is not None:
                self._drop()
            self._sink(Unloaded())
            raise
        self._asleep = None
        self._sink(placement.placed())
        self._sink(Ready(self._engine.info))

    # --- replies ----------------------------------------------------------------------------------

    def _between_passes(self) -> None:
        assert self._engine is not None
        self._engine.placement.look()
        self._apply()

    def _apply(self) -> None:
        """Move weights, if that is asked for. What goes wrong with it ends no reply."""
        if not self._wanted or self._engine is None:
            return
        command = self._wanted.pop()
        placement = self._engine.placement
        try:
            placement.apply(command.plan)
        except UserError as error:
            self._sink(Failed(str(error)))
            self._sink(placement.placed())
        self._engine.runner.rows = placement.plan.rows

    def _reply(self, command: Submit | Resume) -> None:
        run = command.run
        if self._asleep is not None and not self._is_stopped(run):
            with suppress(Cancelled):  # then it ends as any run that is stopped before it begins
                self._wake(run)
        session = self._session
        if self._is_stopped(run):
            self._sink(Done(run, Reason.CANCELLED, Stats(), head=self._head))
        elif session is None:
            self._sink(Done(run, Reason.ERROR, Stats(), error="no model is loaded"))
        elif isinstance(command, Submit):
            self._sink(session.submit(run, command.text, lambda: self._is_stopped(run)))
        else:
            self._sink(session.resume(run, lambda: self._is_stopped(run)))

    def _score(self, command: Score) -> None:
        run = command.run
        if self._engine is None:
            self._sink(Scored(run, error="no model is loaded"))
        elif self._is_stopped(run):
            self._sink(Scored(run))
        else:
            from core.engine.perplexity import score

            self._sink(score(self._engine, command, self._sink, lambda: self._is_stopped(run)))

    @property
    def _head(self) -> int | None:
        """Where the conversation is."""
        if self._session is not None:
            return self._session.conversation.head
        return None if self._asleep is None else self._asleep.conversation.head

    def _is_stopped(self, run: int) -> bool:
        return run <= self._stopped or self._closing.is_set()

    def _report(self, command: Command, error: Exception) -> None:
        user = isinstance(error, UserError)
        text = str(error) if user else f"{type(error).__name__}: {error}"
        if not user:
            log.error("%s failed", type(command).__name__, exc_info=error)
        match command:
            case Load():
                self._sink(Failed(text, fatal=True, user=user))
            case Submit(run) | Resume(run):
                if not user:
                    self._sink(Failed(text, user=False))
                self._sink(Done(run, Reason.ERROR, Stats(), head=self._head, error=text))
            case Score(run):
                if not user:
                    self._sink(Failed(text, user=False))
                self._sink(Scored(run, error=text))
            case _:
                self._sink(Failed(text, user=user))


def _nowhere(event: object) -> None:
    """Where events go before there is a sink."""
