"""Mirostat: a feedback loop that keeps the mean surprise of a text at a target (arXiv 2007.14966).

Surprise is -log2 of the probability under the model's own, untouched distribution. Measuring it on
the truncated one, as many ports do, settles at too high a value; scaling by a temperature first
changes what is controlled.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MU_MIN = 0.1
ZIPF_RATIOS = 100  # the paper's m: how many of the likeliest tokens the exponent is fitted to


def clamp_mu(mu: float, vocab_size: int) -> float:
    """Hold mu where it can act, up to twice log2 of the vocabulary.

    A target out of reach would otherwise wind it up without bound, and hundreds of tokens would pass
    before it came back. Half as much is too tight: there version 1 still cuts wherever the exponent
    is above one, version 2 still cuts a tail of some percent, and a mean within reach is missed.
    """
    return min(max(mu, MU_MIN), 2 * math.log2(vocab_size))


def update_mu(mu: float, surprise: float, tau: float, eta: float, vocab_size: int) -> float:
    """The next mu after a token of this surprise, all but `eta` in bits."""
    return clamp_mu(mu - eta * (surprise - tau), vocab_size)


def truncate_v2(logits: Tensor, mu: float) -> Tensor:
    """Drop every token more surprising than `mu` bits; the likeliest always stays."""
    bits = (logits.logsumexp(-1) - logits) / math.log(2)
    return logits.masked_fill(bits > max(mu, float(bits.min())), -math.inf)


def truncate_v1(logits: Tensor, mu: float) -> Tensor:
    """Keep the k likeliest, k being where a Zipf law fitted to the head of the distribution has `mu` bits."""
    k = zipf_cutoff(zipf_exponent(logits), mu, logits.numel())
    if k >= logits.numel():
        return logits
    values, ids = logits.topk(k)
    return torch.full_like(logits, -math.inf).index_put((ids,), values)


def zipf_exponent(logits: Tensor) -> float:
    """Least-squares exponent s of p(rank) ~ rank^-s over the likeliest tokens."""
    head = logits.topk(min(ZIPF_RATIOS + 1, logits.numel())).values.double()
    head = head[head.isfinite()]
    if head.numel() < 2:
        return math.inf
    rank = torch.arange(1, head.numel(), dtype=torch.float64, device=head.device)
    t = torch.log((rank + 1) / rank)
    b = head[:-1] - head[1:]
    return float((t * b).sum() / (t * t).sum())


def zipf_cutoff(s: float, mu: float, n: int) -> int:
    """The rank whose surprise is `mu` bits under a Zipf law of exponent `s` over `n` tokens, from 1 to n.

    k^s = eps * 2^mu / (1 - n^-eps) with eps = s - 1 (the paper's algorithm 1), in logarithms so that
    no power overflows; the factor's limit at eps = 0 is 1 / ln n.
    """
    if s == math.inf or n < 2:
        return 1
    if s <= 0:  # no decay at all: a flat head says nothing about where to cut
        return n
    eps, log_n = s - 1, math.log(n)
    factor = 1 / log_n if abs(eps) < 1e-9 else eps / -math.expm1(-eps * log_n)
    log_k = (math.log(factor) + mu * math.log(2)) / s
    return max(1, min(n, round(math.exp(min(log_k, log_n)))))
