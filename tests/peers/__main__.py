"""Ours against `transformers` and llama.cpp on this processor: same random weights, same tokens, in turn.

    python -m tests.peers [--shape 1b] [--formats float16,int8,int4] [--prompt 256] [--tokens 64] [--rounds 5]
                          [--positions 10,256,1500] [--peers transformers,xllamacpp,llama-cpp] [--json FILE]

Every engine is a process that loads once and computes only when asked; in each round each engine is asked
in turn, and who is first rotates. Its own clock runs around the computation alone. Figures are tokens per
second, medians of the rounds; "x1.20" is ours over that engine. llama.cpp reads a GGUF file of our weights,
with every matrix in one type; `transformers` is in its float types whatever the format is.

Others' load is what all other processes took of all CPUs meanwhile, at most in any round; "!2" says that it
was above 5 % in two of the rounds: such a figure is not to be quoted.

`transformers` comes with the development environment. For llama.cpp make an environment of its own, since
neither package is needed otherwise, and give its interpreter by --python-llama or PEERS_PYTHON_LLAMA:

    python3 -m venv peers
    peers/bin/pip install numpy xllamacpp
    CMAKE_ARGS="-DGGML_NATIVE=ON" peers/bin/pip install --no-binary llama-cpp-python llama-cpp-python

The second is compiled, which takes a C++ compiler and some ten minutes. An engine that is not there is left
out, with a line that says so. Disk: one GGUF file at a time, 2.2 GB for the 1b shape in float16, in --folder.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from core.model.shapes import SHAPES
from core.monitor import physical_cores
from tests.peers.child import Child, ChildFailed, Timing, idle_shares
from tests.peers.engines import FLOAT_TYPES, GGUF_TYPES, PEERS, Start, starts, vectors
from tests.peers.protocol import Missing
from tests.peers.shapes import add_tiny, parameters
from tests.peers.table import OURS, as_json, cells, render, rotated

_SPINNING = 0.02  # of one CPU
_SAME = (8, 16, 24, 32, 40, 48, 56, 64)  # prompts after which all engines should give the same token


def say(line: str = "") -> None:
    """One line at once, since the next may take minutes."""
    print(line, flush=True)


def arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        "python -m tests.peers", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    python = os.environ.get("PEERS_PYTHON_LLAMA", sys.executable)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1b")
    parser.add_argument("--formats", type=_names(tuple(GGUF_TYPES)), default=("float16", "int8", "int4"))
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the prefill")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a decode")
    parser.add_argument("--positions", type=_numbers, default=(10, 256, 1500), help="tokens before a decode")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=_names(PEERS), default=PEERS)
    parser.add_argument("--float-types", type=_names(FLOAT_TYPES), default=FLOAT_TYPES)
    parser.add_argument("--dtype", choices=("auto", *FLOAT_TYPES), default="auto", help="ours")
    parser.add_argument("--python-llama", default=python, help="interpreter that has both llama.cpp packages")
    parser.add_argument("--python-xllamacpp", help="the same for one of them")
    parser.add_argument("--python-llama-cpp")
    parser.add_argument("--folder", help="where GGUF files are written, and deleted again")
    parser.add_argument("--json", type=Path, help="all figures go to this file too")
    given = parser.parse_args()
    longest = max(given.prompt, max(given.positions) + given.tokens) + 1
    if min(given.prompt, given.tokens, given.rounds, *given.positions) < 1:
        parser.error("--prompt, --tokens, --rounds and --positions are 1 or more")
    if longest > SHAPES[given.shape].max_context:
        parser.error(f"{longest} tokens are more than the context of {given.shape}; give shorter --positions")
    given.context = -(-longest // 256) * 256
    return given


def _names(allowed: tuple[str, ...]) -> Any:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name for name in text.split(",") if name)
        for name in names:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(allowed)}")
        return names

    return parse


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted({int(number) for number in text.split(",")}))


def requests(given: argparse.Namespace) -> dict[str, dict[str, int]]:
    """What every engine is asked in a round, by the head of its column."""
    table = {f"prefill {given.prompt}": {"prefill": given.prompt}}
    return table | {f"decode after {at}": {"decode": given.tokens, "after": at} for at in given.positions}


def all_starts(given: argparse.Namespace, format_: str, file: Path) -> list[Start]:
    """The processes of one format."""
    pythons = {
        OURS: sys.executable,
        "transformers": sys.executable,
        "xllamacpp": given.python_xllamacpp or given.python_llama,
        "llama-cpp": given.python_llama_cpp or given.python_llama,
    }
    common = {
        "shape": given.shape,
        "context": given.context,
        "threads": physical_cores(),
        "positions": list(given.positions),
        "vocab": SHAPES[given.shape].vocab_size,
    }
    return starts(given.peers, given.float_types, format_, pythons, common, given.dtype, str(file))


def write_file(given: argparse.Namespace, format_: str, file: Path) -> None:
    """The GGUF file of one format."""
    import torch

    from core.checkpoint.synthetic import SyntheticCheckpoint
    from tests.peers import gguf_file
    from tests.peers.networks import tensors

    kind = GGUF_TYPES[format_]
    say(f"writing a GGUF file in {kind}: {gguf_file.PURE}")
    checkpoint = SyntheticCheckpoint(given.shape)
    gguf_file.write(file, checkpoint.config, tensors(checkpoint, torch.float16), kind)


def compare(given: argparse.Namespace, format_: str, folder: Path) -> dict[str, Any]:
    """Measure one format, print it, and return it for the JSON file."""
    say(f"\n== {format_}, shape {given.shape} ==")
    file = folder / f"{given.shape}-{GGUF_TYPES[format_]}.gguf"
    wanted = all_starts(given, format_, file)
    _check_memory(given, wanted)
    if any("file" in start.given for start in wanted):
        write_file(given, format_, file)
    with ExitStack() as stack:
        stack.callback(file.unlink, missing_ok=True)
        children: dict[str, Child] = {}
        for start in wanted:
            try:
                child = stack.enter_context(Child(start.python, start.module, start.given))
            except Missing as error:
                say(f"{start.name}: left out: {error}")
                continue
            widest = vectors(child.about["build"]) if "file" in start.given else ""
            name = f"{start.name}, {widest}" if widest else start.name
            children[name] = child
            say(name)
            for line in child.about.values():
                say(f"    {line}")
        same = same_tokens(children)
        timings = measure(given, children)
    table = cells(timings)
    say()
    for line in render(table):
        say(line)
    return {
        "engines": {name: child.about for name, child in children.items()},
        "same_next_tokens": same,
        "results": as_json(table),
    }


def same_tokens(children: dict[str, Child]) -> dict[str, int]:
    """How often each engine's next token is the first one's: that all compute the same network.

    Types of few bits differ here and there, since random networks decide narrowly.
    """
    replies = {name: [child.ask({"next": n})["token"] for n in _SAME] for name, child in children.items()}
    first = next(iter(replies), "")
    same = {
        name: sum(one == other for one, other in zip(tokens, replies[first], strict=True))
        for name, tokens in replies.items()
        if name != first
    }
    if same:
        counts = ", ".join(f"{name} {count}" for name, count in same.items())
        say(f"same next token as {first}, of {len(_SAME)} prompts: {counts}")
    return same


def measure(given: argparse.Namespace, children: dict[str, Child]) -> dict[str, dict[str, list[Timing]]]:
    """All rounds, after one that does not count."""
    asked = requests(given)
    for name, child in children.items():
        say(f"warming up {name}")
        child.ask({"prefill": given.prompt})
        for at in given.positions:
            child.ask({"decode": 2, "after": at})
    for name, share in zip(children, idle_shares(list(children.values())), strict=True):
        if share > _SPINNING:
            say(f"WARNING: {name} takes {share:.0%} of a CPU while it should be idle")
    timings: dict[str, dict[str, list[Timing]]] = {name: {what: [] for what in asked} for name in children}
    for round_ in range(given.rounds):
        for name in rotated(list(children), round_):
            for what, request in asked.items():
                timings[name][what].append(children[name].measure(request))
        say(f"round {round_ + 1} of {given.rounds}")
    return timings


def _check_memory(given: argparse.Namespace, wanted: list[Start]) -> None:
    """End with a line where the engines of a format do not fit in memory side by side."""
    count = parameters(SHAPES[given.shape])
    need = sum(start.bytes_each for start in wanted) * count
    free = psutil.virtual_memory().available
    if need > 0.9 * free:
        sys.exit(
            f"these engines take about {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: "
            "leave some out with --peers or --float-types"
        )


def main() -> None:
    # Whoever ends this ends the engines, and the files go with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    add_tiny()
    given = arguments()
    say(
        f"{physical_cores()} threads; prefill of {given.prompt}, decode of {given.tokens} tokens, "
        f"{given.rounds} rounds"
    )
    results = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        for format_ in given.formats:
            try:
                results[format_] = compare(given, format_, Path(folder))
            except ChildFailed as error:
                sys.exit(str(error))
    if given.json:
        options = {key: value for key, value in vars(given).items() if key != "json"}
        given.json.write_text(json.dumps({"options": options, "formats": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
