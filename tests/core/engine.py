"""An engine on its thread as tests talk to it: commands in, events out."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass, field

from core.engine.commands import Command, Resume, Submit
from core.engine.events import Done, Event, Reply
from core.engine.worker import LocalBackend
from core.options import Sampling

GREEDY = Sampling(temperature=0, max_tokens=60)


@dataclass
class Engine:
    """A backend and its events, in the order they came."""

    backend: LocalBackend
    events: queue.SimpleQueue[Event]
    run: int = -1
    seen: list[Event] = field(default_factory=list)  # all that was taken from the queue

    def send(self, *commands: Command) -> None:
        for command in commands:
            self.backend.submit(command)

    def until(self, kind: type[Event], seen: Callable[[Event], None] = lambda event: None) -> Event:
        while True:
            event = self.events.get(timeout=60)
            self.seen.append(event)
            seen(event)
            if isinstance(event, kind):
                return event

    def ask(self, text: str, seen: Callable[[Event], None] = lambda event: None) -> Done:
        self.run += 1
        self.send(Submit(self.run, text))
        done = self.until(Done, seen)
        assert isinstance(done, Done)
        return done

    def resume(self) -> Done:
        """Have the model speak at the head."""
        self.run += 1
        self.send(Resume(self.run))
        done = self.until(Done)
        assert isinstance(done, Done)
        return done

    def reply(self, text: str) -> Reply:
        reply = self.ask(text).reply
        assert reply is not None
        return reply
