"""What all chat formats share: turns in, token ids out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from core.errors import UserError
from core.text.tokenizer import Tokenizer

SEPARATOR = "<|endoftext|>"
"""What stood between documents in the training of many models."""


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


def ends(tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens after which a text is over, whatever its format."""
    candidates = (tokenizer.eos_id, tokenizer.controls.get(SEPARATOR))
    return frozenset(token for token in candidates if token is not None)


def words(reply: Sequence[int], stop_ids: frozenset[int]) -> Sequence[int]:
    """`reply` without the stop id that may end it."""
    return reply[:-1] if reply and reply[-1] in stop_ids else reply


def control(tokenizer: Tokenizer, name: str, spelling: str) -> int:
    """The control token `spelling`. Raises UserError where the format `name` finds none."""
    token = tokenizer.controls.get(spelling)
    if token is None:
        raise UserError(f"--chat-format {name}: this tokenizer has no {spelling}; choose another format")
    return token


def outer_tokens(tokenizer: Tokenizer, name: str) -> tuple[int, int]:
    """BOS and EOS. Raises UserError where the format `name` finds none."""
    if tokenizer.bos_id is None or tokenizer.eos_id is None:
        raise UserError(f"--chat-format {name}: this tokenizer has no BOS and EOS; choose another format")
    return tokenizer.bos_id, tokenizer.eos_id


def behind_control(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of `text` right behind a control token, as the tokenizer cuts a template's text."""
    return tokenizer.encode(text, continues=not tokenizer.blank_after_control)


def refuse_tags(name: str, tags: Sequence[str], text: str) -> None:
    """Raises UserError if `text` holds one of the tags that are plain text to the format `name`."""
    for tag in tags:
        if tag in text:
            raise UserError(
                f"{tag} is a mark of the {name} format and cannot be part of a message; leave it out"
            )
