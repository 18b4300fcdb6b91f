"""The KV cache: keys and values of every layer, and the token ids they belong to.

L layers, T new tokens, S all tokens so far, K key/value heads, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from core.model.cache_size import cache_bytes
from core.model.config import ModelConfig

_LEAST = 1e-30  # rows of smaller numbers are rows of zeros: the inverse of their scale would be infinite


@dataclass(frozen=True, slots=True)
class LayerKV:
    """The whole memory of a layer: views that stay where they are while the cache lives.

    Keys and values [K, capacity, D] are alike in type and strides. Where they are int8, they are codes, of
    which each row of D has a scale in float32 [K, capacity]; None with a float type.
    """

    keys: Tensor
    values: Tensor
    key_scales: Tensor | None = None
    value_scales: Tensor | None = None


class KVCache:
    """Static memory for `capacity` tokens. Invariant: entries below `length` are valid in every layer.

    A pass that is abandoned half-way leaves rows above `length` behind, which nothing reads. `memory`
    [bytes] holds everything where it is given, `cache_bytes` of them: keys and values [2, L, K, capacity, D],
    and of an int8 cache, behind the codes, the scales [2, L, K, capacity].
    """

    def __init__(
        self,
        config: ModelConfig,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
        memory: Tensor | None = None,
    ) -> None:
        if memory is None:
            nbytes = cache_bytes(config, capacity, str(dtype).removeprefix("torch."))
            memory = torch.empty(nbytes, dtype=torch.uint8, device=device)
        self.capacity = capacity
        self.tokens: list[int] = []
        rows = (2, config.n_layers, config.n_kv_heads, capacity)
        count = 2 * config.n_layers * config.n_kv_heads * capacity * config.head_dim * dtype.itemsize
        both = memory[:count].view(dtype).view(*rows, config.head_dim)
        self._layers = [LayerKV(keys, values) for keys, values in zip(*both, strict=True)]
        if dtype is torch.int8:
            scales = memory[count:].view(torch.float32).view(rows)
            self._layers = [
                LayerKV(layer.keys, layer.values, *pair)
                for layer, *pair in zip(self._layers, *scales, strict=True)
            ]
        self._floats: Tensor | None = None

    @property
    def length(self) -> int:
        """How many tokens are in the cache."""
        return len(self.tokens)

    @property
    def dtype(self) -> torch.dtype:
        """The type of keys and values: the one in which attention is computed, or int8 for codes."""
        return self._layers[0].keys.dtype

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write [K, T, D] behind the valid rows of a layer; all its rows [K, S, D], to be read.

        They count as valid once `commit` says so, after the last layer. What is given back are views of the
        cache, or, of codes, their values in the type of the new rows, which the next call overwrites.
        """
        start, stop = self.length, self.length + keys.shape[1]
        there = self.layer(layer, keys.shape[1])
        if there.key_scales is None or there.value_scales is None:
            there.keys[:, start:stop] = keys
            there.values[:, start:stop] = values
            return there.keys[:, :stop], there.values[:, :stop]
        there.keys[:, start:stop], there.key_scales[:, start:stop] = quantised(keys)
        there.values[:, start:stop], there.value_scales[:, start:stop] = quantised(values)
        both = self._workspace(keys.dtype)[:, :, :stop]
        for floats, codes, scales in zip(
            both, (there.keys, there.values), (there.key_scales, there.value_scales), strict=True
        ):
            floats.copy_(codes[:, :stop]).mul_(scales[:, :stop, None])
        return both[0], both[1]

    def _workspace(self, dtype: torch.dtype) -> Tensor:
        """Room for the values of one layer's codes [2, K, capacity, D], made when it is first needed."""
        if self._floats is None or self._floats.dtype is not dtype:
            keys = self._layers[0].keys
            with torch.inference_mode(mode=False):
                self._floats = torch.empty((2, *keys.shape), dtype=dtype, device=keys.device)
        return self._floats

    def layer(self, layer: int, new: int) -> LayerKV:
        """All memory of a layer, to write `new` rows behind the valid ones into."""
        stop = self.length + new
        if stop > self.capacity:
            raise ValueError(f"{stop} tokens do not fit in a cache of {self.capacity}")
        return self._layers[layer]

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


def quantised(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Codes in int8 of rows [..., D], and the scale of each row [...] in float32: value = code * scale.

    The largest magnitude of a row has the code 127. A row with a number that is not finite has no finite
    scale.
    """
    floats = rows.float()
    most = floats.abs().amax(-1)
    inverse = torch.tensor(127.0) / most.clamp(min=_LEAST)  # a number over a tensor would be rounded twice
    codes = (floats * inverse[..., None]).round().to(torch.int8)
    return codes, most / 127
