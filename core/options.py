"""What a user can choose. One table feeds flags, sidebar, `/set`, configuration and documentation.

No torch here: the interface starts while torch is still being imported.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from core.errors import UserError
from core.sizes import format_size, parse_size
from core.weights.name_grammar import split_names

Value = float | int | str | tuple[str, ...] | None
Kind = Literal["float", "int", "choice", "text", "size", "names"]
Acts = Literal["token", "message", "placement", "load"]


@dataclass(frozen=True, slots=True)
class Param:
    """One setting.

    `off` is the value at which it has no effect, shown as "off". `acts` says when a change takes
    effect. `inert` lists (other key, its values, reason): with one of those values this setting is
    ignored, and the reason is shown. `none` names the value None ("random" for the seed) where None
    is allowed. A "size" is in bytes; "names" are those of `core.weights.names`. `also` is a pattern of words
    that are a choice too.
    """

    key: str
    flags: tuple[str, ...]
    label: str
    help: str
    kind: Kind
    default: Value
    min: float | None = None
    max: float | None = None
    step: float | None = None
    off: Value = None
    choices: tuple[Value, ...] = ()
    acts: Acts = "token"
    inert: tuple[tuple[str, tuple[Value, ...], str], ...] = ()
    none: str | None = None
    also: str = ""

    def parse(self, text: str) -> Value:
        """The value that `text` spells. Raises UserError naming the text and what is accepted."""
        word = text.strip().lower()
        if self.none is not None and word == self.none:
            return None
        if self.kind == "names":
            return split_names("" if word == "none" else word, self.flags[0])
        if self.none is not None and word in ("none", "") and word not in self.choices:
            return None
        if self.kind == "size":
            return parse_size(word, self.flags[0])
        if self.off is not None and word == "off":
            return self.off
        if self.kind == "text":
            return text
        if self.kind == "choice":
            for choice in self.choices:
                if word == str(choice):
                    return choice
            if self.also and re.fullmatch(self.also, word):
                return word
            raise UserError(f"{self.flags[0]} {text!r}: choose one of {', '.join(map(str, self.choices))}")
        try:
            value = int(word) if self.kind == "int" else float(word)
        except ValueError:
            raise UserError(f"{self.flags[0]} {text!r}: give {self.range_text()}") from None
        return self.check(value)

    def check(self, value: Value) -> Value:
        """`value` itself if it is in range, else UserError."""
        if isinstance(value, (int, float)) and self.kind in ("int", "float"):
            low = -math.inf if self.min is None else self.min
            high = math.inf if self.max is None else self.max
            if not low <= value <= high:  # also catches nan
                shown = str(value) if isinstance(value, int) else f"{value:g}"  # an int may exceed any float
                raise UserError(f"{self.flags[0]} {shown}: out of range, give {self.range_text()}")
        return value

    def range_text(self) -> str:
        """What is accepted, in words: "a number from 0 to 2"."""
        nouns = {"int": "a whole number", "size": "a size such as 6GB", "names": "names such as w1,w2"}
        noun = nouns.get(self.kind, "a number")
        if self.min is not None and self.max is not None:
            text = f"{noun} from {self._bound(self.min)} to {self._bound(self.max)}"
        elif self.min is not None:
            text = f"{noun} of at least {self._bound(self.min)}"
        else:
            text = noun
        return text if self.none is None else f"{text}, or {self.none}"

    def _bound(self, value: float) -> str:
        return str(int(value)) if self.kind == "int" else f"{value:g}"

    def format(self, value: Value) -> str:
        """`value` as the interface shows it."""
        if value is None:
            return self.none or "default"
        if self.off is not None and value == self.off:
            return "off"
        if isinstance(value, tuple):
            return ",".join(value) or "none"
        if self.kind == "size" and isinstance(value, int):
            return format_size(value)
        if isinstance(value, float):
            return f"{value:.2f}" if round(value, 2) == value else f"{value:g}"
        return str(value)


_MIROSTAT_IGNORES = ("mirostat", (1, 2), "ignored by Mirostat")
_GREEDY_IGNORES = ("temperature", (0, 0.0), "no effect at temperature 0")
_NEEDS_MIROSTAT = ("mirostat", (0,), "needs Mirostat 1 or 2")

PARAMS: tuple[Param, ...] = (
    Param(
        "temperature", ("--temperature", "--temp"), "temperature",
        "Flattens (above 1) or sharpens (below 1) the distribution; 0 always takes the likeliest token.",
        "float", 0.6, 0, 5, 0.05, inert=(_MIROSTAT_IGNORES,),
    ),
    Param(
        "top_p", ("--top-p",), "top-p",
        "Keeps the smallest set of likeliest tokens whose probabilities reach this sum; 1 is off.",
        "float", 0.9, 0, 1, 0.05, off=1.0, inert=(_MIROSTAT_IGNORES, _GREEDY_IGNORES),
    ),
    Param(
        "top_k", ("--top-k",), "top-k",
        "Keeps this many of the likeliest tokens; 0 is off.",
        "int", 0, 0, 1_000_000, 1, off=0, inert=(_MIROSTAT_IGNORES, _GREEDY_IGNORES),
    ),
    Param(
        "min_p", ("--min-p",), "min-p",
        "Drops tokens less likely than this share of the likeliest one; 0 is off.",
        "float", 0.0, 0, 1, 0.01, off=0.0, inert=(_MIROSTAT_IGNORES, _GREEDY_IGNORES),
    ),
    Param(
        "repeat_penalty", ("--repeat-penalty",), "repetition",
        "Divides the score of tokens among the last 64 by this; 1 is off.",
        "float", 1.0, 0.1, 10, 0.05, off=1.0, inert=(_MIROSTAT_IGNORES,),
    ),
    Param(
        "mirostat", ("--mirostat",), "Mirostat",
        "Steers the mean surprise of the text towards tau: 0 off, 1 by a Zipf estimate, 2 by a cut.",
        "choice", 0, off=0, choices=(0, 1, 2),
    ),
    Param(
        "mirostat_tau", ("--mirostat-tau", "--mirostat-ent"), "tau",
        "The surprise, in bits per token, that Mirostat aims at.",
        "float", 5.0, 0.1, 20, 0.1, inert=(_NEEDS_MIROSTAT,),
    ),
    Param(
        "mirostat_eta", ("--mirostat-eta", "--mirostat-lr"), "eta",
        "How fast Mirostat corrects: the learning rate.",
        "float", 0.1, 0.001, 1, 0.01, inert=(_NEEDS_MIROSTAT,),
    ),
    Param(
        "seed", ("--seed",), "seed",
        "Same seed, same settings, same device: same tokens.",
        "int", None, 0, 2**63 - 1, 1, acts="message", none="random",
    ),
    Param(
        "max_tokens", ("--max-tokens",), "max tokens",
        "The longest reply, in tokens.",
        "int", 512, 1, 1_000_000, 16,
    ),
    Param(
        "system", ("--system", "--sys"), "system prompt",
        "Instructions that stand before the conversation.",
        "text", None, acts="message", none="default",
    ),
    Param(
        "device", ("--device",), "device",
        "Where the model is computed.",
        "choice", "auto", choices=("auto", "cpu", "cuda", "sim"), acts="load", also="cuda:[0-9]{1,3}",
    ),
    Param(
        "dtype", ("--dtype",), "type",
        "The type of weights and activations; auto takes the stored one.",
        "choice", "auto", choices=("auto", "float32", "float16", "bfloat16"), acts="load",
    ),
    Param(
        "quant", ("--quant",), "weights",
        "Fewer bits a weight, quantised at load: int8 by row, int4 in groups of 32 (or 128), nf4; int8-mixed "
        "is int8 multiplied by bitsandbytes, to compare; none leaves them as stored.",
        "choice", "none", choices=("none", "int8", "int8-mixed", "nf4", "int4", "int4-128"), acts="load",
    ),
    Param(
        "kv", ("--kv",), "KV cache",
        "What keys and values are kept as: float, the type they are computed in, or int8 with a scale for "
        "each head and token, half the memory of 16 bits.",
        "choice", "float", choices=("float", "int8"), acts="load",
    ),
    Param(
        "kernels", ("--kernels",), "CPU kernels",
        "What multiplies on the CPU wherever it can; auto takes the fastest by measurement, torch only "
        "torch's own.",
        "choice", "auto",
        choices=("auto", "native", "torch", "linear", "mv", "bfloat16", "float32", "int8pack"), acts="load",
    ),
    Param(
        "context", ("--context", "--max-len"), "context",
        "The longest conversation the KV cache holds, in tokens.",
        "int", None, 8, 10_000_000, 256, acts="load", none="auto",
    ),
    Param(
        "chat_format", ("--chat-format",), "chat format",
        "How turns are written for the model.",
        "choice", None, choices=("llama2", "llama3", "mistral", "chatml", "template", "none"),
        acts="load", none="auto",
    ),
    Param(
        "vram", ("--vram",), "VRAM budget",
        "The most memory of the device that may be taken, the driver's share included; auto is what is free.",
        "size", None, acts="placement", none="auto",
    ),
    Param(
        "ram", ("--ram",), "RAM budget",
        "The most memory of the machine that may be taken; below the model's size the rest is read from "
        "disk. auto is what is free.",
        "size", None, acts="placement", none="auto",
    ),
    Param(
        "offload_exclusion", ("--offload-exclusion",), "keep on GPU",
        "Exactly these weights stay on the device, all others are streamed; auto leaves it to the planner.",
        "names", None, acts="placement", none="auto",
    ),
    Param(
        "cpu_layers", ("--cpu-layers",), "CPU layers",
        "These weights are computed on the CPU, where they lie.",
        "names", None, acts="placement", none="none",
    ),
)  # fmt: skip

BY_KEY: dict[str, Param] = {param.key: param for param in PARAMS}


def inert_reason(param: Param, values: Mapping[str, Value]) -> str | None:
    """Why `param` has no effect under `values`, or None where it acts."""
    for other, when, reason in param.inert:
        if values.get(other) in when:
            return reason
    return None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen, and how many there may be. Defaults are the table's."""

    temperature: float = 0.6
    top_p: float = 0.9
    top_k: int = 0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    seed: int | None = None
    max_tokens: int = 512

    @classmethod
    def from_values(cls, values: Mapping[str, Value]) -> Sampling:
        """The part of a table of settings that the sampler needs."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What to load and how. `raw` completes text after BOS without any chat format.

    `synthetic` ("7b") stands in for the checkpoint: random weights of that shape. `keep` are the offload
    exclusions, None where none were named; `vram` and `ram` are caps in bytes, None: what is free. The
    simulated device has `sim_vram` bytes behind a bus of `sim_link` GB/s.
    """

    checkpoint: str
    tokenizer: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quant: str = "none"
    kv: str = "float"
    kernels: str = "auto"
    context: int | None = None
    chat_format: str | None = None
    raw: bool = False
    synthetic: str | None = None
    offload: bool = False
    keep: tuple[str, ...] | None = None
    cpu_layers: tuple[str, ...] = ()
    vram: int | None = None
    ram: int | None = None
    sim_vram: int = 8 * 10**9
    sim_link: float = 16.0


def default_values() -> dict[str, Value]:
    """Every parameter's default by key."""
    return {param.key: param.default for param in PARAMS}
