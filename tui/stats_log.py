"""`--stats FILE`: every finished reply as a line of JSON, whatever the mode."""

from __future__ import annotations

import json
from pathlib import Path

from core.engine.backend import Backend, Sink
from core.engine.commands import Command
from core.engine.events import Done, Event, Notice


class StatsLog:
    """A backend that writes down the replies of another as they pass."""

    def __init__(self, backend: Backend, path: Path) -> None:
        self._backend, self._path = backend, path

    def start(self, sink: Sink) -> None:
        """Begin to deliver events to `sink`, appending replies to the file before."""

        def record(event: Event) -> None:
            if isinstance(event, Done) and event.reply is not None:
                try:
                    with self._path.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(event.reply.as_json()) + "\n")
                except OSError as error:
                    sink(Notice(f"--stats {self._path}: cannot be written ({error.strerror})", "warning"))
            sink(event)

        self._backend.start(record)

    def submit(self, command: Command) -> None:
        """Hand over a command."""
        self._backend.submit(command)

    def close(self, timeout: float) -> bool:
        """Stop everything; True if the engine ended within `timeout` seconds."""
        return self._backend.close(timeout)
