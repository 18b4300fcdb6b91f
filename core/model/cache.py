"""The KV cache: keys and values of every layer, and the token ids they belong to.

T new tokens, S all tokens so far, K key/value heads, D head size.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core.model.config import ModelConfig


class KVCache:
    """Static memory for `capacity` tokens. Invariant: entries below `length` are valid in every layer.

    A pass that is abandoned half-way leaves rows above `length` behind, which nothing reads. `memory`
    [bytes] holds both where it is given.
    """

    def __init__(
        self,
        config: ModelConfig,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
        memory: Tensor | None = None,
    ) -> None:
        shape = (2, config.n_layers, config.n_kv_heads, capacity, config.head_dim)
        if memory is None:
            memory = torch.empty(math.prod(shape) * dtype.itemsize, dtype=torch.uint8, device=device)
        self.capacity = capacity
        self.tokens: list[int] = []
        both = memory.view(dtype).view(shape)
        self._keys, self._values = both[0], both[1]

    @property
    def length(self) -> int:
        """How many tokens are in the cache."""
        return len(self.tokens)

    @property
    def dtype(self) -> torch.dtype:
        """The type of keys and values, in which attention is computed."""
        return self._keys.dtype

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write [K, T, D] behind the valid rows of a layer; views [K, S, D] of all its rows.

        They count as valid once `commit` says so, after the last layer.
        """
        start, stop = self.length, self.length + keys.shape[1]
        self._check(stop)
        self._keys[layer, :, start:stop] = keys
        self._values[layer, :, start:stop] = values
        return self._keys[layer, :, :stop], self._values[layer, :, :stop]

    def layer(self, layer: int, new: int) -> tuple[Tensor, Tensor]:
        """All rows of a layer [K, capacity, D], to write `new` rows behind the valid ones into."""
        self._check(self.length + new)
        return self._keys[layer], self._values[layer]

    def _check(self, stop: int) -> None:
        if stop > self.capacity:
            raise ValueError(f"{stop} tokens do not fit in a cache of {self.capacity}")

    def commit(self, tokens: list[int]) -> None:
        """Declare the rows of these tokens, just written in every layer, valid."""
        self.tokens.extend(tokens)

    def common(self, tokens: list[int]) -> int:
        """How many of `tokens` `rewind` would keep."""
        pairs = zip(self.tokens, tokens[:-1], strict=False)
        return next(
            (i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), min(self.length, len(tokens) - 1)
        )

    def rewind(self, tokens: list[int]) -> list[int]:
        """Keep the longest common prefix with `tokens` and return what is left to run.

        At least one token is always left, since a pass is needed for the logits. This one rule is the
        cache over a whole dialogue, an edited message, another system prompt, and resuming.
        """
        if not tokens:
            raise ValueError("no tokens to run")
        keep = self.common(tokens)
        del self.tokens[keep:]
        return tokens[keep:]
