"""From a request to an engine with all that stands around it, and to the chat that is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.checkpoint.layout import model_name
from core.engine.backend import Backend
from core.engine.worker import LocalBackend
from core.errors import UserError
from core.folders import history_file
from core.options import LoadOptions
from tui.request import Request, load_options
from tui.settings import Settings
from tui.talk import Talk

if TYPE_CHECKING:
    from core.history.recorder import Recorder
    from core.history.store import History

Progress = Callable[[int, int | None], None]
"""Told of bytes so far, and of all that will come where that is known; what it raises ends the work."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An engine with what saves its conversations (None: nothing does) and its figures."""

    backend: Backend
    recorder: Recorder | None

    @property
    def unsaved(self) -> str | None:
        """Why the end of a conversation is not saved, None where it is."""
        return None if self.recorder is None else self.recorder.failure


def open_engine(request: Request, *, meters: bool) -> Opened:
    """The engine that `request` asks for; nothing is loaded yet."""
    backend: Backend = LocalBackend(meters=meters)
    recorder = _recorder(backend, request)
    backend = recorder or backend
    if request.stats is not None:
        from tui.stats_log import StatsLog

        backend = StatsLog(backend, request.stats)
    return Opened(backend, recorder)


def _recorder(backend: Backend, request: Request) -> Recorder | None:
    """What saves the conversation; None where none is held, or nobody wants it back.

    A text that is completed alone, without a screen, is none.
    """
    synthetic = request.options is not None and request.options.synthetic is not None
    alone = request.messages is not None and (bool(request.extra["raw"]) or synthetic)
    if not request.history or request.sample is not None or (alone and request.chat is None):
        return None
    from core.history.recorder import Recorder

    return Recorder(backend, history_file(), request.launch)


def talk_of(request: Request, options: LoadOptions, backend: Backend) -> Talk:
    """The chat that is to be shown."""
    from tui.chat_session import ChatSession  # and Textual, which other modes do without

    start = request.start
    settings = Settings(start.values, start.presets, start.preset, start.replaced)
    return Talk(
        ChatSession(backend, options, settings),
        _name(request, options),
        start.notes,
        open_history() if request.history else None,
        request.chat,
    )


def open_history() -> History:
    """The user's conversations."""
    from core.history.store import History  # sqlite, which other modes do without

    return History(history_file())


def _name(request: Request, options: LoadOptions) -> str:
    if request.options is None:
        return "SmolLM2-135M-Instruct"
    return f"synthetic-{options.synthetic}" if options.synthetic else model_name(Path(options.checkpoint))


def options_of(request: Request, progress: Progress) -> LoadOptions:
    """What to load; the demo model is fetched where it is not there yet. Raises UserError."""
    if request.options is not None:
        return request.options
    from core import demo

    if request.demo_file is not None:
        path = demo.check_file(Path(request.demo_file))
    else:
        found = demo.locate()
        if found is None and request.plan:
            raise UserError("--plan reads no weights, and the demo model is not here yet; run --demo once")
        path = found or demo.fetch(progress)
    return load_options(str(path), None, request.start.values, request.extra)
