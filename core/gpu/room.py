"""What decoding on a card takes besides weights, cache and states. No torch."""

from __future__ import annotations

from core.model.config import ModelConfig

_PROGRAMS = 512  # enough to keep the largest card busy
_MOST_SPLITS = 64
# For each token of the vocabulary: what stays, and what sorting them takes for a moment.
_SAMPLING = 80


def split_count(kv_heads: int) -> int:
    """Into how many parts, a power of two, attention cuts the rows of each key head."""
    count = max(1, _PROGRAMS // kv_heads)
    return min(_MOST_SPLITS, 1 << (count.bit_length() - 1))


def decoding_bytes(config: ModelConfig) -> int:
    """For the parts of attention (`core.gpu.attend`) and for sampling (`core.sampling.on_device`)."""
    parts = config.n_heads * split_count(config.n_kv_heads) * (config.head_dim + 2) * 4
    return parts + config.vocab_size * _SAMPLING
