"""The local backend: one thread that owns torch, commands in through a queue, events out.

Every torch call, the import included, happens on that thread: a second OpenMP pool would cost a
third of the speed. This module itself imports no torch, so the interface can name it at once.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

from core.engine.backend import Sink
from core.engine.events import (
    Command,
    Configure,
    Done,
    Failed,
    Load,
    Loading,
    Ready,
    Reason,
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

if TYPE_CHECKING:
    from core.engine.load import Engine
    from core.engine.session import Session

log = logging.getLogger(__name__)


class LocalBackend:
    """Runs a model in this process. `meters` sends a Snapshot a second.

    Stop and Configure act at once, past the queue: a running reply looks at them before every unit
    and every token. Everything else is done in the order it came.
    """

    def __init__(self, *, meters: bool = False) -> None:
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._settings = Configure(Sampling())
        self._stopped = -1  # every run up to this number has been stopped
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
            self._monitor = Monitor(sink)
            self._monitor.start()

    def submit(self, command: Command) -> None:
        """Hand over a command; returns at once, from any thread."""
        match command:
            case Stop(run):
                self._stopped = max(self._stopped, run)
            case Configure():
                self._settings = command
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

    def _handle(self, command: Command) -> None:
        match command:
            case Load():
                self._load(command)
            case Submit():
                self._reply(command)
            case Score():
                self._score(command)
            case Rewind(message_id):
                if self._session is not None:
                    self._session.conversation.rewind(message_id)

    def _load(self, command: Load) -> None:
        self._sink(Loading("starting torch"))
        from core.engine.load import load
        from core.engine.session import Session

        try:
            self._engine = load(command.options, self._sink, self._closing.is_set)
        except Cancelled:
            return
        self._session = Session(self._engine, lambda: self._settings, self._sink)
        self._sink(Ready(self._engine.info))

    def _reply(self, command: Submit) -> None:
        run = command.run
        if self._session is None:
            self._sink(Done(run, Reason.ERROR, Stats(), error="no model is loaded"))
        elif self._is_stopped(run):
            self._sink(Done(run, Reason.CANCELLED, Stats()))
        else:
            self._sink(self._session.reply(run, command.text, lambda: self._is_stopped(run)))

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
            case Submit(run):
                if not user:
                    self._sink(Failed(text, user=False))
                self._sink(Done(run, Reason.ERROR, Stats(), error=text))
            case Score(run):
                if not user:
                    self._sink(Failed(text, user=False))
                self._sink(Scored(run, error=text))
            case _:
                self._sink(Failed(text, user=user))


def _nowhere(event: object) -> None:
    """Where events go before there is a sink."""
