"""The flags: every one that is documented, each with its help."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from core.errors import UserError
from core.model.shapes import SHAPES
from core.options import PARAMS, Param, Value
from core.presets import SHIPPED
from core.sizes import parse_size

Add = Callable[..., Any]
"""ArgumentParser.add_argument."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see llama-tui --help")


def build() -> argparse.ArgumentParser:
    """The parser. What it does not understand is a UserError."""
    parser = _Parser(
        prog="llama-tui",
        usage="llama-tui [CKPT [TOKENIZER]] [options]",
        description="A full-screen terminal chat for Llama models. With --prompt, --script or text on stdin "
        "it answers without a screen. F1 in the chat shows the keys.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    for add in (_add_model, _add_modes, _add_own, _add_history, _add_placement, _add_parameters):
        add(parser.add_argument)
    return parser


def read_parameters(typed: dict[str, Any]) -> dict[str, Value]:
    """The parameters among what was typed, whichever way they were spelt. Raises UserError."""
    flags: dict[str, Value] = {}
    for param in PARAMS:
        if param.key in typed:
            given = typed[param.key]
            flags[param.key] = param.parse(" ".join(given)) if param.kind == "names" else given
    if typed.get("cpu"):
        flags["device"] = "cpu"
    if typed.get("f16"):
        flags["dtype"] = "float16"
    if typed.get("use_8bit") and flags.setdefault("quant", "int8") != "int8":
        raise UserError(f"--use_8bit and --quant {flags['quant']} are both given; leave one out")
    return flags


def _add_model(add: Add) -> None:
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
    add(
        "--synthetic",
        metavar="|".join(SHAPES),
        type=_shape,
        help="stands in for CKPT: random weights in the shape of TinyLlama 1.1B, Llama 2 7B, 13B or 70B; "
        "prompts are token ids joined by blanks",
    )
    add("--cpu", action="store_true", help="the same as --device cpu")
    add("--f16", action="store_true", help="the same as --dtype float16")
    add("--use_8bit", "--use-8bit", dest="use_8bit", action="store_true", help="the same as --quant int8")
    add("--version", action="version", version=f"llama-tui {version('llama-tui')}")


def _add_modes(add: Add) -> None:
    add("--prompt", metavar="TEXT", help="one reply on stdout, then exit")
    add(
        "--script",
        metavar="FILE",
        help="a conversation, one message a line; - is stdin, on a terminal a plain chat for screen readers",
    )
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
    add("--plan", action="store_true", help="where every weight would go, before one is read, then exit")
    add("--bench", action="store_true", help="the speed of every mode that this machine allows, as a table")
    add(
        "--clear-cache",
        action="store_true",
        help="delete the packed files that weights are read from disk with, then exit",
    )
    add(
        "--locate",
        action="store_true",
        help="print where configuration, history, cache and log are, then exit",
    )
    add("--raw", action="store_true", help="complete the text after BOS, without any chat format")
    add(
        "--json",
        action="store_true",
        help="one JSON object a reply, a row of --bench or --list-chats, or for --plan or --perplexity",
    )
    add(
        "--stats",
        metavar="FILE",
        type=_writable,
        help="append the same JSON objects to FILE, in the chat too",
    )


def _add_history(add: Add) -> None:
    """Saved conversations."""
    add(
        "--continue",
        action="store_true",
        help="go on with the last conversation; without CKPT on the model it was last held with",
    )
    add(
        "--resume",
        metavar="ID",
        type=_at_least("--resume", 1),
        help="go on with this conversation, whose number --list-chats shows",
    )
    add("--list-chats", action="store_true", help="the saved conversations, newest first, then exit")
    add(
        "--export",
        metavar="ID",
        type=_chat_or_all,
        help="a saved conversation on stdout, or all of them (all), then exit",
    )
    add(
        "--format",
        metavar="md|json",
        type=_document,
        help="with --export: Markdown up to the last message, or JSON with everything. Default: md.",
    )
    add(
        "--import",
        metavar="FILE",
        help="save the conversations in FILE, which --export made with --format json; - is stdin",
    )


def _add_placement(add: Add) -> None:
    add(
        "--offload",
        "--use_offload",
        dest="offload",
        action="store_true",
        help="stream every weight to the device, just in time",
    )
    add(
        "--sim-vram",
        "--sim_vram",
        metavar="SIZE",
        type=lambda text: parse_size(text, "--sim-vram"),
        help="with --device sim: the size of the card. Default: 8GB.",
    )
    add(
        "--sim-link",
        "--sim_link",
        metavar="GB/S",
        type=_link,
        help="with --device sim: what its bus carries in a second. Default: 16.",
    )


def _add_own(add: Add) -> None:
    """What is the user's own: presets, whether there is a history, and how things are drawn."""
    names = ", ".join(SHIPPED)
    add("--preset", metavar="NAME", help=f"sampling settings by name: {names}, or one of config.toml's")
    add(
        "--no-history",
        dest="history",
        action="store_false",
        help="do not save the conversation",
    )
    add(
        "--no-mouse",
        dest="mouse",
        action="store_false",
        help="leave the mouse to the terminal, for its own selecting and scrolling",
    )
    add(
        "--ascii",
        action="store_true",
        help="draw the chat's bars, graphs and lines in ASCII. Default: where the locale is no UTF-8.",
    )


def _add_parameters(add: Add) -> None:
    """The table of parameters."""
    for param in PARAMS:
        spellings = [
            s for flag in param.flags for s in dict.fromkeys((flag, "--" + flag[2:].replace("-", "_")))
        ]
        if param.kind == "names":  # joined and read when all of them are there
            add(*spellings, dest=param.key, nargs="+", action="extend", metavar="NAMES", help=_help(param))
        else:
            add(*spellings, dest=param.key, type=param.parse, metavar=_metavar(param), help=_help(param))


def _metavar(param: Param) -> str:
    if param.choices:
        return "|".join(map(str, param.choices))
    return {"float": "X", "int": "N", "text": "TEXT", "size": "SIZE"}[param.kind]


def _help(param: Param) -> str:
    return f"{param.help} Default: {param.format(param.default)}.".replace("%", "%%")


def _at_least(flag: str, least: int) -> Any:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) < least:
            raise UserError(f"{flag} {text}: give a whole number of at least {least}")
        return int(text)

    return parse


def _chat_or_all(text: str) -> int | str:
    """A chat's number, or "all"."""
    if text == "all":
        return text
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise UserError(f"--export {text}: give a number that --list-chats shows, or all")
    return int(text)


def _document(text: str) -> str:
    if text not in ("md", "json"):
        raise UserError(f"--format {text}: give md or json")
    return text


def _shape(text: str) -> str:
    if text.lower() not in SHAPES:
        raise UserError(f"--synthetic {text}: there is no such shape; choose {', '.join(SHAPES)}")
    return text.lower()


def _link(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.001 <= speed <= 10_000:
        raise UserError(f"--sim-link {text}: give GB/s from 0.001 to 10000")
    return speed


def _writable(text: str) -> Path:
    path = Path(os.path.expanduser(text))
    try:
        path.open("a").close()
    except OSError as error:
        raise UserError(f"--stats {text}: cannot be written ({error.strerror}); give another file") from None
    return path
