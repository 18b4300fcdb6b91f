"""What all modes without a screen share: the load as stderr shows it, and the exit status."""

from __future__ import annotations

import functools
import os
import queue
import sys
from collections.abc import Callable
from typing import ParamSpec

from core.engine.events import Event, Failed, Loading, ModelInfo, Notice, Placed, Ready
from core.errors import UserError
from tui.figures import load_progress
from tui.placement_words import announcement, unpinned_note

P = ParamSpec("P")

ERASE = "\r\x1b[K"  # back to the start of the line, and clear it


class Fault(Exception):
    """A fault of ours, as the engine reported it."""


def with_status(mode: Callable[P, int]) -> Callable[P, int]:
    """`mode`, which ends with status 1 after a Fault, and where whoever read our output has left."""

    @functools.wraps(mode)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return mode(*args, **kwargs)
        except Fault as fault:
            print(f"llama-tui: {fault}", file=sys.stderr)
        except BrokenPipeError:
            # The interpreter's last flush must not fail on it either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1

    return run


def wait_ready(events: queue.SimpleQueue[Event]) -> ModelInfo:
    """Show the progress of a load where somebody looks; raises UserError or Fault if it fails."""
    watched = sys.stderr.isatty()
    while True:
        match events.get():
            case Loading() as loading if watched:
                print(f"{ERASE}{load_progress(loading)}", end="", file=sys.stderr, flush=True)
            case Notice(text):
                print(f"{ERASE * watched}{text}", file=sys.stderr)
            case Placed() as placed:
                for line in placed_lines(placed):
                    print(f"{ERASE * watched}{line}", file=sys.stderr)
            case Ready(model):
                print(ERASE * watched, end="", file=sys.stderr, flush=True)
                return model
            case Failed() as failed:
                print(ERASE * watched, end="", file=sys.stderr, flush=True)
                raise UserError(failed.text) if failed.user else Fault(failed.text)


def placed_lines(placed: Placed) -> list[str]:
    """What must not go unsaid of a placement: memory that is not pinned, and a change nobody asked for."""
    lines = [] if placed.reason is None else [f"{placed.reason}: {announcement(placed.plan)}"]
    return [*lines, unpinned_note(placed.ram_unpinned)] if placed.ram_unpinned else lines


def model_line(model: ModelInfo) -> str:
    """What was loaded, in one line."""
    return (
        f"{model.name} · {model.weights} · {model.device} · {model.chat_format} format · "
        f"context {model.context} · loaded in {model.load_s:.1f} s"
    )
