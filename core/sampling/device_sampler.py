"""`Sampler` where the logits are: only the token and its surprise come back from the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from core.options import Sampling
from core.sampling import mirostat
from core.sampling.on_device import Numbers, SamplingBuffers, choose
from core.sampling.sampler import RECENT, Choice

Run = Callable[[SamplingBuffers, Tensor], None]


class DeviceSampler:
    """Draws the tokens of one reply, as `Sampler` with the same arguments does.

    `run` is `choose`, or does the same by other means, such as a graph.
    """

    def __init__(
        self,
        buffers: SamplingBuffers,
        settings: Callable[[], Sampling],
        seed: int,
        recent: Iterable[int] = (),
        mu: float | None = None,
        run: Run = choose,
    ) -> None:
        self.buffers, self.mu = buffers, mu
        self._run = run
        self._settings = settings
        self._now = Sampling()
        self._generator = torch.Generator().manual_seed(seed)
        self._recent: deque[int] = deque(recent, maxlen=RECENT)

    def __call__(self, logits: Tensor) -> Choice:
        """Choose from logits [V] in float32 on the buffers' device."""
        self.stage()
        self._run(self.buffers, logits)
        return self.read()

    def stage(self) -> None:
        """Bring what the next choice depends on, logits aside, to the device. Does not wait for it."""
        settings = self._now = self._settings()
        if settings.mirostat and self.mu is None:
            self.mu = mirostat.clamp_mu(2 * settings.mirostat_tau, self.buffers.vocab_size)
        drawn = settings.mirostat or settings.temperature > 0
        point = float(torch.rand((), dtype=torch.float64, generator=self._generator)) if drawn else 0.0
        self.buffers.stage(Numbers.of(settings, point, self.mu), self._recent)

    def read(self) -> Choice:
        """What was chosen since `stage`. Waits for the device."""
        token, surprise = self.buffers.read()
        settings = self._now
        if settings.mirostat:
            assert self.mu is not None
            tau, eta = settings.mirostat_tau, settings.mirostat_eta
            self.mu = mirostat.update_mu(self.mu, surprise, tau, eta, self.buffers.vocab_size)
        self._recent.append(token)
        return Choice(token, surprise)
