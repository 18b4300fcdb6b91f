"""The steps between the matrices by compiled kernels: one call where torch takes many."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from core.model.cache import KVCache
from core.model.ops import Ops
from core.native.ops_calls import OpsCalls
from core.weights.kernels import Kernels
from core.weights.matrix import Matrix


class NativeOps(Ops):
    """Ops for states in float32 on the CPU."""

    def __init__(self, calls: OpsCalls, kernels: Kernels) -> None:
        self._calls, self._kernels = calls, kernels

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """See Ops."""
        return self._calls.norm(x, weight, eps)

    def project(self, x: Tensor, matrices: Sequence[nn.Module]) -> Sequence[Tensor]:
        """See Ops."""
        group = tuple(matrices)
        if all(type(matrix) is Matrix for matrix in group):
            return self._kernels.together(group, x)  # type: ignore[arg-type]
        return super().project(x, matrices)

    def gate(self, a: Tensor, b: Tensor) -> Tensor:
        """See Ops."""
        return self._calls.gate(a, b)

    def mask(self, T: int, start: int, group: int, device: torch.device) -> None:
        """See Ops: the kernel knows what rows may see."""

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cache: KVCache,
        layer: int,
        rope: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        """See Ops."""
        there = cache.layer(layer, q.shape[0])
        return self._calls.attend(
            q, k, v, rope, there.keys, there.values, cache.length, 2 * rope.shape[-1],
            there.key_scales, there.value_scales,
        )  # fmt: skip
