"""A chat line by line, for screen readers and plain terminals: nothing is drawn, and nothing drawn over."""

from __future__ import annotations

import queue
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from core.engine.events import (
    Begun,
    CacheRead,
    Cut,
    Delta,
    Done,
    Event,
    Failed,
    Loading,
    Notice,
    Placed,
    Placing,
    Prefill,
    Ready,
    Reason,
    Saved,
    Unloaded,
)
from core.errors import UserError
from core.text.sanitize import sanitize
from tui.console import Fault, model_line, placed_lines, with_status
from tui.figures import cache_words, cut_words, load_progress
from tui.line_commands import LineCommands
from tui.talk import Talk

_PROGRESS_S = 5.0
"""How long at least between two lines that say how far something is."""
_HELLO = "Type a message and press Enter. /help lists the commands, ctrl+c stops a reply, ctrl+d leaves."


@with_status
def run(talk: Talk) -> int:
    """Talk until the user leaves; the exit status. Raises UserError where the model cannot be loaded."""
    return LineMode(talk).run()


class LineMode(LineCommands):
    """Reads a line, does what it says, and prints the reply as it comes."""

    def __init__(self, talk: Talk) -> None:
        super().__init__(talk.session)
        self._talk = talk
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._told = time.monotonic()  # when progress was last told
        self._within = False  # a line that is not ended yet

    def run(self) -> int:
        """From the load to the end of the input."""
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
        session = self.session
        if self._talk.chat is not None:
            session.open(self._talk.chat)
        self._tell(f"loading {self._talk.model_name}")
        session.start(self._events.put)
        while session.model is None:
            self._note(self._events.get())
        if self._talk.chat is not None:
            self._tell(f"goes on with {self._talk.chat.title}")
        self._tell(_HELLO)
        while not self.left and (line := self._read()) is not None:
            self._take(line)
        return 0

    # --- what the user types ------------------------------------------------------------------------

    def _read(self) -> str | None:
        """A line without its end; None at the end of the input."""
        while True:
            try:
                print("> ", end="", flush=True)
                line = sys.stdin.readline()
            except KeyboardInterrupt:  # what was typed is gone, the user stays
                self.say("\nctrl+d leaves")
                continue
            if not line:
                print(flush=True)
                return None
            return line.removesuffix("\n")

    def _take(self, line: str) -> None:
        """Do what a line says, and wait until the engine is done with it."""
        with self._interrupts_stop():
            try:
                self.do(line)
            except UserError as error:
                self.say(str(error))
            while self.session.busy or self.waiting or not self._events.empty():
                self._note(self._events.get())

    @contextmanager
    def _interrupts_stop(self) -> Iterator[None]:
        """Inside, ctrl+c stops the reply and nothing else."""

        def stop(number: int, frame: FrameType | None) -> None:
            self._within = True  # the terminal has shown ^C
            self.session.stop()

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    # --- what the engine says -----------------------------------------------------------------------

    def _note(self, event: Event) -> None:
        session = self.session
        match event:
            case Delta():
                self._grew(event)
            case Prefill(done=done, total=total):
                session.prefilled(event)
                self._progress(f"reading the message: {done} of {total} tokens")
            case Begun():
                session.begun(event)
            case Done():
                self._done(event)
            case Cut():
                self._tell(cut_words(event))
            case Loading():
                session.load_progressed(event)
                self._progress(load_progress(event))
            case Ready(model):
                session.loaded(event)
                self._tell(model_line(model))
            case Unloaded():
                session.unloaded()
                self.waiting = False
                self._tell(session.state())
            case CacheRead():
                self.waiting = False
                self.say(cache_words(event))
            case Placing():
                session.placement.moved(event)
            case Placed():
                session.placement.placed(event)
                for line in placed_lines(event):
                    self._tell(line)
            case Saved():
                session.saved(event)
            case Notice(text):
                self._tell(text)
            case Failed():
                self._failed(event)

    def _grew(self, delta: Delta) -> None:
        if self.session.grew(delta) is not None:
            print(delta.text, end="", flush=True)
            self._within = bool(delta.text) or self._within

    def _done(self, done: Done) -> None:
        exchange = self.session.finished(done)
        if exchange is None:
            return
        if done.error is not None:
            self._tell(done.error)
        if exchange.tokens:
            self._tell(self.figures(exchange, done))
        elif done.reason is Reason.CANCELLED:
            self._tell("stopped before a word was said")

    def _failed(self, failed: Failed) -> None:
        self.waiting = False
        if failed.fatal:
            raise UserError(failed.text) if failed.user else Fault(failed.text)
        self._tell(failed.text)

    def _progress(self, text: str) -> None:
        """How far something is, as a line of its own from time to time."""
        now = time.monotonic()
        if now - self._told >= _PROGRESS_S:
            self._told = now
            self._tell(text)

    def _tell(self, text: str) -> None:
        """A line beside the conversation."""
        self._end_line()
        print(sanitize(text), file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line that answers a command."""
        self._end_line()
        print(sanitize(text), flush=True)

    def _end_line(self) -> None:
        if self._within:
            self._within = False
            print(flush=True)
