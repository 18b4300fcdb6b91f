"""Tokens in, tokens out: prefill in bounded chunks, then one token after another."""

from __future__ import annotations

from collections.abc import Callable, Generator

import torch
from torch import Tensor

from core.engine.runner import Runner
from core.sampling.sampler import Choice


@torch.inference_mode()
def generate(
    runner: Runner,
    prompt: list[int],
    sampler: Callable[[Tensor], Choice],
    *,
    cancelled: Callable[[], bool],
    on_prefill: Callable[[int], None],
    on_units: Callable[[int], None] | None = None,
) -> Generator[Choice, None, None]:
    """Yield tokens after `prompt` until the cache is full or the caller closes the generator.

    What the cache already holds of the prompt is not run again; `on_prefill` is told after each chunk
    how many of its tokens are in the cache, and `on_units` within a chunk how many count as run, by the
    units they have passed. Nothing is run behind a token that the caller does not come back from. Raises
    Cancelled.
    """
    cache = runner.cache
    todo = cache.rewind(prompt)

    def counted(run: int) -> None:
        assert on_units is not None
        on_units(cache.length + run)

    on_prefill(cache.length)
    while True:
        while todo:
            prefill = on_units is not None and cache.length < len(prompt)
            done, logits = runner.run(todo, cancelled, counted if prefill else None)
            todo = todo[done:]
            if cache.length <= len(prompt):
                on_prefill(cache.length)
        choice = sampler(logits)
        yield choice
        if cache.length >= cache.capacity:
            return
        todo = [choice.token]
