"""The table of parameters against the contract's defaults and the sampler's own."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from core.errors import UserError
from core.options import BY_KEY, PARAMS, Sampling, Value, default_values, inert_reason


def test_defaults_are_the_contracts() -> None:
    values = default_values()
    wanted = {
        "temperature": 0.6, "top_p": 0.9, "top_k": 0, "min_p": 0, "repeat_penalty": 1, "mirostat": 0,
        "mirostat_tau": 5, "mirostat_eta": 0.1, "seed": None, "max_tokens": 512, "system": None,
        "device": "auto", "dtype": "auto", "quant": "none", "kv": "float", "kernels": "auto",
        "context": None,
        "chat_format": None,
        "vram": None, "ram": None, "offload_exclusion": None, "cpu_layers": None,
    }  # fmt: skip
    assert values == wanted
    assert asdict(Sampling()) == asdict(Sampling.from_values(values))


def test_keys_and_flags_are_unique() -> None:
    flags = [flag for param in PARAMS for flag in param.flags]
    assert len(flags) == len(set(flags))
    assert len(BY_KEY) == len(PARAMS)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("temperature", "1", 1.0), ("temperature", " .5 ", 0.5), ("top_p", "off", 1.0), ("top_k", "OFF", 0),
        ("mirostat", "2", 2), ("mirostat", "off", 0), ("seed", "random", None), ("seed", "42", 42),
        ("context", "auto", None), ("system", " be brief ", " be brief "), ("dtype", "Float16", "float16"),
        ("chat_format", "auto", None), ("chat_format", "none", "none"), ("device", "cuda:1", "cuda:1"),
        ("vram", "6GB", 6 * 10**9), ("ram", " 1.5 gib", 3 * 2**29),
        ("vram", "auto", None), ("ram", "", None), ("quant", "int8-mixed", "int8-mixed"),
        ("offload_exclusion", "[w1, W2] layers.0-9", ("w1", "w2", "layers.0-9")),
        ("offload_exclusion", "auto", None), ("offload_exclusion", "none", ()), ("cpu_layers", "none", None),
        ("cpu_layers", "output", ("output",)),
    ],
)  # fmt: skip
def test_what_is_understood(key: str, text: str, value: object) -> None:
    assert BY_KEY[key].parse(text) == value


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("temperature", "5.01", "--temperature 5.01: out of range, give a number from 0 to 5"),
        ("temperature", "nan", "--temperature nan: out of range"),
        ("temperature", "inf", "--temperature inf: out of range"),
        ("top_p", "-0.1", "--top-p -0.1: out of range"),
        ("top_k", "1.5", "--top-k '1.5': give a whole number"),
        ("mirostat", "3", "--mirostat '3': choose one of 0, 1, 2"),
        ("mirostat_tau", "0", "--mirostat-tau 0: out of range"),
        ("seed", "-1", "--seed -1: out of range, give a whole number from 0 to .*, or random"),
        ("max_tokens", "0", "--max-tokens 0: out of range"),
        ("top_k", "9" * 400, "--top-k 9999*: out of range"),
        ("device", "cuda:x", "--device 'cuda:x': choose one of auto, cpu, cuda, sim"),
        ("vram", "6", "--vram 6: a size needs its unit; give 6GB or 6GiB"),
        ("ram", "much", "--ram 'much': give a size with its unit"),
        ("offload_exclusion", "w1,w9", "--offload-exclusion w9: no such weights; the names are wq wk"),
        ("cpu_layers", "layers.2-1", "--cpu-layers layers.2-1: the layers run backwards"),
    ],
)
def test_what_is_refused_names_the_value_and_the_way_out(key: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        BY_KEY[key].parse(text)


def test_what_is_ignored_and_why() -> None:
    values = default_values()
    assert inert_reason(BY_KEY["top_p"], values) is None
    assert inert_reason(BY_KEY["mirostat_tau"], values) == "needs Mirostat 1 or 2"
    values["temperature"] = 0.0
    assert inert_reason(BY_KEY["top_p"], values) == "no effect at temperature 0"
    assert inert_reason(BY_KEY["repeat_penalty"], values) is None
    values["mirostat"] = 2
    ignored = {param.key for param in PARAMS if inert_reason(param, values) == "ignored by Mirostat"}
    assert ignored == {"temperature", "top_p", "top_k", "min_p", "repeat_penalty"}
    assert inert_reason(BY_KEY["mirostat_tau"], values) is None


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("temperature", 0.6, "0.60"), ("mirostat_eta", 0.001, "0.001"), ("top_p", 1.0, "off"),
        ("top_k", 0, "off"),
        ("seed", None, "random"), ("seed", 0, "0"), ("context", None, "auto"), ("max_tokens", 512, "512"),
        ("vram", 6 * 10**9, "6 GB"), ("ram", None, "auto"), ("offload_exclusion", None, "auto"),
        ("offload_exclusion", (), "none"), ("cpu_layers", ("w1", "output"), "w1,output"),
    ],
)  # fmt: skip
def test_how_values_are_shown(key: str, value: Value, shown: str) -> None:
    assert BY_KEY[key].format(value) == shown
