"""How large a KV cache is. No torch."""

from __future__ import annotations

from core.model.config import ModelConfig

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
"""The types a cache may have, and the bytes of one number."""

SCALE_BYTES = 4
"""Of the scale that each head and token of an int8 cache has besides its codes, once for the key, once for
the value."""


def cache_bytes(config: ModelConfig, capacity: int, kv_type: str) -> int:
    """Bytes for `capacity` tokens in every layer: as many times those for one token."""
    row = config.head_dim * ITEM_BYTES[kv_type] + (SCALE_BYTES if kv_type == "int8" else 0)
    return 2 * config.n_layers * config.n_kv_heads * capacity * row
