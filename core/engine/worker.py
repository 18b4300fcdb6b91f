"""The local backend: one thread that owns torch, commands in through a queue, events out.

Every torch call, the import included, happens on that thread: a second OpenMP pool would cost a
third of the speed. This module itself imports no torch, so the interface can name it at once.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING

from core.engine.backend import Sink
from core.engine.events import (
    Apply,
    Command,
    Configure,
    Done,
    Failed,
    Load,
    Loading,
    OpenChat,
    Placed,
    Ready,
    Reason,
    Resume,
    Rewind,
    Score,
    Scored,
    Shutdown,
    Stats,
    Stop,
    Submit,
)
from core.errors import Cancelled, UserError
from core.monitor import Monitor
from core.options import Sampling
from core.traffic import TrafficMeter

if TYPE_CHECKING:
    from core.engine.load import Engine
    from core.engine.session import Session

log = logging.getLogger(__name__)


class LocalBackend:
    """Runs a model in this process. `meters` sends a Snapshot a second.

    Stop, Configure and Apply act at once, past the queue: a running reply looks at them before every
    unit, every token and every pass. Everything else is done in the order it came.
    """

    def __init__(self, *, meters: bool = False) -> None:
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._settings = Configure(Sampling())
        self._stopped = -1  # every run up to this number has been stopped
        self._wanted: deque[Apply] = deque(maxlen=1)  # the placement that is asked for; the latest wins
        self._closing = threading.Event()
        self._engine: Engine | None = None
        self._session: Session | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._sink: Sink = _nowhere
        self._meters = meters
        self._monitor: Monitor | None = None

    def start(self, sink: Sink) -> None:
        """Begin to take commands and to deliver events to `sink`."""
        self._sink = sink
        self._thread.start()
        if self._meters:
            meter = TrafficMeter(lambda: self._engine.machine.ledger if self._engine else None)
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
            case Shutdown():
                self._closing.set()
                self._commands.put(command)
            case _:
                self._commands.put(command)

    def close(self, timeout: float) -> bool:
        """Stop everything; True if the thread ended within `timeout` seconds."""
        if self._monitor is not None:
            self._monitor.stop()
        self.submit(Shutdown())
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

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
            case OpenChat():
                if self._session is not None:
                    self._session.open(command)

    def _load(self, command: Load) -> None:
        self._sink(Loading("starting torch"))
        from core.engine.load import load
        from core.engine.session import Session

        if self._engine is not None:
            self._engine.placement.close()
            self._engine = self._session = None
        try:
            self._engine = load(command.options, self._sink, self._closing.is_set)
        except Cancelled:
            return
        self._engine.runner.before = self._between_passes
        self._session = Session(self._engine, lambda: self._settings, self._sink)
        self._sink(Placed(self._engine.placement.plan, self._engine.placement.unpinned))
        self._sink(Ready(self._engine.info))

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
            self._sink(Placed(placement.plan, placement.unpinned))
        self._engine.runner.rows = placement.plan.rows

    def _reply(self, command: Submit | Resume) -> None:
        run, session = command.run, self._session
        if session is None:
            self._sink(Done(run, Reason.ERROR, Stats(), error="no model is loaded"))
        elif self._is_stopped(run):
            self._sink(Done(run, Reason.CANCELLED, Stats(), head=session.conversation.head))
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
                head = self._session.conversation.head if self._session else None
                self._sink(Done(run, Reason.ERROR, Stats(), head=head, error=text))
            case Score(run):
                if not user:
                    self._sink(Failed(text, user=False))
                self._sink(Scored(run, error=text))
            case _:
                self._sink(Failed(text, user=user))


def _nowhere(event: object) -> None:
    """Where events go before there is a sink."""
