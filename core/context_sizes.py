"""What a context costs: the memory of the KV cache for each one that can be chosen. No torch."""

from __future__ import annotations

from core.sizes import format_size

_SMALLEST = 1024


def context_choices(limit: int, chosen: int) -> list[int]:
    """Contexts worth a look: powers of two up to the model's `limit`, the limit, and the one `chosen`."""
    powers = (2**i for i in range(_SMALLEST.bit_length() - 1, limit.bit_length()))
    return sorted({*powers, limit, chosen})


def kv_choices(limit: int, chosen: int, kv_bytes: int) -> str:
    """Each with what the cache takes, `kv_bytes` for a token: "1024 23.6 MB · [4096] 94.4 MB"."""
    return " · ".join(
        f"{f'[{context}]' if context == chosen else context} {format_size(context * kv_bytes)}"
        for context in context_choices(limit, chosen)
    )
