"""The command line: it checks what it can, then hands over to a mode."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.checkpoint import find
from core.checkpoint.layout import model_name
from core.engine.backend import Backend
from core.engine.worker import LocalBackend
from core.errors import UserError
from core.model.shapes import SHAPES
from core.options import PARAMS, LoadOptions, Value, default_values
from core.sizes import format_size
from core.weights.name_grammar import split_names
from core.weights.survey import refuse_without_device
from tui import perplexity
from tui.arguments import build as _parser
from tui.headless_input import read_messages

_NO_MESSAGES = ("perplexity", "plan", "bench")
"""What runs without a screen and answers nothing, by its flag."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for."""

    options: LoadOptions | None  # None: the demo model, wherever it lies or comes from
    extra: dict[str, Any]  # of LoadOptions, for the demo too: what is no parameter of the table
    values: dict[str, Value]
    changed: frozenset[str]
    messages: Iterator[str] | None  # what to answer without a screen
    sample: perplexity.Sample | None  # what to measure on; neither: the full-screen chat
    demo_file: str | None
    json: bool
    stats: Path | None
    plan: bool  # only show the placement
    bench: str | None  # the command line, where the table of all modes is asked for


def main(argv: Sequence[str] | None = None) -> int:
    """Run llama-tui; the exit status: 0, 1 (our fault), 2 (the user's), 130 (interrupted)."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        if "--clear-cache" in argv:
            return _clear_cache(argv)
        return _run(parse(argv))
    except UserError as error:
        return _mistake(error)
    except KeyboardInterrupt:
        return 130


def _run(request: Request) -> int:
    options = request.options or _demo(request)
    if request.plan:
        from tui import plan

        return plan.run(options, as_json=request.json)
    if request.bench is not None:
        from tui import bench

        return bench.run(options, request.bench, as_json=request.json)
    backend: Backend = LocalBackend(meters=request.messages is None and request.sample is None)
    if request.stats is not None:
        from tui.stats_log import StatsLog

        backend = StatsLog(backend, request.stats)
    try:
        code = _mode(backend, options, request)
    except UserError as error:
        code = _mistake(error)
    except KeyboardInterrupt:
        code = 130
    if not backend.close(timeout=1.0):
        # A thread in the middle of a kernel cannot be ended from outside; everything is written by now.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _mistake(error: UserError) -> int:
    print(f"llama-tui: {error}", file=sys.stderr)
    return 2


def _mode(backend: Backend, options: LoadOptions, request: Request) -> int:
    if request.sample is not None:
        return perplexity.run(backend, options, request.sample, as_json=request.json)
    if request.messages is not None:
        from tui.headless import run

        return run(backend, options, request.values, request.messages, as_json=request.json)
    return _chat(backend, options, request)


def _chat(backend: Backend, options: LoadOptions, request: Request) -> int:
    from tui.app import run

    name = "SmolLM2-135M-Instruct" if request.options is None else _name(options)
    outcome = run(backend, options, request.values, changed=request.changed, model_name=name)
    if outcome.line:
        print(f"llama-tui: {outcome.line}", file=sys.stderr)
    return outcome.exit_code


def _name(options: LoadOptions) -> str:
    return f"synthetic-{options.synthetic}" if options.synthetic else model_name(Path(options.checkpoint))


def _clear_cache(argv: Sequence[str]) -> int:
    """Delete the packed files and say which they were."""
    if list(argv) != ["--clear-cache"]:
        raise UserError("--clear-cache deletes files and does nothing else; give it alone")
    from core.weights import packed_files

    deleted = packed_files.clear()
    for path, nbytes in deleted:
        print(f"deleted {path} ({format_size(nbytes)})")
    total = sum(nbytes for _, nbytes in deleted)
    print(f"{format_size(total)} in {len(deleted)} files" if deleted else "there were no packed files")
    return 0


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
    return _load_options(str(path), None, request.values, request.extra)


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


def parse(argv: Sequence[str]) -> Request:
    """The request behind an argument list. Raises UserError for anything that is not understood."""
    given = vars(_parser().parse_args(argv))
    typed = {key: value for key, value in given.items() if value is not None}
    for param in PARAMS:
        if param.kind == "names" and param.key in typed:
            typed[param.key] = param.parse(" ".join(typed[param.key]))
    if typed.pop("cpu", False):
        typed["device"] = "cpu"
    if typed.pop("f16", False):
        typed["dtype"] = "float16"
    if typed.pop("use_8bit", False) and typed.setdefault("quant", "int8") != "int8":
        raise UserError(f"--use_8bit and --quant {typed['quant']} are both given; leave one out")
    keys = {param.key for param in PARAMS}
    changed = frozenset(key for key in typed if key in keys)
    raw = typed.get("raw", False) or "perplexity" in typed  # a text to measure on is no conversation
    values = default_values() | {key: typed[key] for key in changed} | {"raw": raw}
    demo = bool(typed.get("demo")) or "demo_file" in typed
    extra = _extra(typed, values)
    options = _options(typed, values, extra, demo)
    _check_placement(options or _load_options("", None, values, extra))
    return Request(
        options=options,
        extra=extra,
        values=values,
        changed=changed,
        messages=None if not typed.keys().isdisjoint(_NO_MESSAGES) else read_messages(typed),
        sample=_sample(typed),
        demo_file=typed.get("demo_file"),
        json=_json(typed),
        stats=typed.get("stats"),
        plan=_plan(typed),
        bench=shlex.join(["llama-tui", *argv]) if _bench(typed) else None,
    )


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
        return _load_options("", None, values, extra)
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
    return _load_options(checkpoint, typed.get("tokenizer"), values, extra)


def _load_options(
    checkpoint: str, tokenizer: str | None, values: dict[str, Value], extra: dict[str, Any]
) -> LoadOptions:
    known: dict[str, Any] = {
        key: values[key]
        for key in ("device", "dtype", "quant", "kernels", "context", "chat_format", "vram", "ram")
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
