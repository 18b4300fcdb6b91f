"""What the start screen offers, as rows: the last conversation, recent models, the demo, made-up weights."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core import demo
from core.checkpoint.layout import model_name
from core.history.launch import PATHS
from core.history.records import ChatRow, PastLaunch
from core.model.shapes import SHAPES
from core.options import BY_KEY
from core.sizes import format_size
from tui.widgets.chat_list import shown_title, when
from tui.widgets.start_list import StartRow

if TYPE_CHECKING:
    from core.history.store import History

RECENT = 8
_SHAPES = {"1b": "TinyLlama 1.1B", "7b": "Llama 2 7B", "13b": "Llama 2 13B", "70b": "Llama 2 70B"}


@dataclass(frozen=True, slots=True)
class Past:
    """What was done before: the last conversation, and the last models."""

    chat: ChatRow | None = None
    launches: Sequence[PastLaunch] = ()


def read_past(history: History) -> Past:
    """What the history knows. Raises UserError where it cannot be read."""
    newest = history.rows(0, 1)
    return Past(newest[0] if newest else None, history.launches(RECENT))


def rows_of(past: Past) -> list[StartRow]:
    """All that is offered, what was done last first."""
    now = time.time()
    rows: list[StartRow] = []
    if past.chat is not None:
        title = f"Go on with \u201c{shown_title(past.chat.title)}\u201d"
        at = when(past.chat.updated, now)
        rows.append(StartRow(title, f"{past.chat.model}  {at}".strip(), at, given={"continue": True}))
    rows += [_recent(launch, now) for launch in past.launches]
    if not any("demo" in launch.given for launch in past.launches):
        size = f"{demo.FILE_BYTES / 1e6:.0f} MB"
        detail = f"small, {size}" if demo.locate() else f"small, {size}, fetched once"
        rows.append(StartRow("Demo: SmolLM2-135M-Instruct", detail, size, given={"demo": True}))
    for name in SHAPES:
        what, short = "random weights, speaks in token ids", "random"
        title = f"Synthetic {name}: {_SHAPES.get(name, name)}"
        rows.append(StartRow(title, what, short, given={"synthetic": name}))
    return rows


def _recent(launch: PastLaunch, now: float) -> StartRow:
    given = launch.given
    path = next((str(given[key]) for key in ("checkpoint", "demo_file") if key in given), "")
    name = launch.model or (model_name(Path(path)) if path else "demo")
    return StartRow(name, when(launch.updated, now), below=path, flags=flags_of(given), given=given)


def flags_of(given: Mapping[str, Any]) -> str:
    """How a model was started beside its paths, as one would type it."""
    return " ".join(_words(given))


def _words(given: Mapping[str, Any]) -> Iterator[str]:
    for key, value in given.items():
        if key in PATHS:
            continue
        yield BY_KEY[key].flags[0] if key in BY_KEY else f"--{key.replace('_', '-')}"
        if isinstance(value, (list, tuple)):
            yield ",".join(map(str, value)) or "none"
        elif key in ("vram", "ram", "sim_vram"):
            yield format_size(value).replace(" ", "")
        elif value is not True:
            yield str(value)
