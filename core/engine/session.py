"""One conversation with one loaded model: from a message to a reply, as events."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace

from core.engine.backend import Sink
from core.engine.commands import Configure, OpenChat
from core.engine.context import Exchange, Prompt, TooLong, exchanges, fit, room
from core.engine.conversation import Conversation, Message
from core.engine.events import Begun, CacheRead, Cut, Done, Failed, Moved, Notice, Opened, Reason
from core.engine.generate import generate
from core.engine.load import Engine
from core.engine.recording import Recording
from core.errors import Cancelled, UserError
from core.sampling.device_sampler import DeviceSampler
from core.sampling.sampler import RECENT, Sampler
from core.sizes import format_size
from core.text.dialogue import Turn, raw_prompt

log = logging.getLogger(__name__)

_WORD = "Go on."  # a short next message, to see what one would set off
_MEASURED = 16  # tokens of prefill from which its speed says something


class Session:
    """The conversation, and the replies that make it grow. `settings` is asked before every token."""

    def __init__(
        self,
        engine: Engine,
        settings: Callable[[], Configure],
        emit: Sink,
        conversation: Conversation | None = None,
    ) -> None:
        """Where `conversation` is given it goes on here."""
        self._engine = engine
        self._settings = settings
        self._emit = emit
        self._prefill_rate: float | None = None  # tokens per second, as last measured
        self.conversation = Conversation()
        if conversation is not None:
            messages = tuple(conversation.messages.values())
            own = self._own(messages)
            self.conversation = Conversation(own, conversation.head)
            self._tell_foreign(messages, own)

    # --- the tree -------------------------------------------------------------------------------

    def open(self, chat: OpenChat) -> None:
        """Another conversation in place of this one. ValueError where its messages are no tree."""
        messages = self._own(chat.messages)
        self.conversation = Conversation(messages, chat.head)
        self._emit(Opened(chat.chat, chat.head, messages))
        self._tell_foreign(chat.messages, messages)

    def _own(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        return tuple(self._encoded(message) for message in messages)

    def _tell_foreign(self, before: Sequence[Message], messages: Sequence[Message]) -> None:
        others = sum(new is not old for new, old in zip(messages, before, strict=True))
        if others:
            self._emit(
                Notice(
                    f"{others} {'reply' if others == 1 else 'replies'} of this chat came from a model with "
                    f"another vocabulary; {self._engine.info.name} gets the text encoded anew"
                )
            )

    def _encoded(self, message: Message) -> Message:
        """A message whose tokens are of this model's vocabulary."""
        engine, own = self._engine, self._engine.info.tokenizer
        known = max(message.tokens, default=0) < engine.model.config.vocab_size  # a file may claim anything
        if message.role == "user" or (message.tokenizer == own and known):
            return message
        at_start = engine.format is None or engine.format.replies_start_text
        tokens = tuple(engine.tokenizer.encode(message.text, continues=not at_start))
        return replace(message, tokens=tokens, surprise=(), tokenizer=own)

    def rewind(self, message_id: int | None) -> None:
        """Move the head. KeyError for an unknown message."""
        self.conversation.rewind(message_id)
        self._emit(Moved(message_id))

    # --- replies --------------------------------------------------------------------------------

    def submit(self, run: int, text: str, cancelled: Callable[[], bool]) -> Done:
        """Answer `text` at the head of the conversation, emitting Begun, Cut, Prefill and Delta on the way.

        A UserError leaves the conversation as it was. Where nothing is said the head does not move, but the
        message stays in the tree.
        """
        talk = self.conversation
        before = talk.head
        if before is not None and talk.messages[before].role == "user":  # never answered: say this instead
            talk.rewind(talk.messages[before].parent)
        user = talk.add("user", text)
        try:
            prompt = self._prompt(None)
        except BaseException:
            talk.rewind(before)
            talk.discard(user.id)
            raise
        return self._answer(run, user, prompt, before, cancelled)

    def resume(self, run: int, cancelled: Callable[[], bool]) -> Done:
        """Answer the message at the head, or go on with the reply there; all else is as in `submit`."""
        talk = self.conversation
        if talk.head is None:
            raise UserError("there is nothing to go on with yet; send a message")
        head = talk.messages[talk.head]
        if head.role == "user":
            others = talk.children(head.id)
            before = others[-1].id if others else head.id
            return self._answer(run, head, self._prompt(None), before, cancelled)
        if not head.cut_off:
            raise UserError("the reply has come to its end; send a message, or regenerate the reply")
        prompt = self._prompt(head)
        reply = replace(head, start=prompt.start, reason=None)
        talk.put(reply)
        assert head.parent is not None
        return self._speak(run, talk.messages[head.parent], reply, prompt, head.id, cancelled)

    def _answer(
        self, run: int, user: Message, prompt: Prompt, before: int | None, cancelled: Callable[[], bool]
    ) -> Done:
        """A new reply to `user`; without a token of it the head goes back to `before`."""
        talk = self.conversation
        talk.rewind(user.id)
        reply = replace(talk.add("assistant", ""), start=prompt.start, tokenizer=self._engine.info.tokenizer)
        talk.put(reply)
        return self._speak(run, user, reply, prompt, before, cancelled)

    def _speak(
        self,
        run: int,
        user: Message,
        reply: Message,
        prompt: Prompt,
        before: int | None,
        cancelled: Callable[[], bool],
    ) -> Done:
        engine, talk = self._engine, self.conversation
        self._emit(
            Begun(run, user.id, reply.id, user.parent, user.text, prompt.start, continues=bool(reply.tokens))
        )
        if prompt.left:
            self._emit(self._cut(prompt))
        seed = self._settings().sampling.seed
        seed = secrets.randbelow(2**32) if seed is None else seed
        recent = prompt.tokens[-RECENT:]
        sampler = engine.samplers(lambda: self._settings().sampling, seed, recent, talk.mu)
        at_start = engine.format.replies_start_text if engine.format else not user.text
        recording = Recording(run, engine, len(prompt.tokens), self._emit, earlier=reply, at_start=at_start)
        reason, error = self._generate(prompt, sampler, recording, cancelled)
        said = recording.finish(reason, seed, sampler.mu)
        if said.stats.prefill_tok_s is not None and recording.run_anew >= _MEASURED:
            self._prefill_rate = said.stats.prefill_tok_s
        if not said.tokens:
            talk.rewind(before)
            talk.discard(reply.id)
            return Done(run, reason, said.stats, said, user.id, None, user.parent, talk.head, error)
        talk.put(
            replace(
                reply, text=said.text, tokens=said.tokens, surprise=said.surprise, mu=said.mu, reason=reason
            )
        )
        return Done(
            run, reason, said.stats, said, user.id, reply.id, user.parent, talk.head, error, self._ahead()
        )

    def _generate(
        self,
        prompt: Prompt,
        sampler: Sampler | DeviceSampler,
        recording: Recording,
        cancelled: Callable[[], bool],
    ) -> tuple[Reason, str | None]:
        """Why it ended, and what went wrong: what had been said by then is kept."""
        tokens = generate(
            self._engine.runner,
            prompt.tokens,
            sampler,
            cancelled=cancelled,
            on_prefill=recording.prefill,
            on_units=recording.advance,
        )
        try:
            with closing(tokens):
                for choice in tokens:
                    if choice.token in self._engine.stop_ids:
                        return Reason.STOP, None
                    recording.add(choice)
                    if recording.new >= self._settings().sampling.max_tokens:
                        break
        except Cancelled:
            return Reason.CANCELLED, None
        except UserError as error:
            return Reason.ERROR, str(error)
        except Exception as error:
            log.error("a reply failed", exc_info=error)
            self._emit(Failed(f"{type(error).__name__}: {error}", user=False))
            return Reason.ERROR, f"{type(error).__name__}: {error}"
        return Reason.LENGTH, None  # of the reply, or the context is full

    # --- the cache --------------------------------------------------------------------------------

    def cache(self) -> CacheRead:
        """What the KV cache holds, and what of it the next message would run anew."""
        engine, talk = self._engine, self.conversation
        cache, anew = engine.cache, None
        if engine.format is not None:
            path = talk.path()
            if path and path[-1].role == "user":  # the next message stands in its place
                path.pop()
            with suppress(UserError):
                prompt = self._prompt(None, [*path, Message(-1, talk.head, "user", _WORD)]).tokens
                own = len(engine.tokenizer.encode(_WORD, continues=True))
                anew = max(0, len(prompt) - cache.common(prompt) - own)
        return CacheRead(cache.length, cache.capacity, engine.info.kv_bytes, anew)

    # --- the prompt -----------------------------------------------------------------------------

    def _prompt(self, continued: Message | None, path: Sequence[Message] | None = None) -> Prompt:
        """The prompt at the head, or of `path`: up to and with `continued`, a reply that was cut off."""
        engine, settings = self._engine, self._settings()
        path = self.conversation.path() if path is None else path
        turns = exchanges(path)
        if engine.format is None:
            turns = turns[-1:]
        else:
            engine.format.check(turns[-1][0].text)
        capacity = engine.cache.capacity

        def encode(some: Sequence[Exchange]) -> list[int]:
            return self._encode(some, continued, settings.system)

        try:
            return fit(
                turns, self.conversation.start, encode, capacity, room(capacity, settings.sampling.max_tokens)
            )
        except TooLong as error:
            raise UserError(
                f"{error.tokens} tokens do not fit in the context {capacity}; "
                f"shorten it, start a new chat{self._larger(error.tokens)}"
            ) from None

    def _larger(self, tokens: int) -> str:
        """The larger context that would hold `tokens`, and what it costs; nothing where there is none."""
        info, wanted = self._engine.info, tokens + 512
        if wanted > info.max_context:
            return ""
        now, then = (format_size(context * info.kv_bytes) for context in (info.context, wanted))
        return f" or load with --context {wanted}, whose KV cache takes {then} instead of {now}"

    def _encode(self, turns: Sequence[Exchange], continued: Message | None, system: str | None) -> list[int]:
        engine = self._engine
        spoken = [
            Turn(user.text, None if reply is None or reply is continued else reply.tokens)
            for user, reply in turns
        ]
        if engine.format is None:
            prompt = raw_prompt(engine.tokenizer, spoken[-1].user)
        else:
            prompt = engine.format.encode(spoken, system)
        return prompt if continued is None else [*prompt, *continued.tokens]

    def _cut(self, prompt: Prompt) -> Cut:
        assert prompt.start is not None
        tokens = len(prompt.tokens) - self._engine.cache.common(prompt.tokens)
        seconds = None if self._prefill_rate is None else tokens / self._prefill_rate
        return Cut(prompt.start, prompt.left, tokens, seconds)

    def _ahead(self) -> Cut | None:
        """What a next message of a word would set off; None where it fits."""
        talk, engine = self.conversation, self._engine
        # Encoding all texts takes a while, and most conversations are far from the end.
        if engine.format is None or engine.cache.length < engine.cache.capacity // 2:
            return None
        assert talk.head is not None
        word = Message(-1, talk.head, "user", _WORD)
        try:
            prompt = self._prompt(None, [*talk.path(), word])
        except UserError:
            return None
        return self._cut(prompt) if prompt.left else None
