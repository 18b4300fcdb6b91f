"""Attention of one new row on a CUDA card: what the kernels of `attention` are given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import triton.language as tl
from torch import Tensor

from core.gpu.attention import attend_parts, join_parts
from core.gpu.launch import FUSED
from core.gpu.room import split_count
from core.model.cache import LayerKV

_ROWS = {1: 64, 2: 64, 4: 32}  # of the cache at once, by the bytes of a value
_TYPES = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16, torch.float32: tl.float32}


class Attender:
    """Attention of one row in layers of H query and K key heads of size D, and memory for its parts.

    `rope` complex64 [positions, D/2]; `states` is the type of what goes in and comes out.
    """

    def __init__(self, heads: int, kv_heads: int, rope: Tensor, states: torch.dtype) -> None:
        self._kv_heads, self._group = kv_heads, heads // kv_heads
        self._head_dim = 2 * rope.shape[-1]
        self._rope = torch.view_as_real(rope)
        self._type = _TYPES[states]
        self.splits = split_count(kv_heads)
        device = rope.device
        with torch.inference_mode(False):
            self.position = torch.zeros(1, dtype=torch.int32, device=device)
            self._parts = torch.empty(heads, self.splits, self._head_dim, device=device)
            self._stats = torch.empty(heads, self.splits, 2, device=device)
        self._known: int | None = None
        self._by_others = False

    def move_to(self, position: int) -> None:
        """The next row is at `position`."""
        if not self._by_others and position != self._known:
            self.position.fill_(position)
            self._known = position

    def was_moved_to(self, position: int) -> None:
        """Somebody else has written, or will have, that the next row is there."""
        self._known = position

    @contextmanager
    def moved_by_others(self) -> Iterator[None]:
        """In here `move_to` does nothing: what is captured reads whatever stands in `position`."""
        self._by_others = True
        try:
            yield
        finally:
            self._by_others = False

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, kv: LayerKV) -> Tensor:
        """[1, H * D]; q [1, H * D], k and v [1, K * D] are not rotated yet. The row is in the cache then."""
        head_dim, group = self._head_dim, self._group
        codes = kv.key_scales is not None
        key_scales = kv.key_scales if kv.key_scales is not None else self._stats
        value_scales = kv.value_scales if kv.value_scales is not None else self._stats
        # Tensor cores multiply no less than 16 by 16.
        wide = max(16, 1 << (head_dim - 1).bit_length())
        attend_parts[(self._kv_heads, self.splits)](
            q, k, v, self._rope, self.position, kv.keys, kv.values, key_scales, value_scales,
            self._parts, self._stats, kv.keys.stride(0), key_scales.stride(0) if codes else 0,
            head_dim**-0.5,
            G=group, D=head_dim, BG=1 if group == 1 else max(16, 1 << (group - 1).bit_length()), BD=wide,
            BS=_ROWS[kv.keys.element_size()], SPLITS=self.splits, CODES=codes, TYPE=self._type, num_warps=4,
            **FUSED,
        )  # fmt: skip
        out = torch.empty_like(q)
        join_parts[(self._kv_heads * group,)](
            self._parts, self._stats, out, D=head_dim, BD=wide, SPLITS=self.splits, num_warps=2, **FUSED
        )
        return out
