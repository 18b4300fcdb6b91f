"""What the command line asks for, checked as far as it can be before anything is loaded."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.checkpoint import find
from core.config.read import Config, read_config
from core.errors import UserError
from core.folders import config_file
from core.history.launch import MODEL
from core.model.shapes import SHAPES
from core.options import BY_KEY, LoadOptions, Value
from core.weights.name_grammar import split_names
from core.weights.survey import device_of, refuse_without_device
from tui import history_commands, perplexity
from tui.arguments import build, read_parameters
from tui.charset import only_ascii
from tui.headless_input import asks_for_lines, read_messages, undrawable
from tui.start_values import Start, resolve, without_device

if TYPE_CHECKING:
    from core.history.records import Chat

_NO_MESSAGES = ("perplexity", "plan", "bench")
"""What runs without a screen and answers nothing, by its flag."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for."""

    named: bool  # whether it says which model; else that is chosen on the start screen
    options: LoadOptions | None  # None: the demo model, wherever it lies or comes from, or none yet
    extra: dict[str, Any]  # of LoadOptions, for the demo too: what is no parameter of the table
    start: Start  # the settings, and where they come from
    config: Config
    history: bool  # whether the conversation is saved
    mouse: bool  # whether the chat is told of the mouse
    ascii: bool  # whether the chat is drawn in ASCII
    launch: dict[str, Any]  # what the model is started with, to be kept beside the conversation
    chat: Chat | None  # a saved conversation to go on with
    messages: Iterator[str] | None  # what to answer without a screen
    lines: bool  # whether the user talks line by line, on a terminal that is not drawn on
    sample: perplexity.Sample | None  # what to measure on; none of these: the full-screen chat
    demo_file: str | None
    json: bool
    stats: Path | None
    plan: bool  # only show the placement
    bench: str | None  # the command line, where the table of all modes is asked for


def parse(argv: Sequence[str], chosen: Mapping[str, Any] | None = None) -> Request:
    """The request behind an argument list. Raises UserError for anything that is not understood.

    `chosen` is what stands beside it as if it had been typed, by the names of the command line; what was
    typed wins.
    """
    typed = vars(build().parse_args(argv))
    typed |= read_parameters(typed)
    if chosen is not None:
        typed = history_commands.with_launch(typed, chosen)
    named = chosen is not None or not _may_choose(typed)
    chat = history_commands.resumed(typed)
    if chat is not None:
        typed = history_commands.with_chat(typed, chat)
    flags = {key: value for key, value in typed.items() if key in BY_KEY}
    config = read_config(config_file())
    start = resolve(flags, typed.get("preset"), os.environ, config)
    if start.wishes and device_of(str(start.values["device"])) == "cpu":
        start = without_device(start)
    raw = typed.get("raw", False) or "perplexity" in typed  # a text to measure on is no conversation
    values = start.values | {"raw": raw}
    demo = bool(typed.get("demo")) or "demo_file" in typed
    with start.explained():
        extra = _extra(typed, values)
        options = _options(typed, values, extra, demo) if named else None
        _check_placement(options or load_options("", None, values, extra))
    lines = asks_for_lines(typed)
    silent = lines or not typed.keys().isdisjoint(_NO_MESSAGES)
    messages = None if silent else read_messages(typed)
    if chat is not None and messages is not None:
        history_commands.check_headless(chat, raw=bool(raw))
    return Request(
        named=named,
        options=options,
        extra=extra,
        start=start,
        config=config,
        history=bool(typed.get("history", config.history)),
        mouse=bool(typed.get("mouse", config.mouse)),
        ascii="ascii" in typed or (only_ascii(os.environ) if config.ascii is None else config.ascii),
        launch=history_commands.launch_of(typed),
        chat=chat,
        messages=messages,
        lines=lines,
        sample=_sample(typed),
        demo_file=typed.get("demo_file"),
        json=_json(typed),
        stats=typed.get("stats"),
        plan=_plan(typed),
        bench=shlex.join(["llama-tui", *argv]) if _bench(typed) else None,
    )


def _may_choose(typed: dict[str, Any]) -> bool:
    """Whether the model can be chosen on a screen, because nothing says which it is."""
    says = (*MODEL, "continue", "resume", "prompt", "script", *_NO_MESSAGES)
    return typed.keys().isdisjoint(says) and undrawable() is None


