"""The Llama decoder, and nothing else: no devices, no formats, no sampling.

T new tokens, S all tokens so far, G query heads to a key head, D head size. One conversation at a time, so
there is no batch dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from core.errors import Cancelled
from core.model.cache import KVCache
from core.model.config import ModelConfig
from core.model.ops import Ops
from core.model.rope import rope_table


class Linear(nn.Linear):
    """A matrix without bias, not initialised: weights come from a checkpoint.

    (To initialise on the meta device would import torch's compiler, which takes seconds.)
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def reset_parameters(self) -> None:
        pass


class Embedding(nn.Embedding):
    """A row for each token, not initialised. The tokens may lie on another device than the rows."""

    def reset_parameters(self) -> None:
        pass

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens.to(self.weight.device))


class RMSNorm(nn.Module):
    """A norm's weight; see `Ops.norm`."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dim))

    def forward(self, x: Tensor, ops: Ops) -> Tensor:
        return ops.norm(x, self.weight, self.eps)


@dataclass(slots=True)
class Step:
    """What all units of one pass share."""

    cache: KVCache
    rope: Tensor  # [T, D/2]
    mask: Tensor | None  # see Ops.mask
    ops: Ops


class Attention(nn.Module):
    """Grouped-query attention with rotary positions (arXiv 2305.13245)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        heads, kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.wq = Linear(config.dim, heads)
        self.wk = Linear(config.dim, kv)
        self.wv = Linear(config.dim, kv)
        self.wo = Linear(heads, config.dim)

    def forward(self, x: Tensor, step: Step) -> Tensor:
        q, k, v = step.ops.project(x, (self.wq, self.wk, self.wv))
        return self.wo(step.ops.attend(q, k, v, step.cache, self.layer, step.rope, step.mask))


class FeedForward(nn.Module):
    """SwiGLU: w2(silu(w1 x) * w3 x) (arXiv 2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.w1 = Linear(config.dim, config.hidden_dim)
        self.w2 = Linear(config.hidden_dim, config.dim)
        self.w3 = Linear(config.dim, config.hidden_dim)

    def forward(self, x: Tensor, ops: Ops) -> Tensor:
        return self.w2(ops.gate(*ops.project(x, (self.w1, self.w3))))


@dataclass(frozen=True, slots=True)
class Unit:
    """The smallest part that is placed, streamed and interrupted.

    Half a block with norm and residual, or a tile of the output head, which needs no Step.
    """

    name: str  # Meta's prefix, such as "layers.3.feed_forward"; tiles are "output.0", "output.1", …
    modules: tuple[nn.Module, ...]  # whose weights it needs
    run: Callable[[Tensor, Any], Tensor]  # the states, and the Step


class Units(tuple[Unit, ...]):
    """Units in the order of computation. Whoever streams their weights puts his own kind in its place."""

    def walk(self, cancelled: Callable[[], bool]) -> Iterator[Unit]:
        """The units in turn, each once its weights are there, looking at the stop flag before each.

        Raises Cancelled.
        """
        for unit in self:
            if cancelled():
                raise Cancelled
            yield unit


def never() -> bool:
    """The stop flag of a pass that nobody stops."""
    return False


class Block(nn.Module):
    """One layer: two units."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.attention = Attention(config, layer)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)
        self.feed_forward = FeedForward(config)

    def attend(self, x: Tensor, step: Step) -> Tensor:
        return x + self.attention(self.attention_norm(x, step.ops), step)

    def feed(self, x: Tensor, step: Step) -> Tensor:
        return x + self.feed_forward(self.ffn_norm(x, step.ops), step.ops)

    def units(self, prefix: str) -> tuple[Unit, Unit]:
        """Both halves, named under `prefix`."""
        return (
            Unit(f"{prefix}.attention", (self.attention_norm, self.attention), self.attend),
            Unit(f"{prefix}.feed_forward", (self.ffn_norm, self.feed_forward), self.feed),
        )


class Transformer(nn.Module):
    """Token ids in, logits out. Parameters bear Meta's names.

    With more than two `tile_rows` the output head is computed in tiles, rows tile_rows[i] to
    tile_rows[i + 1], whose parameters are "output.0.weight", "output.1.weight", …
    """

    def __init__(self, config: ModelConfig, tile_rows: Sequence[int] = ()) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings: nn.Module = Embedding(config.vocab_size, config.dim)
        blocks = [Block(config, i) for i in range(config.n_layers)]
        self.layers = nn.ModuleList(blocks)
        self.norm = RMSNorm(config.dim, config.norm_eps)
        tiles = [
            Linear(config.dim, stop - start) for start, stop in pairwise(tile_rows or (0, config.vocab_size))
        ]
        self.output: nn.Module = nn.ModuleList(tiles) if len(tiles) > 1 else tiles[0]
        self.units = Units(u for i, block in enumerate(blocks) for u in block.units(f"layers.{i}"))
        self.tiles = Units(_tile(f"output.{i}", tile) for i, tile in enumerate(tiles))
        self.ops = Ops()
        self._rope = torch.empty(0)

    def prepare(self, length: int, device: torch.device) -> None:
        """Compute the rotations for positions below `length`; needed once, before the first pass."""
        self._rope = rope_table(self.config, length).to(device)

    @property
    def rope(self) -> Tensor:
        """The rotations of all positions that it is prepared for, complex64 [positions, D/2]."""
        return self._rope

    def forward(
        self, tokens: Tensor, cache: KVCache, keep: int = 1, cancelled: Callable[[], bool] = never
    ) -> Tensor:
        """Logits [keep, vocabulary] in float32 of the last `keep` of `tokens` [T]; see `hidden`.

        Raises Cancelled when the stop flag is seen, before a unit or while its weights are on their way.
        """
        return self.head(self.hidden(tokens, cache, self.units.walk(cancelled))[-keep:], cancelled)

    def hidden(self, tokens: Tensor, cache: KVCache, units: Iterable[Unit]) -> Tensor:
        """What the blocks make of `tokens` [T]: [T, dim], the input of the output head.

        The tokens follow those in the cache; the caller commits them. `units` are the model's own on
        their walk, which the caller may look on.
        """
        T, start = tokens.shape[0], cache.length
        x = self.tok_embeddings(tokens)
        mask = self.ops.mask(T, start, self.config.n_heads // self.config.n_kv_heads, x.device)
        step = Step(cache, self._rope[start : start + T], mask, self.ops)
        for unit in units:
            x = unit.run(x, step)
        return x

    def head(self, hidden: Tensor, cancelled: Callable[[], bool] = never) -> Tensor:
        """Logits [T, vocabulary] in float32 of hidden states [T, dim]. Raises Cancelled."""
        x = self.norm(hidden, self.ops)
        parts = [tile.run(x, None).float() for tile in self.tiles.walk(cancelled)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _tile(name: str, module: nn.Module) -> Unit:
    return Unit(name, (module,), lambda x, step: module(x))
