"""The command line: the only argument parser. It checks what it can, then hands over to a mode."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from core.checkpoint import find
from core.checkpoint.layout import model_name
from core.engine.backend import Backend
from core.engine.worker import LocalBackend
from core.errors import Unbuilt, UserError
from core.options import PARAMS, LoadOptions, Param, Value, default_values
from tui import perplexity

_LATER = {
    "--synthetic": "NAME",
    "--plan": None,
    "--bench": None,
    "--vram": "SIZE",
    "--ram": "SIZE",
    "--offload": None,
    "--use_offload": None,
    "--offload-exclusion": "NAMES",
    "--offload_exclusion": "NAMES",
    "--cpu-layers": "NAMES",
    "--use_8bit": None,
    "--sim-vram": "SIZE",
    "--sim-link": "GB/S",
}
"""Documented in the contract, built by a later version: each is refused by name, never ignored."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for."""

    options: LoadOptions | None  # None: the demo model, wherever it lies or comes from
    values: dict[str, Value]
    changed: frozenset[str]
    messages: Iterator[str] | None  # what to answer without a screen
    sample: perplexity.Sample | None  # what to measure on; neither: the full-screen chat
    demo_file: str | None
    json: bool
    stats: Path | None


def main(argv: Sequence[str] | None = None) -> int:
    """Run llama-tui; the exit status: 0, 1 (our fault), 2 (the user's), 130 (interrupted)."""
    try:
        return _run(parse(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"llama-tui: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _run(request: Request) -> int:
    options = request.options or _demo(request)
    backend: Backend = LocalBackend(meters=request.messages is None and request.sample is None)
    if request.stats is not None:
        from tui.stats_log import StatsLog

        backend = StatsLog(backend, request.stats)
    if request.sample is not None:
        code = perplexity.run(backend, options, request.sample, as_json=request.json)
    elif request.messages is not None:
        from tui.headless import run

        code = run(backend, options, request.values, request.messages, as_json=request.json)
    else:
        code = _chat(backend, options, request)
    if not backend.close(timeout=2.0):
        # A thread in the middle of a kernel cannot be ended from outside; everything is written by now.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _chat(backend: Backend, options: LoadOptions, request: Request) -> int:
    from tui.app import run

    name = "SmolLM2-135M-Instruct" if request.options is None else model_name(Path(options.checkpoint))
    outcome = run(backend, options, request.values, changed=request.changed, model_name=name)
    if outcome.line:
        print(f"llama-tui: {outcome.line}", file=sys.stderr)
    return outcome.exit_code


def _demo(request: Request) -> LoadOptions:
    """The demo model's options; fetches it on first use, with progress on stderr."""
    from core import demo

    if request.demo_file is not None:
        path = demo.check_file(Path(request.demo_file))
    else:
        path = demo.locate() or _fetch()
    values = request.values
    return _load_options(str(path), None, values, raw=bool(values["raw"]))


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
    if typed.pop("cpu", False):
        typed["device"] = "cpu"
    if typed.pop("f16", False):
        typed["dtype"] = "float16"
    keys = {param.key for param in PARAMS}
    changed = frozenset(key for key in typed if key in keys)
    raw = typed.get("raw", False) or "perplexity" in typed  # a text to measure on is no conversation
    values = default_values() | {key: typed[key] for key in changed} | {"raw": raw}
    demo = bool(typed.get("demo")) or "demo_file" in typed
    return Request(
        options=_options(typed, values, demo),
        values=values,
        changed=changed,
        messages=None if "perplexity" in typed else _messages(typed),
        sample=_sample(typed),
        demo_file=typed.get("demo_file"),
        json=_json(typed),
        stats=typed.get("stats"),
    )


def _options(typed: dict[str, Any], values: dict[str, Value], demo: bool) -> LoadOptions | None:
    checkpoint = typed.get("checkpoint")
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
    return _load_options(checkpoint, typed.get("tokenizer"), values, raw=bool(values["raw"]))


def _load_options(
    checkpoint: str, tokenizer: str | None, values: dict[str, Value], *, raw: bool
) -> LoadOptions:
    context, chat = values["context"], values["chat_format"]
    return LoadOptions(
        checkpoint=checkpoint,
        tokenizer=tokenizer,
        device=str(values["device"]),
        dtype=str(values["dtype"]),
        context=context if isinstance(context, int) else None,
        chat_format=chat if isinstance(chat, str) else None,
        raw=raw,
    )


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


def _messages(typed: dict[str, Any]) -> Iterator[str] | None:
    """What to answer without a screen; None for the chat. Reads stdin only where nothing else is given."""
    prompt, script = typed.get("prompt"), typed.get("script")
    if prompt is not None and script is not None:
        raise UserError("--prompt and --script are both given; leave one out")
    if prompt is not None:
        return iter([_checked(prompt, "--prompt", typed)])
    if script is not None:
        return _lines(script)
    if not sys.stdin.isatty():
        return iter([_checked(_stdin().read(), "stdin", typed)])
    if not (sys.stdout.isatty() and sys.stderr.isatty()):
        raise UserError("no terminal to draw on; give --prompt TEXT, --script FILE, or text on stdin")
    if os.environ.get("TERM", "dumb") == "dumb":
        raise UserError(
            "TERM=dumb: this terminal cannot show a full screen; give --prompt TEXT or --script FILE"
        )
    return None


def _checked(text: str, source: str, typed: dict[str, Any]) -> str:
    text = text.removesuffix("\n") if source == "stdin" else text
    if not text.strip() and not typed.get("raw"):
        raise UserError(f"{source} is empty; give a message, or --raw to complete from nothing")
    return text


def _lines(script: str) -> Iterator[str]:
    """One message a line; blank lines say nothing."""
    try:
        if script == "-":
            file = _stdin()
        else:
            file = open(os.path.expanduser(script), encoding="utf-8", errors="replace")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"--script {script}: cannot be read ({error.strerror}); give a text file") from None

    def read() -> Iterator[str]:
        with file:
            for line in file:
                if line.strip():
                    yield line.removesuffix("\n")

    return read()


def _stdin() -> Any:
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    return sys.stdin


def _json(typed: dict[str, Any]) -> bool:
    headless = not typed.keys().isdisjoint(("prompt", "script", "perplexity")) or not sys.stdin.isatty()
    if typed.get("json") and not headless:
        raise UserError(
            "--json goes with --prompt, --script, --perplexity or text on stdin; in the chat use --stats FILE"
        )
    return bool(typed.get("json"))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see llama-tui --help")


class _Refuse(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        raise Unbuilt(str(option_string))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="llama-tui",
        usage="llama-tui [CKPT [TOKENIZER]] [options]",
        description="A full-screen terminal chat for Llama models. With --prompt, --script or text on stdin "
        "it answers without a screen. F1 in the chat shows the keys.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add(
        "checkpoint",
        nargs="?",
        metavar="CKPT",
        help="a Llama: folder of Meta or Hugging Face, or GGUF file",
    )
    add(
        "tokenizer",
        nargs="?",
        metavar="TOKENIZER",
        help="tokenizer.model or tokenizer.json, where it does not lie in or beside the checkpoint",
    )
    add("--demo", action="store_true", help="SmolLM2-135M-Instruct, a small chat model, fetched once (98 MB)")
    add("--demo-file", metavar="PATH", help="the demo model from this GGUF file instead of fetching it")
    add("--prompt", metavar="TEXT", help="one reply on stdout, then exit")
    add("--script", metavar="FILE", help="a conversation, one message a line; - is stdin")
    add("--perplexity", metavar="FILE", help="how well the model predicts a text; lower is better")
    add(
        "--tokens",
        metavar="N",
        type=_at_least("--tokens", 2),
        help="with --perplexity: only the first N tokens of the text",
    )
    add(
        "--rows",
        metavar="N",
        type=_at_least("--rows", 1),
        help="with --perplexity: tokens in one call of the model, 1 as in a reply. Default: the context.",
    )
    add("--raw", action="store_true", help="complete the text after BOS, without any chat format")
    add("--json", action="store_true", help="one JSON object a reply, or for --perplexity, on stdout")
    add(
        "--stats",
        metavar="FILE",
        type=_writable,
        help="append the same JSON objects to FILE, in the chat too",
    )
    add("--cpu", action="store_true", help="the same as --device cpu")
    add("--f16", action="store_true", help="the same as --dtype float16")
    add("--quant", type=_only("--quant", "none"), help=argparse.SUPPRESS)
    add("--kv", type=_only("--kv", "float"), help=argparse.SUPPRESS)
    add("--version", action="version", version=f"llama-tui {version('llama-tui')}")
    for param in PARAMS:
        spellings = [
            s for flag in param.flags for s in dict.fromkeys((flag, "--" + flag[2:].replace("-", "_")))
        ]
        add(*spellings, dest=param.key, type=_parse(param), metavar=_metavar(param), help=_help(param))
    for flag, metavar in _LATER.items():
        add(
            flag, action=_Refuse, nargs=0 if metavar is None else "*", metavar=metavar, help=argparse.SUPPRESS
        )
    return parser


def _parse(param: Param) -> Any:
    def parse(text: str) -> Value:
        if param.key == "device" and re.fullmatch(r"cuda:\d+", text):
            return text
        return param.parse(text)

    return parse


def _metavar(param: Param) -> str:
    if param.choices:
        return "|".join(map(str, param.choices))
    return {"float": "X", "int": "N", "text": "TEXT"}[param.kind]


def _help(param: Param) -> str:
    return f"{param.help} Default: {param.format(param.default)}.".replace("%", "%%")


def _at_least(flag: str, least: int) -> Any:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < least:
            raise UserError(f"{flag} {text}: give a whole number of at least {least}")
        return int(text)

    return parse


def _only(flag: str, accepted: str) -> Any:
    def parse(text: str) -> str:
        if text != accepted:
            raise Unbuilt(f"{flag} {text}")
        return text

    return parse


def _writable(text: str) -> Path:
    path = Path(os.path.expanduser(text))
    try:
        path.open("a").close()
    except OSError as error:
        raise UserError(f"--stats {text}: cannot be written ({error.strerror}); give another file") from None
    return path
