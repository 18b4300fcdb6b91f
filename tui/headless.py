"""Replies without a screen: text or JSON on stdout, numbers on stderr."""

from __future__ import annotations

import json
import os
import queue
import sys
from collections.abc import Iterable

from core.engine.backend import Backend
from core.engine.events import (
    Configure,
    Delta,
    Done,
    Event,
    Failed,
    Load,
    Loading,
    ModelInfo,
    Notice,
    Ready,
    Reply,
    Stop,
    Submit,
)
from core.errors import UserError
from core.options import LoadOptions, Sampling, Value

_STOP_SECONDS = 2.0
_ERASE = "\r\x1b[K"  # back to the start of the line, and clear it


def run(
    backend: Backend,
    options: LoadOptions,
    values: dict[str, Value],
    messages: Iterable[str],
    *,
    as_json: bool,
) -> int:
    """Load, answer each message in turn, and return the exit status. Raises UserError."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    system = values["system"]
    backend.start(events.put)
    backend.submit(Configure(Sampling.from_values(values), system if isinstance(system, str) else None))
    backend.submit(Load(options))
    number = 0
    try:
        model = _wait_ready(events)
        for number, text in enumerate(messages):
            backend.submit(Submit(number, text))
            reply = _answer(events, as_json=as_json)
            if number == 0:
                print(_model_line(model), file=sys.stderr)
            print(_figures(reply), file=sys.stderr)
    except _Fault as fault:
        print(f"llama-tui: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        backend.submit(Stop(number))
        _drain(events, as_json=as_json)
        return 130
    except BrokenPipeError:
        # Whoever read our output has left. The interpreter's last flush must not fail on it either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


class _Fault(Exception):
    """A fault of ours, as the engine reported it."""


def _wait_ready(events: queue.SimpleQueue[Event]) -> ModelInfo:
    """Show the progress of a load where somebody looks; raises UserError or _Fault if it fails."""
    watched = sys.stderr.isatty()
    while True:
        match events.get():
            case Loading(stage, done, total) if watched:
                share = f" {done / 1e9:.2f} of {total / 1e9:.2f} GB" if total else ""
                print(f"{_ERASE}{stage}{share}", end="", file=sys.stderr, flush=True)
            case Ready(model):
                print(_ERASE * watched, end="", file=sys.stderr, flush=True)
                return model
            case Failed() as failed:
                print(_ERASE * watched, end="", file=sys.stderr, flush=True)
                raise UserError(failed.text) if failed.user else _Fault(failed.text)


def _answer(events: queue.SimpleQueue[Event], *, as_json: bool) -> Reply:
    """Print one reply as it comes; raises UserError or _Fault if there is none."""
    user = True
    while True:
        match events.get():
            case Delta(text=text) if not as_json:
                print(text, end="", flush=True)
            case Notice(text):
                print(text, file=sys.stderr)
            case Failed():
                user = False  # the Done that follows says what it was
            case Done(reply=Reply() as reply):
                print(json.dumps(reply.as_json()) if as_json else "", flush=True)
                return reply
            case Done(error=error):
                raise UserError(str(error)) if user else _Fault(str(error))


def _model_line(model: ModelInfo) -> str:
    return (
        f"{model.name} · {model.dtype} · {model.device} · {model.chat_format} format · "
        f"context {model.context} · loaded in {model.load_s:.1f} s"
    )


def _figures(reply: Reply) -> str:
    stats = reply.stats
    figures = [f"{len(reply.tokens)} tokens", f"prompt {reply.prompt_tokens} ({reply.cached_tokens} cached)"]
    if stats.ttft_s is not None:
        figures.append(f"first {stats.ttft_s:.2f} s")
    if stats.decode_tok_s is not None:
        figures.append(f"{stats.decode_tok_s:.1f} tok/s")
    return " · ".join([*figures, f"seed {reply.seed}", str(reply.finish_reason)])


def _drain(events: queue.SimpleQueue[Event], *, as_json: bool) -> None:
    """After an interrupt: what was said so far, if the engine hands it over in time."""
    try:
        while True:
            match events.get(timeout=_STOP_SECONDS):
                case Delta(text=text) if not as_json:
                    print(text, end="", flush=True)
                case Done(reply=Reply() as reply):
                    print(json.dumps(reply.as_json()) if as_json else "", flush=True)
                    print(_figures(reply), file=sys.stderr)
                    return
                case Done() | Failed() | Ready():
                    return
    except (queue.Empty, KeyboardInterrupt):
        return
