"""What is computed between the matrices, in plain torch. Whoever has something faster puts it in its place.

T new tokens, S all tokens so far, H query heads, K key/value heads, G = H / K, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.model.cache import KVCache
from core.model.rope import rotate

_BLOCK = 128  # rows of a prompt


class Ops:
    """The steps of a block that have no weights of their own but the norms'."""

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / rms(x) * weight, the division in float32 (arXiv 1910.07467)."""
        x32 = x.float()
        return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + eps)).type_as(x) * weight.type_as(x)

    def project(self, x: Tensor, matrices: Sequence[nn.Module]) -> Sequence[Tensor]:
        """The products of x with each of the matrices."""
        return [matrix(x) for matrix in matrices]

    def gate(self, a: Tensor, b: Tensor) -> Tensor:
        """silu(a) * b (arXiv 2002.05202)."""
        return F.silu(a) * b

    def mask(self, T: int, start: int, group: int, device: torch.device) -> Tensor | None:
        """Which of the keys the rows of T new tokens may see, for `attend`; made once for all layers."""
        if T == 1:
            return None
        causal = torch.ones(T, start + T, dtype=torch.bool, device=device).tril(start)
        return causal.repeat_interleave(group, dim=0)

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
        """Attention of new rows over all rows of a layer, which theirs are added to: [T, H * D].

        q [T, H * D], k and v [T, K * D] are not rotated yet; `rope` [T, D/2] are their rotations. `mask`
        [T * G, S] is what `mask` says, None where every row may see every key.
        """
        head_dim = 2 * rope.shape[-1]
        q = rotate(q.unflatten(-1, (-1, head_dim)), rope)  # [T, H, D]
        k = rotate(k.unflatten(-1, (-1, head_dim)), rope)  # [T, K, D]
        v = v.unflatten(-1, (-1, head_dim))
        keys, values = cache.append(layer, k.transpose(0, 1), v.transpose(0, 1))
        return attend(q, keys.to(q.dtype), values.to(q.dtype), mask)


def attend(q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention of q [T, H, D] over keys and values [K, S, D]: [T, H * D], softmax in float32.

    The G query heads that share a key head become extra rows of it, so that grouped heads cost no
    copy of the keys and stay on the fused kernel. `mask` [T * G, S] is None where all may see
    all.
    """
    (T, H, D), (K, S, _) = q.shape, keys.shape
    if mask is not None and S == T > _BLOCK and q.device.type == "cpu":
        # Half of what a prompt's rows could see is masked, and the CPU's kernel would compute it. Behind
        # many older keys it is a small part, and shorter calls lose more.
        all_rows = q.new_empty(T, H * D)
        for i in range(0, T, _BLOCK):
            stop = min(i + _BLOCK, T)
            part = mask[i * H // K : stop * H // K, :stop]
            all_rows[i:stop] = attend(q[i:stop], keys[:, :stop], values[:, :stop], part)
        return all_rows
    rows = q.view(T, K, H // K, D).transpose(0, 1).reshape(1, K, -1, D)
    out = F.scaled_dot_product_attention(rows, keys[None], values[None], attn_mask=mask)
    return out.view(K, T, -1, D).transpose(0, 1).reshape(T, H * D)
