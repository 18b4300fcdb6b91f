"""`Sampler`'s pipeline where the logits are: fixed shapes, and nothing waits for the host.

What a setting does is a number in a buffer, so that one CUDA graph of `choose` serves all settings. The
vocabulary is sorted once, from the likeliest down. Every filter keeps tokens up to some rank; together
they keep up to the lowest of those ranks.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.options import Sampling
from core.sampling import mirostat
from core.sampling.sampler import RECENT

_NUMBERS = struct.Struct(f"=7d{1 + RECENT}q")
_RESULT = struct.Struct("=qd")


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the device is told for one token. Infinity is off everywhere, and exactly so.

    `point` from 0 to 1 is where in the cumulative sum to draw, infinite: no drawing, the likeliest token.
    `mass` is top-p, `kept` top-k, and `within` how far in logits min-p lets a token lie behind the
    likeliest. `zipf` and `cut` are mu of Mirostat 1 and 2, as a natural logarithm.
    """

    point: float = math.inf
    temperature: float = 1.0
    mass: float = math.inf
    within: float = math.inf
    penalty: float = 1.0
    zipf: float = math.inf
    cut: float = math.inf
    kept: float = math.inf

    @classmethod
    def of(cls, settings: Sampling, point: float, mu: float | None) -> Numbers:
        """Those of `settings`; `mu` in bits is Mirostat's, under which all else is off."""
        if settings.mirostat:
            assert mu is not None
            log_mu = mu * math.log(2)
            return cls(point, zipf=log_mu) if settings.mirostat == 1 else cls(point, cut=log_mu)
        if settings.temperature == 0:
            return cls(penalty=settings.repeat_penalty)
        return cls(
            point,
            temperature=settings.temperature,
            mass=settings.top_p if settings.top_p < 1 else math.inf,
            within=-math.log(settings.min_p) if settings.min_p > 0 else math.inf,
            penalty=settings.repeat_penalty,
            kept=settings.top_k if settings.top_k > 0 else math.inf,
        )


