"""The command line: it hands over to a mode, and says how that ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from core.engine.backend import Backend
from core.errors import UserError
from core.options import LoadOptions
from tui import history_commands, perplexity, upkeep
from tui.opening import Opened, Progress, open_engine, open_history, options_of, talk_of
from tui.outcome import Outcome
from tui.request import Request, parse
from tui.talk import Talk


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
        if not request.named:
            return _choose(argv, request)
        with request.start.explained():
            return _run(request)
    except UserError as error:
        return _mistake(error)
    except KeyboardInterrupt:
        return 130


def _run(request: Request) -> int:
    with _fetching_on_stderr() as progress:
        options = options_of(request, progress)
    screen = request.messages is None and request.sample is None and not request.lines
    if not screen or request.plan or request.bench is not None:
        for note in request.start.notes:  # the chat shows them itself
            print(note, file=sys.stderr)
    if request.plan:
        from tui import plan

        return plan.run(options, as_json=request.json)
    if request.bench is not None:
        from tui import bench

        return bench.run(options, request.bench, as_json=request.json)
    opened = open_engine(request, meters=screen)
    return _closed(opened, _status(lambda: _mode(opened.backend, options, request), request))


def _closed(opened: Opened, code: int) -> int:
    """`code`, once the engine has ended."""
    ended = opened.backend.close(timeout=1.0)
    if opened.unsaved is not None:
        print(f"llama-tui: the end of the conversation is not saved: {opened.unsaved}", file=sys.stderr)
    if not ended:
        # A thread in the middle of a kernel cannot be ended from outside; everything is written by now.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _status(mode: Callable[[], int], request: Request) -> int:
    """The exit status of a mode."""
    try:
        with request.start.explained():
            return mode()
    except UserError as error:
        return _mistake(error)
    except KeyboardInterrupt:
        return 130


def _mistake(error: UserError) -> int:
    print(f"llama-tui: {error}", file=sys.stderr)
    return 2


def _mode(backend: Backend, options: LoadOptions, request: Request) -> int:
    if request.sample is not None:
        return perplexity.run(backend, options, request.sample, as_json=request.json)
    if request.lines:
        from tui.line_mode import run as run_lines

        return run_lines(talk_of(request, options, backend))
    if request.messages is not None:
        from tui.headless import run as run_headless

        return run_headless(
            backend,
            options,
            request.start.values,
            request.messages,
            as_json=request.json,
            chat=request.chat,
        )
    from tui.app import show

    talk = talk_of(request, options, backend)
    return _end(show(talk, config=request.config, ascii=request.ascii, mouse=request.mouse), request)


def _choose(argv: Sequence[str], request: Request) -> int:
    """The start screen, and the chat with what is chosen there."""
    from tui.app import choose

    made: list[tuple[Request, Opened]] = []

    def open_chosen(given: Mapping[str, Any], progress: Progress) -> Talk:
        chosen = parse(argv, given)
        with chosen.start.explained():
            options = options_of(chosen, progress)
        opened = open_engine(chosen, meters=True)
        made.append((chosen, opened))
        return talk_of(chosen, options, opened.backend)

    outcome = choose(
        open_chosen,
        history=open_history() if request.history else None,
        typed=argv,
        config=request.config,
        ascii=request.ascii,
        mouse=request.mouse,
    )
    code = _end(outcome, made[-1][0] if made else request)
    for _, opened in made:
        _closed(opened, code)
    return code


def _end(outcome: Outcome, request: Request) -> int:
    if outcome.line:
        print(f"llama-tui: {request.start.explain(outcome.line)}", file=sys.stderr)
    if outcome.command:
        print(outcome.command, file=sys.stderr)
    return outcome.exit_code


@contextmanager
def _fetching_on_stderr() -> Iterator[Progress]:
    """Shows how far the demo model is, on a line of its own."""
    begun = False

    def progress(done: int, total: int | None) -> None:
        nonlocal begun
        begun = True
        share = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{done / 1e6:.0f} MB"
        print(
            f"\rfetching the demo model SmolLM2-135M-Instruct, once: {share} ",
            end="",
            file=sys.stderr,
            flush=True,
        )

    try:
        yield progress
    finally:
        if begun:
            print(file=sys.stderr)
