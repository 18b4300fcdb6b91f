"""Conversations as token ids, in the form that a model was trained on.

Replies stay the ids that were sampled: to decode and encode again is not an identity. Every format
keeps one promise: the encoding of turns[:n + 1] starts with that of turns[:n] and its reply, so a
KV cache that holds a conversation holds the beginning of the next prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from core.errors import Unbuilt, UserError
from core.text.tokenizer import Tokenizer

_SEPARATOR = "<|endoftext|>"


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user said and the token ids of the answer; None while it is not answered yet.

    A stop id at the end of `reply` makes no difference.
    """

    user: str
    reply: tuple[int, ...] | None = None


class ChatFormat(Protocol):
    """How turns are written for a model."""

    name: str
    stop_ids: frozenset[int]
    """The tokens that end a reply."""
    replies_start_text: bool
    """Whether a reply is a text of its own, and not the user's text continued."""

    def check(self, text: str) -> None:
        """Raises UserError for a message or system prompt that cannot be said in this format."""
        ...

    def encode(self, turns: Sequence[Turn], system: str | None) -> list[int]:
        """The prompt, ending where the reply to the last turn begins, or after it if it has one.

        `system` None is the format's own, "" none at all. Raises UserError as `check` does.
        """
        ...


def chat_format(name: str, tokenizer: Tokenizer, default_system: str | None) -> ChatFormat:
    """The format called `name`. `default_system` is the system prompt of the checkpoint's own template.

    Raises UserError where the tokenizer lacks the format's control tokens, or the format is not built.
    """
    if name == "llama2":
        return Llama2(tokenizer)
    if name == "chatml":
        return ChatML(tokenizer, default_system)
    if name == "none":
        return Plain(tokenizer)
    raise Unbuilt(f"--chat-format {name}")


def raw_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """BOS and the text, for completion without any chat format.

    A tokenizer without BOS begins with the text; an empty one then begins with the token that
    separated documents in training, since a model needs one token to go on from. Raises UserError
    where there is no such token.
    """
    ids = tokenizer.encode(text)
    if tokenizer.bos_id is not None:
        return [tokenizer.bos_id, *ids]
    if ids:
        return ids
    separator = tokenizer.controls.get(_SEPARATOR)
    start = tokenizer.eos_id if separator is None else separator
    if start is None:
        raise UserError("the prompt is empty, and this tokenizer has no start token; give some text")
    return [start]


class Llama2:
    """Meta's format for Llama 2 chat (facebookresearch/llama, llama/generation.py).

    Each pair stands between BOS and EOS; the tags are plain text, so nobody else may write them. The
    system prompt is part of the first message. Where Meta's code encodes an old answer anew with a
    blank after it, the sampled ids are kept and followed by EOS at once: the model's own words.
    """

    name = "llama2"
    replies_start_text = True
    _TAGS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.bos_id is None or tokenizer.eos_id is None:
            raise UserError("--chat-format llama2: this tokenizer has no BOS and EOS; choose another format")
        self._encode = tokenizer.encode
        self._bos, self._eos = tokenizer.bos_id, tokenizer.eos_id
        self.stop_ids = frozenset((self._eos,))

    def check(self, text: str) -> None:
        """Raises UserError for text that holds one of the format's tags."""
        for tag in self._TAGS:
            if tag in text:
                raise UserError(
                    f"{tag} is a mark of the llama2 format and cannot be part of a message; leave it out"
                )

    def encode(self, turns: Sequence[Turn], system: str | None) -> list[int]:
        """BOS [INST] user [/INST] reply EOS, for every turn; without reply and EOS where it is open."""
        ids: list[int] = []
        for i, turn in enumerate(turns):
            self.check(turn.user)
            text = turn.user
            if i == 0 and system:
                self.check(system)
                text = f"<<SYS>>\n{system}\n<</SYS>>\n\n{text}"
            ids += [self._bos, *self._encode(f"[INST] {text.strip()} [/INST]")]
            if turn.reply is not None:
                ids += [*_words(turn.reply, self.stop_ids), self._eos]
        return ids


class ChatML:
    """<|im_start|>role, a line break, the content, <|im_end|> and a line break, for every message.

    The marks are control tokens, which text cannot spell, so every text can be said. The ids are
    those of the rendered template: control tokens split a text before anything else does.
    """

    name = "chatml"
    replies_start_text = True

    def __init__(self, tokenizer: Tokenizer, default_system: str | None) -> None:
        start, end = tokenizer.controls.get("<|im_start|>"), tokenizer.controls.get("<|im_end|>")
        if start is None or end is None:
            raise UserError(
                "--chat-format chatml: this tokenizer has no <|im_start|> or <|im_end|>; choose another"
            )
        self._encode = tokenizer.encode
        self._start, self._end = start, end
        self._default_system = default_system
        self.stop_ids = _ends(tokenizer) | {end}

    def check(self, text: str) -> None:
        """Accepts every text."""

    def encode(self, turns: Sequence[Turn], system: str | None) -> list[int]:
        """The system message, if any, and the turns; the last open one ends with the assistant's header."""
        if system is None:
            system = self._default_system
        between = [self._end, *self._encode("\n")]
        ids: list[int] = []
        if system:
            ids += [self._start, *self._encode(f"system\n{system}"), *between]
        for turn in turns:
            ids += [self._start, *self._encode(f"user\n{turn.user}"), *between]
            ids += [self._start, *self._encode("assistant\n")]
            if turn.reply is not None:
                ids += [*_words(turn.reply, self.stop_ids), *between]
        return ids


class Plain:
    """No format, for base models: what was said and answered is one text, and the model goes on with it.

    BOS, the system prompt if one is given, and the turns; a line break stands after the system
    prompt and after each reply. Nothing stands between a message and its reply.
    """

    name = "none"
    replies_start_text = False

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.stop_ids = _ends(tokenizer)

    def check(self, text: str) -> None:
        """Accepts every text."""

    def encode(self, turns: Sequence[Turn], system: str | None) -> list[int]:
        """The text so far. Raises UserError where it is empty and the tokenizer has no start token."""
        ids: list[int] = []
        for i, turn in enumerate(turns):
            if i == 0:
                ids += raw_prompt(self._tokenizer, f"{system}\n{turn.user}" if system else turn.user)
            else:
                ids += self._tokenizer.encode(f"\n{turn.user}", continues=True)
            if turn.reply is not None:
                ids += _words(turn.reply, self.stop_ids)
        return ids


def _ends(tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens after which a text is over, whatever its format."""
    candidates = (tokenizer.eos_id, tokenizer.controls.get(_SEPARATOR))
    return frozenset(token for token in candidates if token is not None)


def _words(reply: Sequence[int], stop_ids: frozenset[int]) -> Sequence[int]:
    """`reply` without the stop id that may end it."""
    return reply[:-1] if reply and reply[-1] in stop_ids else reply