class SamplingBuffers:
    """Where `choose` finds its numbers and leaves its result. None of it moves, so that a graph may hold it.

    `token` is int64 [1]; `surprise`, float64 [1], is in nats, of the untouched distribution.

    One token after another: `stage`, `choose`, `read`. What is staged before the last result was read may
    overwrite numbers that are still on their way.
    """

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        """Takes 16 bytes of the device for each token there is. Raises torch.OutOfMemoryError."""
        self.vocab_size, self.device = vocab_size, device
        pinned = device.type == "cuda"
        with torch.inference_mode(False):  # a tensor made in it could not be written outside
            self._host = torch.zeros(_NUMBERS.size // 8, dtype=torch.int64, pin_memory=pinned)
            self._host_result = torch.zeros(2, dtype=torch.int64, pin_memory=pinned)
            self._staged = torch.zeros(_NUMBERS.size // 8, dtype=torch.int64, device=device)
            numbers, self.last, self.recent = self._staged.split([7, 1, RECENT])
            self.point, self.temperature, self.mass, self.within, self.penalty, self.zipf, self.cut = (
                numbers.view(torch.float64).unbind()
            )
            self.result = torch.zeros(2, dtype=torch.int64, device=device)
            self.token, self.surprise = self.result[:1], self.result[1:].view(torch.float64)
            self.ranks = torch.arange(vocab_size, device=device)
            counts = torch.arange(1, vocab_size + 1, dtype=torch.float64, device=device)
            self.thresholds = torch.log(counts[1:] - 0.5)  # what rounds to rank 2, 3, ... begins there
            head = counts[: mirostat.ZIPF_RATIOS + 1]
            self.ratios = torch.log(head[1:] / head[:-1])
            self.ratios_squared = self.ratios.square()
            self.zero = torch.zeros((), device=device)
            self.minus_one = torch.full((1,), -1.0, dtype=torch.float64, device=device)
        self._before: tuple[float, ...] = ()

    def stage(self, numbers: Numbers, recent: Sequence[int]) -> None:
        """Bring the numbers of one token to the device where they changed; `recent` are up to RECENT ids."""
        penalty = numbers.penalty if recent else 1.0
        # To name a token twice does no harm, and without a penalty none of them matters.
        ids = [0] * RECENT if penalty == 1 else [*recent, *[recent[-1]] * (RECENT - len(recent))]
        last = int(min(numbers.kept, self.vocab_size)) - 1
        now = (
            numbers.point, numbers.temperature, numbers.mass, numbers.within, penalty, numbers.zipf,
            numbers.cut, last, *ids,
        )  # fmt: skip
        if now != self._before:
            _NUMBERS.pack_into(self._host.numpy().data, 0, *now)
            self._staged.copy_(self._host, non_blocking=True)
            self._before = now

    def read(self) -> tuple[int, float]:
        """The token chosen last and its surprise in bits. Waits for the device."""
        token, surprise = _RESULT.unpack_from(self._host_result.copy_(self.result).numpy().data)
        return token, surprise / math.log(2)


@torch.inference_mode()
def choose(buffers: SamplingBuffers, logits: Tensor) -> None:
    """Choose from logits [V] in float32 by what is staged, into `buffers.token` and `buffers.surprise`."""
    largest = logits.amax(0, keepdim=True)
    log_total = (logits - largest).exp_().sum(0, keepdim=True).log_()
    values, ids = torch.sort(_penalised(buffers, logits), stable=True, descending=True)
    behind = (values[:1] - values).div_(buffers.temperature)
    weights = (behind * buffers.minus_one).exp_()  # in float64
    last = _last_rank(buffers, values, behind, weights, log_total)
    weights.mul_(buffers.ranks <= last)
    # Back in the vocabulary's order. In float64, since in parallel no two sums round alike.
    cumulative = torch.empty_like(weights).scatter_(0, ids, weights).cumsum(0)
    found = torch.searchsorted(cumulative, cumulative[-1:] * buffers.point, right=True)
    # No token begins at the very end, where a product may round up to, nor at infinity or what is no number.
    torch.where(found < buffers.vocab_size, found, ids[:1], out=buffers.token)
    torch.sub(log_total + largest, logits.gather(0, buffers.token), out=buffers.surprise)


def _penalised(buffers: SamplingBuffers, logits: Tensor) -> Tensor:
    scores = logits.gather(0, buffers.recent)
    lower = torch.where(scores > 0, scores / buffers.penalty, scores * buffers.penalty)
    return logits.scatter(0, buffers.recent, lower)


def _last_rank(
    buffers: SamplingBuffers, values: Tensor, behind: Tensor, weights: Tensor, log_total: Tensor
) -> Tensor:
    """The last rank that every filter keeps, from 0: int64 [1].

    `values` are the sorted logits, `behind` how far they lie behind the first at the temperature.
    """
    last = torch.minimum(buffers.last, _zipf_rank(buffers, values))
    cumulative = weights.cumsum(0)
    share = cumulative.gather(0, last) * buffers.mass
    last = torch.minimum(last, torch.searchsorted(cumulative, share))
    # Under Mirostat 2 the first logit has a surprise of log_total; it and its equals always stay.
    within = (buffers.cut - log_total).clamp(buffers.zero, buffers.within)
    return torch.minimum(last, torch.searchsorted(behind[1:], within, right=True))


def _zipf_rank(buffers: SamplingBuffers, values: Tensor) -> Tensor:
    """`mirostat.zipf_cutoff` of `mirostat.zipf_exponent`, from 0; the very last rank where it is off."""
    head = values[: mirostat.ZIPF_RATIOS + 1]
    gaps = head[:-1] - head[1:]
    fitted = (gaps * buffers.ratios).nan_to_num_(0.0, 0.0).sum(0, keepdim=True)
    exponent = fitted / ((gaps < math.inf) * buffers.ratios_squared).sum(0, keepdim=True)
    slack = 1 - exponent  # 0 would make the factor 0 / 0 and keep all, but no fit comes out at 1 exactly
    factor = slack / torch.expm1(slack * math.log(buffers.vocab_size))
    log_rank = (factor.log_() + buffers.zipf) / exponent
    log_rank.masked_fill_(exponent <= 0, math.inf)  # a flat head says nothing about where to cut
    return torch.searchsorted(buffers.thresholds, log_rank, right=True)
