"""`Sampler` and `DeviceSampler` side by side, and which tokens are right when rounding decides."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from core.options import Sampling
from core.sampling import mirostat
from core.sampling.device_sampler import DeviceSampler
from core.sampling.sampler import Sampler

ROUNDING = 1e-5
"""A share of probability, or a distance in logits, that float32 may be wrong by."""

FREE = Sampling(temperature=1.0, top_p=1.0)
SETTINGS: dict[str, Sampling] = {
    "defaults": Sampling(),
    "all off": FREE,
    "greedy": Sampling(temperature=0),
    "greedy, penalised": Sampling(temperature=0, repeat_penalty=1.3),
    "greedy, the repeated preferred": Sampling(temperature=0, repeat_penalty=0.5),
    "cold": replace(FREE, temperature=1e-3),
    "hot": replace(FREE, temperature=5.0),
    "top-k 1": replace(FREE, top_k=1),
    "top-k 40": replace(FREE, top_k=40),
    "top-k beyond the vocabulary": replace(FREE, top_k=1_000_000),
    "top-p 0": replace(FREE, top_p=0.0),
    "top-p 0.5": replace(FREE, top_p=0.5),
    "top-p almost 1": replace(FREE, top_p=0.9999),
    "min-p 0.05": replace(FREE, min_p=0.05),
    "min-p 1": replace(FREE, min_p=1.0),
    "penalty at its least": replace(FREE, repeat_penalty=0.1),
    "penalty at its most": replace(FREE, repeat_penalty=10.0),
    "all at once": Sampling(1.5, 0.8, 50, 0.02, 1.2),
    "Mirostat 1": Sampling(mirostat=1, temperature=0, top_k=1, repeat_penalty=9.0),
    "Mirostat 2": Sampling(mirostat=2, temperature=0, top_k=1, repeat_penalty=9.0),
    "Mirostat 1, small tau": Sampling(mirostat=1, mirostat_tau=0.1, mirostat_eta=1.0),
    "Mirostat 2, small tau": Sampling(mirostat=2, mirostat_tau=0.1, mirostat_eta=1.0),
    "Mirostat 1, large tau": Sampling(mirostat=1, mirostat_tau=20.0, mirostat_eta=0.001),
    "Mirostat 2, large tau": Sampling(mirostat=2, mirostat_tau=20.0, mirostat_eta=1.0),
}


def peaked(size: int, generator: torch.Generator) -> Tensor:
    """As a model's: a Zipf law with noise."""
    ranks = torch.randperm(size, generator=generator) + 1.0
    return 12 - 1.2 * ranks.log() + 0.5 * torch.randn(size, generator=generator)


def flat(size: int, generator: torch.Generator) -> Tensor:
    return 0.05 * torch.randn(size, generator=generator)


