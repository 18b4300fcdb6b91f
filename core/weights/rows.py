"""How many rows one pass may have. No torch."""

from __future__ import annotations

from core.model.config import ModelConfig

_UNIT_SECONDS = 0.2  # a stop is noticed between two units, so none may take long
_MOST = 2048  # on CUDA: every pass of a prefill streams all weights once
_MOST_CPU = 256  # the progress of a prefill is told after each pass


def max_rows(config: ModelConfig, dtype: str, device: str) -> int:
    """The most rows of one pass: a power of two, at least 8; `device` is "cpu", "sim" or "cuda:N".

    Where the CPU computes, so many that the largest unit stays within a fifth of a second: from
    arithmetic rates that a slow machine reaches, not from a measurement, since the chunks decide how sums
    are rounded, and the same run should give the same tokens.
    """
    if device.startswith("cuda"):
        return _MOST
    flops = 40e9 if dtype == "float32" else 20e9  # a second; two cores without 16-bit instructions
    attention = 2 * config.dim * config.head_dim * (config.n_heads + config.n_kv_heads)
    per_row = 2 * max(3 * config.dim * config.hidden_dim, attention)
    rows = max(8, min(_MOST_CPU, int(flops * _UNIT_SECONDS / per_row)))
    return 1 << (rows.bit_length() - 1)
