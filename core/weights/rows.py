"""How many rows one pass may have. No torch."""

from __future__ import annotations

from collections.abc import Collection

from core.model.config import ModelConfig
from core.weights.layouts import FLOATS

_UNIT_SECONDS = 0.2  # a stop is noticed between two units, so none may take long
_MOST = 2048  # on CUDA: every pass of a prefill streams all weights once
_MOST_CPU = 256  # the progress of a prefill is told after each pass
_PLAIN = 10e9  # operations a second that a core reaches without instructions for narrow types


def max_rows(config: ModelConfig, device: str, flops: float = 2 * _PLAIN) -> int:
    """The most rows of one pass: a power of two, at least 8; `device` is "cpu", "sim" or "cuda:N".

    Where the CPU computes, so many that the largest unit stays within a fifth of a second, at `flops`
    operations a second.
    """
    if device.startswith("cuda"):
        return _MOST
    attention = 2 * config.dim * config.head_dim * (config.n_heads + config.n_kv_heads)
    per_row = 2 * max(3 * config.dim * config.hidden_dim, attention)
    rows = max(8, min(_MOST_CPU, int(flops * _UNIT_SECONDS / per_row)))
    return 1 << (rows.bit_length() - 1)


def core_flops(format: str, features: Collection[str], *, compiled: bool, mixed: bool) -> float:
    """Operations a second of one core in products of many rows: what a slow one of its kind reaches.

    By what the processor can do (`features`, as Linux names them) and not from a measurement, since the
    rows of a pass decide how sums are rounded, and the same run should give the same tokens. `compiled`:
    there are kernels of our own; `mixed`: weights may be multiplied in bfloat16 whatever they are stored as.
    """
    if compiled and format not in (*FLOATS, "nf4") and "avx512_vnni" in features:
        return 10 * _PLAIN
    in_bfloat16 = format == "bfloat16" or (mixed and format != "float32")
    if in_bfloat16 and ("avx512_bf16" in features or "amx_bf16" in features):
        return 5 * _PLAIN
    return 2 * _PLAIN if format == "float32" else _PLAIN
