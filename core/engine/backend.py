"""The one thing the interface knows of an engine: commands in, events out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from core.engine.commands import Command
from core.engine.events import Event

Sink = Callable[[Event], None]
"""Receives events on a thread of the backend's; must not block."""


class Backend(Protocol):
    """A local worker, a scripted fake, or some day a remote server."""

    def start(self, sink: Sink) -> None:
        """Begin to deliver events to `sink`. Called once, before any command."""

    def submit(self, command: Command) -> None:
        """Hand over a command; returns at once, from any thread."""

    def close(self, timeout: float) -> bool:
        """Stop everything; True if the engine ended within `timeout` seconds."""
