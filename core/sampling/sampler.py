"""From logits to one token, under settings that may change between two tokens."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.options import Sampling
from core.sampling import filters, mirostat

RECENT = 64
"""How many of the last tokens, prompt included, the repetition penalty looks at."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token and its surprise: -log2 of its probability in the untouched distribution, in bits."""

    token: int
    surprise: float


class Sampler:
    """Draws the tokens of one reply.

    `settings` is asked before every token. `mu` is Mirostat's state, None until it first acts; pass
    the one of the reply before to go on from there.
    """

    def __init__(
        self, settings: Callable[[], Sampling], seed: int, recent: Iterable[int] = (), mu: float | None = None
    ) -> None:
        self.mu = mu
        self._settings = settings
        self._generator = torch.Generator().manual_seed(seed)
        self._recent: deque[int] = deque(recent, maxlen=RECENT)

    def __call__(self, logits: Tensor) -> Choice:
        """Choose from logits [V] in float32, on any device."""
        logits = logits.cpu()
        settings = self._settings()
        choose = self._mirostat if settings.mirostat else self._plain
        choice = choose(logits, settings)
        self._recent.append(choice.token)
        return choice

    def _plain(self, logits: Tensor, settings: Sampling) -> Choice:
        kept = filters.repetition_penalty(logits, self._recent, settings.repeat_penalty)
        if settings.temperature == 0:
            token = int(kept.argmax())
        else:
            kept = filters.temperature(kept, settings.temperature)
            kept = filters.top_k(kept, settings.top_k)
            kept = filters.top_p(kept, settings.top_p)
            kept = filters.min_p(kept, settings.min_p)
            token = draw(kept, self._generator)
        return Choice(token, surprise(logits, token))

    def _mirostat(self, logits: Tensor, settings: Sampling) -> Choice:
        size = logits.numel()
        mu = mirostat.clamp_mu(2 * settings.mirostat_tau, size) if self.mu is None else self.mu
        truncate = mirostat.truncate_v1 if settings.mirostat == 1 else mirostat.truncate_v2
        token = draw(truncate(logits, mu), self._generator)
        bits = surprise(logits, token)
        self.mu = mirostat.update_mu(mu, bits, settings.mirostat_tau, settings.mirostat_eta, size)
        return Choice(token, bits)


def surprise(logits: Tensor, token: int) -> float:
    """-log2 softmax(logits)[token], in bits."""
    return float(logits.logsumexp(-1) - logits[token]) / math.log(2)


def draw(logits: Tensor, generator: torch.Generator) -> int:
    """A token with its softmax probability, by inverting the cumulative sum: one uniform number a token.

    (multinomial would draw one for every entry of the vocabulary.)
    """
    cumulative = (logits - logits.max()).double().exp().cumsum(-1)
    point = torch.rand((), dtype=torch.float64, generator=generator) * cumulative[-1]
    token = int(torch.searchsorted(cumulative, point, right=True))
    # The product may round up to the very end, where no token begins.
    return token if token < logits.numel() else int(logits.argmax())
