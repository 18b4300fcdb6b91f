"""Perplexity: how well a model, in its format and with its kernels, predicts a text.

T rows of one call, V vocabulary. The windows are disjoint and start from an empty cache, so a token
is judged by what stands before it in its window (huggingface.co/docs/transformers/perplexity).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from core.engine.backend import Sink
from core.engine.commands import Score
from core.engine.events import Perplexity, Scored, Scoring
from core.engine.load import Engine
from core.errors import Cancelled, UserError
from core.model.transformer import Unit
from core.text.tokenizer import Tokenizer

_LOGITS_BYTES = 64 * 10**6  # of one tile; a window of 4096 over 128256 tokens would be 2.1 GB
_PROGRESS_SECONDS = 0.25
_MOST_NATS = 700.0  # float64 ends at exp(709)
_WORD_END = re.compile(r"[^\W_](?= )")  # a letter or digit before a blank


def score(engine: Engine, command: Score, emit: Sink, cancelled: Callable[[], bool]) -> Scored:
    """The perplexity that `command` asks for, emitting Scoring on the way.

    Raises UserError for a text that gives no score, and for a model that cannot give one here.
    """
    if command.tokens is None:
        ids = engine.tokenizer.encode(command.text)
    else:
        ids = first_tokens(engine.tokenizer, command.text, command.tokens)
    length = engine.cache.capacity
    windows = [window for i in range(0, len(ids), length) if len(window := ids[i : i + length]) > 1]
    if not windows:
        raise UserError("the text has fewer than 2 tokens, and the first gets no score; give a longer one")
    rows = min(command.rows or length, length)
    tally = _Tally(command.run, sum(len(window) - 1 for window in windows), emit)
    try:
        for window in windows:
            _score_window(engine, window, rows, tally, cancelled)
    except Cancelled:
        return Scored(command.run)
    except torch.OutOfMemoryError:
        raise UserError(
            f"{rows} tokens in one call do not fit in the memory of {engine.info.device}; "
            "give a smaller --rows or --context"
        ) from None
    return Scored(command.run, Perplexity(tally.perplexity, tally.scored, len(windows), tally.tok_s))


def first_tokens(tokenizer: Tokenizer, text: str, count: int) -> list[int]:
    """The first `count` ids of `text`, without encoding much more of it than they need.

    A text cut between a letter or digit and a blank has ids that begin those of the whole: no
    vocabulary joins the two in a token, and none looks further ahead than to the blank.
    """
    size = 8 * count  # characters; a token has four in prose
    while cut := _WORD_END.search(text, size):
        ids = tokenizer.encode(text[: cut.end()])
        if len(ids) >= count:
            return ids[:count]
        size *= 2
    return tokenizer.encode(text)[:count]


@torch.inference_mode()
def _score_window(
    engine: Engine, window: list[int], rows: int, tally: _Tally, cancelled: Callable[[], bool]
) -> None:
    """Add the losses of all tokens of `window` but the first. Raises Cancelled, or UserError."""
    model, cache = engine.model, engine.cache
    tile = max(1, _LOGITS_BYTES // (4 * model.config.vocab_size))
    steps = 2 * model.config.n_layers + 1  # the units, and the head
    cache.tokens.clear()
    for start in range(0, len(window) - 1, rows):
        targets = torch.tensor(window[start + 1 : start + 1 + rows])  # [T]
        inputs = window[start : start + len(targets)]
        tally.begin(len(inputs))
        units = _counted(model.units.walk(cancelled), steps, tally)
        hidden = model.hidden(torch.tensor(inputs), cache, units)
        cache.commit(inputs)
        for states, wanted in zip(hidden.split(tile), targets.split(tile), strict=True):
            logits = model.head(states, cancelled)
            losses = F.cross_entropy(logits, wanted.to(logits.device), reduction="none")
            loss = float(losses.double().sum())
            if not loss < _MOST_NATS * len(wanted):  # true of nan as well
                raise UserError(
                    f"the logits in {engine.info.dtype} are no finite numbers; give another --dtype, "
                    "or check the weights"
                )
            tally.add(len(wanted), loss)


def _counted(units: Iterator[Unit], steps: int, tally: _Tally) -> Iterator[Unit]:
    """The units in turn; each brings the running call one of `steps` further."""
    for done, unit in enumerate(units, 1):
        yield unit
        tally.advance(done / steps)


class _Tally:
    """The losses so far, and how far that is: told a few times a second."""

    def __init__(self, run: int, total: int, emit: Sink) -> None:
        self.scored = 0
        self._loss = 0.0  # nats
        self._running = 0  # tokens of the running call that have no score yet
        self._share = 0.0  # of the way of these
        self._run, self._total, self._emit = run, total, emit
        self._started = self._told = time.perf_counter()

    @property
    def perplexity(self) -> float:
        """exp of the mean loss."""
        return math.exp(self._loss / self.scored)

    @property
    def tok_s(self) -> float:
        """Tokens with a score, which are as many as were run, per second so far."""
        return self.scored / (time.perf_counter() - self._started)

    def begin(self, rows: int) -> None:
        """A call of the model with `rows` tokens begins."""
        self._running, self._share = rows, 0.0

    def advance(self, share: float) -> None:
        """The tokens of the running call have come `share` of their way."""
        self._share = share
        self._tell()

    def add(self, rows: int, loss: float) -> None:
        """`rows` more tokens have a score: `loss` nats together."""
        self._running -= rows
        self.scored += rows
        self._loss += loss
        self._tell()

    def _tell(self) -> None:
        now = time.perf_counter()
        done = self.scored + int(self._running * self._share)
        if done and now - self._told >= _PROGRESS_SECONDS:
            self._told = now
            perplexity = self.perplexity if self.scored else None
            self._emit(Scoring(self._run, done, self._total, done / (now - self._started), perplexity))
