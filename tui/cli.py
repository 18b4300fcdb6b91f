"""The command line: it hands over to a mode, and says how that ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.checkpoint.layout import model_name
from core.engine.backend import Backend
from core.engine.worker import LocalBackend
from core.errors import UserError
from core.folders import history_file
from core.options import LoadOptions
from tui import history_commands, perplexity, upkeep
from tui.request import Request, load_options, parse
from tui.settings import Settings

if TYPE_CHECKING:
    from core.history.recorder import Recorder
    from core.history.store import History


def main(argv: Sequence[str] | None = None) -> int:
    """Run llama-tui; the exit status: 0, 1 (our fault), 2 (the user's), 130 (interrupted)."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        alone = upkeep.command(argv)
        if alone is not None:
            return alone()
        if history_commands.asked(argv):
            return history_commands.run(argv)
        request = parse(argv)
        with request.start.explained():
            return _run(request)
    except UserError as error:
        return _mistake(error)
    except KeyboardInterrupt:
        return 130


def _run(request: Request) -> int:
    options = request.options or _demo(request)
    headless = request.messages is not None or request.sample is not None
    if headless or request.plan or request.bench is not None:
        for note in request.start.notes:  # the chat shows them itself
            print(note, file=sys.stderr)
    if request.plan:
        from tui import plan

        return plan.run(options, as_json=request.json)
    if request.bench is not None:
        from tui import bench

        return bench.run(options, request.bench, as_json=request.json)
    backend: Backend = LocalBackend(meters=not headless)
    recorder = _recorder(backend, request)
    backend = recorder or backend
    if request.stats is not None:
        from tui.stats_log import StatsLog

        backend = StatsLog(backend, request.stats)
    try:
        with request.start.explained():
            code = _mode(backend, options, request)
    except UserError as error:
        code = _mistake(error)
    except KeyboardInterrupt:
        code = 130
    ended = backend.close(timeout=1.0)
    if recorder is not None and recorder.failure is not None:
        print(f"llama-tui: the end of the conversation is not saved: {recorder.failure}", file=sys.stderr)
    if not ended:
        # A thread in the middle of a kernel cannot be ended from outside; everything is written by now.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


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


def _mistake(error: UserError) -> int:
    print(f"llama-tui: {error}", file=sys.stderr)
    return 2


def _mode(backend: Backend, options: LoadOptions, request: Request) -> int:
    if request.sample is not None:
        return perplexity.run(backend, options, request.sample, as_json=request.json)
    if request.messages is not None:
        from tui.headless import run

        return run(
            backend,
            options,
            request.start.values,
            request.messages,
            as_json=request.json,
            chat=request.chat,
        )
    return _chat(backend, options, request)


def _chat(backend: Backend, options: LoadOptions, request: Request) -> int:
    from tui.app import run

    name = "SmolLM2-135M-Instruct" if request.options is None else _name(options)
    start, config = request.start, request.config
    settings = Settings(start.values, start.presets, start.preset, start.replaced)
    outcome = run(
        backend,
        options,
        settings,
        model_name=name,
        notes=start.notes,
        config=config,
        history=_history() if request.history else None,
        chat=request.chat,
    )
    if outcome.line:
        print(f"llama-tui: {start.explain(outcome.line)}", file=sys.stderr)
    if outcome.command:
        print(outcome.command, file=sys.stderr)
    return outcome.exit_code


def _history() -> History:
    from core.history.store import History  # sqlite, which other modes do without

    return History(history_file())


def _name(options: LoadOptions) -> str:
    return f"synthetic-{options.synthetic}" if options.synthetic else model_name(Path(options.checkpoint))


def _demo(request: Request) -> LoadOptions:
    """The demo model's options; fetches it on first use, with progress on stderr."""
    from core import demo

    if request.demo_file is not None:
        path = demo.check_file(Path(request.demo_file))
    else:
        found = demo.locate()
        if found is None and request.plan:
            raise UserError("--plan reads no weights, and the demo model is not here yet; run --demo once")
        path = found or _fetch()
    return load_options(str(path), None, request.start.values, request.extra)


def _fetch() -> Path:
    from core import demo

    def progress(done: int, total: int | None) -> None:
        share = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{done / 1e6:.0f} MB"
        print(
            f"\rfetching the demo model SmolLM2-135M-Instruct, once: {share} ",
            end="",
            file=sys.stderr,
            flush=True,
        )

    try:
        return demo.fetch(progress)
    finally:
        print(file=sys.stderr)
