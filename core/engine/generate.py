"""Tokens in, tokens out: prefill in bounded chunks, then one token after another."""

from __future__ import annotations

from collections.abc import Callable, Generator

import torch

from core.model.cache import KVCache
from core.model.config import ModelConfig
from core.model.transformer import Transformer
from core.sampling.sampler import Choice, Sampler

_UNIT_SECONDS = 0.2  # a stop is noticed between two units, so none may take long
_MAX_ROWS = 512
_MAX_ROWS_CPU = 256  # the progress of a prefill is told after each call


def rows_per_call(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> int:
    """How many rows one call may have so that its largest unit stays within a fifth of a second.

    From arithmetic rates a slow machine reaches, not from a measurement: the chunks decide how sums
    are rounded, and the same run should give the same tokens. A power of two, at least 8.
    """
    if device.type != "cpu":
        return _MAX_ROWS
    flops = 40e9 if dtype == torch.float32 else 20e9  # a second; two cores without 16-bit instructions
    attention = 2 * config.dim * config.head_dim * (config.n_heads + config.n_kv_heads)
    per_row = 2 * max(3 * config.dim * config.hidden_dim, attention)
    rows = max(8, min(_MAX_ROWS_CPU, int(flops * _UNIT_SECONDS / per_row)))
    return 1 << (rows.bit_length() - 1)


@torch.inference_mode()
def generate(
    model: Transformer,
    cache: KVCache,
    prompt: list[int],
    sampler: Sampler,
    *,
    rows: int,
    cancelled: Callable[[], bool],
    on_prefill: Callable[[int], None],
) -> Generator[Choice, None, None]:
    """Yield tokens after `prompt` until the cache is full or the caller closes the generator.

    What the cache already holds of the prompt is not run again; `on_prefill` is told after each chunk
    how many of its tokens are in the cache. Nothing is run behind a token that the caller does not
    come back from. Raises Cancelled.
    """
    todo = cache.rewind(prompt)
    on_prefill(cache.length)
    while True:
        for start in range(0, len(todo), rows):
            chunk = todo[start : start + rows]
            logits = model(torch.tensor(chunk), cache, cancelled=cancelled)
            cache.commit(chunk)
            if cache.length <= len(prompt):
                on_prefill(cache.length)
        choice = sampler(logits[-1])
        yield choice
        if cache.length >= cache.capacity:
            return
        todo = [choice.token]
