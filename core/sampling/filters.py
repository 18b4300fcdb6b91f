"""Filters: logits [V] in, logits [V] out, rejected tokens at minus infinity. Pure functions.

They are applied in the order of this file; each sees what the ones before it left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_TOP = 256  # almost every nucleus lies in the first few, and a partial sort is ten times cheaper


def repetition_penalty(logits: Tensor, recent: Sequence[int], penalty: float) -> Tensor:
    """Make each token in `recent` less likely (arXiv 1909.05858).

    A positive logit is divided, a negative one multiplied.
    """
    if penalty == 1 or not recent:
        return logits
    ids = torch.tensor(sorted(set(recent)))
    scores = logits[ids]
    return logits.index_put((ids,), torch.where(scores > 0, scores / penalty, scores * penalty))


def temperature(logits: Tensor, value: float) -> Tensor:
    """Divide by `value` > 0; the largest is brought to zero first, so that a tiny value cannot overflow."""
    return (logits - logits.max()) / value


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep exactly the `k` likeliest tokens; 0 keeps all."""
    if k <= 0 or k >= logits.numel():
        return logits
    values, ids = logits.topk(k)
    return torch.full_like(logits, -math.inf).index_put((ids,), values)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens that holds a probability of `p` (arXiv 1904.09751)."""
    if p >= 1:
        return logits
    total = logits.logsumexp(-1)
    for count in (min(_TOP, logits.numel()), logits.numel()):
        values, ids = logits.topk(count)
        reached = (values - total).exp().cumsum(-1)
        if reached[-1] >= p or count == logits.numel():
            break
    keep = int((reached < p).sum()) + 1
    return torch.full_like(logits, -math.inf).index_put((ids[:keep],), values[:keep])


def min_p(logits: Tensor, p: float) -> Tensor:
    """Drop tokens less likely than `p` times the likeliest (arXiv 2407.01082)."""
    if p <= 0:
        return logits
    return logits.masked_fill(logits < logits.max() + math.log(p), -math.inf)