def holed(size: int, generator: torch.Generator) -> Tensor:
    """Most tokens forbidden."""
    logits = 4 * torch.randn(size, generator=generator) - 30
    forbidden = torch.rand(size, generator=generator) < 0.8
    forbidden[size // 2] = False
    return logits.masked_fill(forbidden, -math.inf)


SHAPES: tuple[Callable[[int, torch.Generator], Tensor], ...] = (peaked, flat, holed)


def admissible(
    logits: Tensor, sampling: Sampling, point: float, recent: Sequence[int] = (), mu: float = 0.0
) -> set[int]:
    """Every token that is right to draw at `point`, up to rounding, from the definitions in float64.

    Of equally likely ones those that come first in the vocabulary are kept.
    """
    scores = logits.cpu().numpy().copy()
    if not sampling.mirostat and recent:
        ids, penalty = np.array(sorted(set(recent))), np.float32(sampling.repeat_penalty)
        scores[ids] = np.where(scores[ids] > 0, scores[ids] / penalty, scores[ids] * penalty)
    order = np.argsort(-scores, kind="stable")
    if not sampling.mirostat and sampling.temperature == 0:
        return {int(order[0])}
    least, most = _counts(scores[order].astype(np.float64), sampling, mu)
    behind = scores.astype(np.float64) - scores[order[0]]
    weights = np.exp(behind if sampling.mirostat else behind / sampling.temperature)
    found: set[int] = set()
    for count in range(least, most + 1):
        kept = np.zeros_like(weights)
        kept[order[:count]] = weights[order[:count]]
        share = np.cumsum(kept) / kept.sum()
        first, last = (int(np.searchsorted(share, point + by, side="right")) for by in (-ROUNDING, ROUNDING))
        found |= {int(i) for i in range(first, min(last, len(kept) - 1) + 1) if kept[i] > 0}
        found |= {int(order[0])} if last >= len(kept) else set()
    return found


def _counts(ordered: np.ndarray, sampling: Sampling, mu: float) -> tuple[int, int]:
    """How many of the likeliest tokens are kept, at least and at most; `ordered` are logits downwards."""
    size = len(ordered)
    with np.errstate(divide="ignore"):
        surprise = -np.log2(np.exp(ordered - ordered[0]) / np.exp(ordered - ordered[0]).sum())
    if sampling.mirostat == 1:
        cut = mirostat.zipf_cutoff(mirostat.zipf_exponent(torch.from_numpy(ordered)), mu, size)
        return cut, cut
    if sampling.mirostat == 2:
        bound = max(mu, surprise[0])
        return int((surprise <= bound - ROUNDING).sum()) or 1, int((surprise <= bound + ROUNDING).sum())
    behind = (ordered[0] - ordered) / sampling.temperature
    cut = sampling.top_k if 0 < sampling.top_k < size else size
    share = np.cumsum(np.exp(-behind))
    share /= share[cut - 1]
    limits: list[int] = []
    for by in (-ROUNDING, ROUNDING):
        nucleus = int((share < sampling.top_p + by).sum()) + 1 if sampling.top_p < 1 else size
        near = int((np.exp(-behind) >= sampling.min_p * (1 - by)).sum())
        limits.append(max(1, min(cut, nucleus, near)))
    return limits[0], limits[1]


class Pair:
    """Both samplers over the same logits from the same seed. Their mu are to be `mu_within` of each other."""

    def __init__(self, host: Sampler, device: DeviceSampler, seed: int, mu_within: float = 1e-6) -> None:
        self.host, self.device, self.mu_within = host, device, mu_within
        self.drawn, self.differing = 0, 0
        self._points = torch.Generator().manual_seed(seed)

    def step(
        self, logits: Tensor, sampling: Sampling, choose: Callable[[Tensor], object] | None = None
    ) -> None:
        """One token of each: the same, or two that are both right up to rounding.

        `choose` replaces the call between `stage` and `read`.
        """
        host, device = self.host, self.device
        recent, size = list(host._recent), logits.numel()
        mu = mirostat.clamp_mu(2 * sampling.mirostat_tau, size) if host.mu is None else host.mu
        want = host(logits)
        if choose is None:
            got = device(logits.to(device.buffers.device))
        else:
            device.stage()
            choose(logits)
            got = device.read()
        drawn = sampling.mirostat or sampling.temperature > 0
        point = float(torch.rand((), dtype=torch.float64, generator=self._points)) if drawn else 0.0
        self.drawn += 1
        if got.token == want.token:
            assert abs(got.surprise - want.surprise) <= 1e-4
            assert (device.mu is None) == (host.mu is None)
            assert device.mu is None or host.mu is None or abs(device.mu - host.mu) <= self.mu_within
        else:
            self.differing += 1
            assert {got.token, want.token} <= admissible(logits, sampling, point, recent, mu)
            device._recent = deque(host._recent, host._recent.maxlen)
            device.mu = host.mu
        if (
            device.buffers.device != logits.device
        ):  # that sums in another order, and the difference would add up
            device.mu = host.mu
