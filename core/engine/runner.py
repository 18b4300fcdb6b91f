"""One pass of the model after another, between which weights may move."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from core.errors import Cancelled, UserError
from core.model.cache import KVCache
from core.model.transformer import Transformer, Unit


class Runner:
    """A model with its cache. `rows` bounds the tokens of one pass.

    `before` is called before every pass; `relieve` when the device has no memory left: True where it has
    made some, so that the pass can be tried again. Both may change `rows`. `decode` may run a single token
    in its own way, looking at the stop flag: logits [1, V], or None where it leaves it to the model.
    """

    def __init__(
        self,
        model: Transformer,
        cache: KVCache,
        rows: int,
        *,
        before: Callable[[], None] = lambda: None,
        relieve: Callable[[], bool] = lambda: False,
        decode: Callable[[int, Callable[[], bool]], Tensor | None] = lambda token, cancelled: None,
    ) -> None:
        self.model, self.cache, self.rows = model, cache, rows
        self.before, self.relieve, self.decode = before, relieve, decode

    def run(
        self,
        tokens: list[int],
        cancelled: Callable[[], bool],
        advanced: Callable[[int], None] | None = None,
    ) -> tuple[int, Tensor]:
        """Run as many of `tokens` as one pass may have; how many, and the logits [V] of the last of them.

        They are in the cache afterwards. `advanced` is told after each unit how many tokens that is worth.
        Raises Cancelled, and UserError where memory is short for good.
        """
        while True:
            self.before()
            chunk = tokens[: self.rows]
            try:
                logits = self._pass(chunk, cancelled, advanced)
            except torch.OutOfMemoryError:
                pass  # beyond this clause, where nothing holds on to the pass's memory any more
            else:
                self.cache.commit(chunk)
                return len(chunk), logits[-1]
            if not self.relieve():
                raise UserError(
                    f"{len(chunk)} tokens in one pass do not fit in the device's memory even with every "
                    "weight streamed; load with a smaller --context, or --device cpu"
                )

    def _pass(
        self, chunk: list[int], cancelled: Callable[[], bool], advanced: Callable[[int], None] | None
    ) -> Tensor:
        if len(chunk) == 1:
            if cancelled():
                raise Cancelled
            logits = self.decode(chunk[0], cancelled)
            if logits is not None:
                return logits
        model, tokens = self.model, torch.tensor(chunk)
        if advanced is None:
            return model(tokens, self.cache, cancelled=cancelled)
        count = len(model.units)
        units = _told(model.units.walk(cancelled), lambda done: advanced(len(chunk) * done // count))
        return model.head(model.hidden(tokens, self.cache, units)[-1:], cancelled)


def _told(units: Iterator[Unit], advanced: Callable[[int], None]) -> Iterator[Unit]:
    """The units on their walk; `advanced` hears how many are done whenever another one begins."""
    for done, unit in enumerate(units):
        if done:
            advanced(done)
        yield unit
