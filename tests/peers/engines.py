"""Which engines take part for a format, what each is started with, and whether they fit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.peers.table import OURS

PEERS = ("transformers", "xllamacpp", "llama-cpp")
LABELS = {"xllamacpp": "llama.cpp prebuilt", "llama-cpp": "llama.cpp built for this processor"}
GGUF_TYPES = {"float16": "F16", "int8": "Q8_0", "int4": "Q4_0", "int4-128": "Q4_0", "nf4": "Q4_0"}
"""Our formats, and what llama.cpp has in their place."""

FLOAT_TYPES = ("float16", "bfloat16", "float32")

_BYTES = {"float16": 2.0, "bfloat16": 2.0, "float32": 4.0, "F16": 2.0, "Q8_0": 1.0625, "Q4_0": 0.5625}
_VECTORS = ("AVX512_BF16", "AVX512_VNNI", "AVX512", "AVX_VNNI", "AVX2", "AVX", "NEON")


def vectors(build: str) -> str:
    """The widest instructions in llama.cpp's line of system information, or "" where it has none of them."""
    flags = {flag.split("=")[0].split(":")[-1].strip() for flag in build.split("|") if "= 1" in flag}
    return next((name for name in _VECTORS if name in flags), "")


@dataclass(frozen=True, slots=True)
class Start:
    """How an engine's process is started. `bytes_each` are for one weight, in memory of its own."""

    name: str
    python: str
    module: str
    given: dict[str, Any]
    bytes_each: float


def starts(
    peers: Sequence[str],
    types: Sequence[str],
    format_: str,
    pythons: dict[str, str],
    common: dict[str, Any],
    dtype: str,
    file: str,
) -> list[Start]:
    """All of one format, ours first. `pythons` has the interpreter of each module."""
    kind = GGUF_TYPES[format_]
    quant = "none" if format_ == "float16" else format_
    shape = {"shape": common["shape"], "context": common["context"]}
    own = 2.0 if quant == "none" else 1.1
    all_ = [Start(OURS, pythons[OURS], "engine_ours", shape | {"quant": quant, "dtype": dtype}, own)]
    if "transformers" in peers:
        all_ += [
            Start(
                f"transformers {name}",
                pythons["transformers"],
                "engine_transformers",
                shape | {"dtype": name, "threads": common["threads"]},
                _BYTES[name],
            )
            for name in types
        ]
    # A file is in memory once for all who map it; what is laid out anew for its kernels is not.
    shared = _BYTES[kind]
    for peer, module in (("xllamacpp", "engine_xllamacpp"), ("llama-cpp", "engine_llama_cpp")):
        if peer in peers:
            given = common | {"file": file}
            all_.append(Start(f"{LABELS[peer]}, {kind}", pythons[peer], module, given, shared))
    return all_
