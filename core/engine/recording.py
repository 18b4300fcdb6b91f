"""What one reply has said so far, when, and what of it has been emitted."""

from __future__ import annotations

import time

from core.engine.backend import Sink
from core.engine.conversation import Message
from core.engine.devices import peak_vram
from core.engine.events import Delta, Prefill, Reason, Reply, Stats
from core.engine.load import Engine
from core.sampling.sampler import Choice
from core.text.decode import StreamDecoder
from core.text.sanitize import sanitize

_PREFILL_SECONDS = 0.25  # between two events while a pass goes on
_DELTA_SECONDS = 0.05  # at most 20 events a second, whatever the speed of the model


class Recording:
    """Takes the tokens of a run as they come. `earlier` is the reply that goes on: a new one is empty.

    `prompt_tokens` are those to be in the cache, `earlier` included. `at_start`: see StreamDecoder.
    """

    def __init__(
        self, run: int, engine: Engine, prompt_tokens: int, emit: Sink, *, earlier: Message, at_start: bool
    ) -> None:
        self.tokens = list(earlier.tokens)
        self._surprises = list(earlier.surprise)
        self._text = [earlier.text]
        self._earlier = len(earlier.tokens)
        self._run, self._engine, self._emit = run, engine, emit
        self._prompt_tokens = prompt_tokens
        self._cached: int | None = None
        self._decoder = StreamDecoder(engine.tokenizer, at_start=at_start)
        for token in earlier.tokens:  # it may have ended in the middle of a character
            self._decoder.feed(token)
        self._sent_tokens, self._sent_surprises, self._sent_text = self._earlier, len(self._surprises), 1
        self._started = self._last = self._last_sent = self._last_told = time.perf_counter()
        self._first: float | None = None
        self._arrived = self._arrived_first = 0

    @property
    def new(self) -> int:
        """How many tokens this run has added."""
        return len(self.tokens) - self._earlier

    @property
    def run_anew(self) -> int:
        """Tokens of the prompt that were not in the cache."""
        return self._prompt_tokens - (self._cached or 0)

    def prefill(self, done: int) -> None:
        """`done` prompt tokens are in the cache; the first call says how many were there before."""
        if self._cached is None:
            self._cached = done
        self._tell_prefill(done)

    def advance(self, done: int) -> None:
        """The same in the middle of a pass; told a few times a second."""
        if time.perf_counter() - self._last_told >= _PREFILL_SECONDS:
            self._tell_prefill(done)

    def _tell_prefill(self, done: int) -> None:
        self._last_told = time.perf_counter()
        self._emit(Prefill(self._run, done, self._prompt_tokens, self._cached or 0))

    def add(self, choice: Choice) -> None:
        """One more token; a Delta if the last one is long enough ago."""
        now = time.perf_counter()
        self.tokens.append(choice.token)
        self._surprises.append(choice.surprise)
        self._say(self._decoder.feed(choice.token))
        self._engine.peak.look()
        self._arrived = self._engine.placement.arrived
        if self._first is None:
            self._first, self._arrived_first = now, self._arrived
            self._flush()
        elif now - self._last_sent >= _DELTA_SECONDS:
            self._flush()
        self._last = now

    def finish(self, reason: Reason, seed: int, mu: float | None) -> Reply:
        """Emit what is left and sum up."""
        if reason is Reason.STOP:  # else the rest of an unfinished character may come when the reply goes on
            self._say(self._decoder.flush())
        self._flush()
        self._engine.peak.look(force=True)
        return Reply(
            text="".join(self._text),
            tokens=tuple(self.tokens),
            surprise=tuple(self._surprises),
            finish_reason=reason,
            seed=seed,
            mu=mu,
            prompt_tokens=self._prompt_tokens - self._earlier,
            cached_tokens=self._cached or 0,
            stats=self._stats(),
        )

    def _say(self, text: str) -> None:
        if text:
            self._text.append(sanitize(text))

    def _flush(self) -> None:
        self._last_sent = time.perf_counter()
        text = "".join(self._text[self._sent_text :])
        ids = tuple(self.tokens[self._sent_tokens :])
        if text or ids:
            self._emit(Delta(self._run, text, ids, tuple(self._surprises[self._sent_surprises :])))
        self._sent_tokens, self._sent_text = len(self.tokens), len(self._text)
        self._sent_surprises = len(self._surprises)

    def _stats(self) -> Stats:
        ttft = prefill = decode = streamed = None
        if self._first is not None:
            ttft = self._first - self._started
            prefill = self.run_anew / ttft
            if self.new > 1:
                decode = (self.new - 1) / (self._last - self._first)
                streamed = (self._arrived - self._arrived_first) // (self.new - 1)
        return Stats(
            load_s=self._engine.info.load_s,
            ttft_s=ttft,
            prefill_tok_s=prefill,
            decode_tok_s=decode,
            streamed_bytes_per_token=streamed if self._engine.placement.streams else None,
            peak_vram_bytes=peak_vram(self._engine.machine),
            peak_rss_bytes=self._engine.peak.rss,
            peak_anon_bytes=self._engine.peak.anon,
        )
