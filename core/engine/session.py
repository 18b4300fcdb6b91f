"""One conversation with one loaded model: from a message to a reply, as events."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import closing

from core.engine.backend import Sink
from core.engine.conversation import Conversation, Message
from core.engine.devices import peak_vram
from core.engine.events import Configure, Delta, Done, Prefill, Reason, Reply, Stats
from core.engine.generate import generate
from core.engine.load import Engine
from core.errors import Cancelled, UserError
from core.sampling.sampler import RECENT, Choice, Sampler
from core.text.decode import StreamDecoder
from core.text.dialogue import Turn, raw_prompt
from core.text.sanitize import sanitize

_DELTA_SECONDS = 0.05  # at most 20 events a second, whatever the speed of the model


class Session:
    """The conversation, and the replies that make it grow. `settings` is asked before every token."""

    def __init__(self, engine: Engine, settings: Callable[[], Configure], emit: Sink) -> None:
        self.conversation = Conversation()
        self._engine = engine
        self._settings = settings
        self._emit = emit

    def reply(self, run: int, text: str, cancelled: Callable[[], bool]) -> Done:
        """Answer `text` at the head of the conversation, emitting Prefill and Delta on the way.

        A UserError leaves the conversation as it was, and so does a stop before the first token.
        """
        parent = self.conversation.head
        try:
            return self._reply(run, text, parent, cancelled)
        except BaseException:
            self.conversation.rewind(parent)
            raise

    def _reply(self, run: int, text: str, parent: int | None, cancelled: Callable[[], bool]) -> Done:
        engine, settings = self._engine, self._settings()
        mu = self.conversation.mu
        user = self.conversation.add("user", text)
        prompt = self._prompt(text, settings.system)
        seed = settings.sampling.seed
        seed = secrets.randbelow(2**32) if seed is None else seed
        sampler = Sampler(lambda: self._settings().sampling, seed, prompt[-RECENT:], mu)
        at_start = engine.format.replies_start_text if engine.format else not text
        recording = _Recording(run, engine, len(prompt), self._emit, at_start=at_start)
        tokens = generate(
            engine.runner,
            prompt,
            sampler,
            cancelled=cancelled,
            on_prefill=recording.prefill,
        )
        reason = Reason.LENGTH  # the context is full
        try:
            with closing(tokens):
                for choice in tokens:
                    if choice.token in engine.stop_ids:
                        reason = Reason.STOP
                        break
                    recording.add(choice)
                    if len(recording.tokens) >= self._settings().sampling.max_tokens:
                        break
        except Cancelled:
            reason = Reason.CANCELLED
        reply = recording.finish(reason, seed, sampler.mu)
        if reason is Reason.CANCELLED and not reply.tokens:
            self.conversation.rewind(parent)
            return Done(run, reason, reply.stats, reply, parent_id=parent)
        answer = self.conversation.add("assistant", reply.text, reply.tokens, reply.mu)
        return Done(run, reason, reply.stats, reply, user.id, answer.id, parent)

    def _prompt(self, text: str, system: str | None) -> list[int]:
        engine = self._engine
        if engine.format is None:
            prompt = raw_prompt(engine.tokenizer, text)
        else:
            engine.format.check(text)
            prompt = engine.format.encode(_turns(self.conversation.path()), system)
        length, limit = len(prompt), engine.cache.capacity
        if length >= limit:
            wanted = length + 512
            larger = f" or load with --context {wanted}" if wanted <= engine.model.config.max_context else ""
            raise UserError(
                f"{length} tokens do not fit in the context {limit}; shorten it, start a new chat{larger}"
            )
        return prompt


class _Recording:
    """What one reply has said so far, when, and what of it has been emitted."""

    def __init__(self, run: int, engine: Engine, prompt_tokens: int, emit: Sink, *, at_start: bool) -> None:
        self.tokens: list[int] = []
        self._surprises: list[float] = []
        self._run, self._engine, self._emit = run, engine, emit
        self._prompt_tokens = prompt_tokens
        self._cached: int | None = None
        self._decoder = StreamDecoder(engine.tokenizer, at_start=at_start)
        self._text: list[str] = []
        self._sent_tokens = self._sent_text = 0
        self._started = self._last = self._last_sent = time.perf_counter()
        self._first: float | None = None
        self._arrived = self._arrived_first = 0

    def prefill(self, done: int) -> None:
        """`done` prompt tokens are in the cache; the first call says how many were there before."""
        if self._cached is None:
            self._cached = done
        self._emit(Prefill(self._run, done, self._prompt_tokens, self._cached))

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
            prompt_tokens=self._prompt_tokens,
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
            self._emit(Delta(self._run, text, ids, tuple(self._surprises[self._sent_tokens :])))
        self._sent_tokens, self._sent_text = len(self.tokens), len(self._text)

    def _stats(self) -> Stats:
        ttft = prefill = decode = streamed = None
        if self._first is not None:
            ttft = self._first - self._started
            prefill = (self._prompt_tokens - (self._cached or 0)) / ttft
            if len(self.tokens) > 1:
                decode = (len(self.tokens) - 1) / (self._last - self._first)
                streamed = (self._arrived - self._arrived_first) // (len(self.tokens) - 1)
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


def _turns(path: list[Message]) -> list[Turn]:
    """Pairs of message and reply; the last message is open."""
    turns = []
    for i in range(0, len(path), 2):
        reply = path[i + 1].tokens if i + 1 < len(path) else None
        turns.append(Turn(path[i].text, reply))
    return turns
