"""Replies without a screen: text or JSON on stdout, numbers on stderr."""

from __future__ import annotations

import json
import queue
import sys
from collections.abc import Iterable

from core.engine.backend import Backend
from core.engine.commands import Configure, Load, OpenChat, Stop, Submit
from core.engine.events import Delta, Done, Event, Failed, Notice, Opened, Placed, Ready, Reply
from core.errors import UserError
from core.history.records import Chat
from core.options import LoadOptions, Sampling, Value
from core.sizes import format_size
from tui.console import Fault, model_line, placed_lines, wait_ready, with_status
from tui.figures import rate

_STOP_SECONDS = 2.0


@with_status
def run(
    backend: Backend,
    options: LoadOptions,
    values: dict[str, Value],
    messages: Iterable[str],
    *,
    as_json: bool,
    chat: Chat | None = None,
) -> int:
    """Load, answer each message in turn, and return the exit status. Raises UserError.

    The messages are said behind those of `chat`, where there is one.
    """
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    system = values["system"]
    backend.start(events.put)
    backend.submit(Configure(Sampling.from_values(values), system if isinstance(system, str) else None))
    backend.submit(Load(options))
    if chat is not None:
        backend.submit(OpenChat(tuple(saved.message for saved in chat.messages), chat.head, chat.id))
    number = 0
    try:
        model = wait_ready(events)
        if chat is not None:
            _wait_opened(events)
        for number, text in enumerate(messages):
            backend.submit(Submit(number, text))
            reply = _answer(events, as_json=as_json)
            if number == 0:
                print(model_line(model), file=sys.stderr)
            print(_figures(reply, simulated=model.device == "sim"), file=sys.stderr)
    except KeyboardInterrupt:
        backend.submit(Stop(number))
        _drain(events, as_json=as_json)
        return 130
    return 0


def _wait_opened(events: queue.SimpleQueue[Event]) -> None:
    """Until the saved conversation is in place; raises UserError or Fault where it cannot be."""
    while True:
        match events.get():
            case Notice(text):
                print(text, file=sys.stderr)
            case Failed() as failed:
                raise UserError(failed.text) if failed.user else Fault(failed.text)
            case Opened():
                return


def _answer(events: queue.SimpleQueue[Event], *, as_json: bool) -> Reply:
    """Print one reply as it comes; raises UserError or Fault if there is none."""
    user = True
    while True:
        match events.get():
            case Delta(text=text) if not as_json:
                print(text, end="", flush=True)
            case Notice(text):
                print(text, file=sys.stderr)
            case Placed() as placed:
                for line in placed_lines(placed):
                    print(line, file=sys.stderr)
            case Failed():
                user = False  # the Done that follows says what it was
            case Done(reply=Reply() as reply, error=None):
                print(json.dumps(reply.as_json()) if as_json else "", flush=True)
                return reply
            case Done(error=error):
                raise UserError(str(error)) if user else Fault(str(error))


def _figures(reply: Reply, *, simulated: bool = False) -> str:
    stats = reply.stats
    figures = [f"{len(reply.tokens)} tokens", f"prompt {reply.prompt_tokens} ({reply.cached_tokens} cached)"]
    if stats.ttft_s is not None:
        figures.append(f"first {stats.ttft_s:.2f} s")
    if stats.decode_tok_s is not None:
        figures.append(f"{rate(stats.decode_tok_s)} tok/s{' simulated' * simulated}")
    if stats.streamed_bytes_per_token:
        figures.append(f"{format_size(stats.streamed_bytes_per_token)} per token")
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