def _extra(typed: dict[str, Any], values: dict[str, Value]) -> dict[str, Any]:
    """What LoadOptions has beyond the table of parameters."""
    for key in ("sim_vram", "sim_link"):
        if key in typed and values["device"] != "sim":
            raise UserError(f"--{key.replace('_', '-')} goes with --device sim; give both, or neither")
    keep = values["offload_exclusion"]
    extra = {key: typed[key] for key in ("synthetic", "sim_vram", "sim_link") if key in typed}
    return extra | {"raw": bool(values["raw"]), "offload": "offload" in typed or keep is not None}


def _options(
    typed: dict[str, Any], values: dict[str, Value], extra: dict[str, Any], demo: bool
) -> LoadOptions | None:
    checkpoint = typed.get("checkpoint")
    if "synthetic" in typed:
        other = "--demo" if demo else repr(checkpoint)
        if demo or checkpoint is not None:
            raise UserError(
                f"--synthetic stands in for the checkpoint, but {other} is given too; leave one out"
            )
        return load_options("", None, values, extra)
    if demo:
        if checkpoint is not None:
            raise UserError(
                f"--demo stands in for the checkpoint, but {checkpoint!r} is given too; leave one out"
            )
        return None
    if checkpoint is None:
        raise UserError(
            "no checkpoint; give its folder (llama-tui CKPT TOKENIZER), or --demo to try a small one"
        )
    find(checkpoint, typed.get("tokenizer"))  # a wrong path is refused before anything else is read
    return load_options(checkpoint, typed.get("tokenizer"), values, extra)


def load_options(
    checkpoint: str, tokenizer: str | None, values: dict[str, Value], extra: dict[str, Any]
) -> LoadOptions:
    """What to load and how, of the settings and what there is beyond them."""
    known: dict[str, Any] = {
        key: values[key]
        for key in ("device", "dtype", "quant", "kv", "kernels", "context", "chat_format", "vram", "ram")
    }
    keep, cpu = values["offload_exclusion"], values["cpu_layers"] or ()
    return LoadOptions(checkpoint, tokenizer, **known, **extra, keep=keep, cpu_layers=cpu)  # type: ignore[arg-type]


def _check_placement(options: LoadOptions) -> None:
    """Refuse what is known to be wrong before anything is opened."""
    if options.device == "cpu":
        refuse_without_device(options)
    if options.synthetic is not None:
        layers = SHAPES[options.synthetic].n_layers
        split_names(options.keep or (), "--offload-exclusion", layers)
        split_names(options.cpu_layers, "--cpu-layers", layers)


def _plan(typed: dict[str, Any]) -> bool:
    """Whether only the placement is asked for."""
    if "plan" in typed:
        for key in ("prompt", "script", "perplexity", "stats"):
            if key in typed:
                raise UserError(f"--plan and --{key} are both given; leave one out")
    return "plan" in typed


def _bench(typed: dict[str, Any]) -> bool:
    """Whether the table of all modes is asked for, which excludes what asks for anything else."""
    if "bench" in typed:
        for key in ("prompt", "script", "perplexity", "plan", "stats"):
            if key in typed:
                raise UserError(f"--bench and --{key} are both given; leave one out")
    return "bench" in typed


def _sample(typed: dict[str, Any]) -> perplexity.Sample | None:
    """The text of --perplexity, which excludes everything that asks for a reply; None without it."""
    if "perplexity" not in typed:
        for key in ("tokens", "rows"):
            if key in typed:
                raise UserError(f"--{key} goes with --perplexity FILE; give both, or neither")
        return None
    for key in ("prompt", "script"):
        if key in typed:
            raise UserError(f"--perplexity and --{key} are both given; leave one out")
    if "stats" in typed:
        raise UserError("--stats keeps replies; with --perplexity use --json")
    return perplexity.read_sample(typed["perplexity"], typed.get("tokens"), typed.get("rows"))


def _json(typed: dict[str, Any]) -> bool:
    headless = not typed.keys().isdisjoint(("prompt", "script", *_NO_MESSAGES)) or not sys.stdin.isatty()
    if typed.get("json") and not headless:
        raise UserError(
            "--json goes with --prompt, --script, --plan, --perplexity, --bench or text on stdin; "
            "in the chat use --stats FILE"
        )
    return bool(typed.get("json"))
