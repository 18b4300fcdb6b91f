"""A tokenizer that need not encode a conversation's earlier texts again in every turn."""

from __future__ import annotations

from core.text.tokenizer import Tokenizer

_MOST_CHARACTERS = 4 * 2**20
"""Of the texts that are kept; the longest contexts hold about as many."""


class Remembered:
    """The tokenizer it is given, with the ids of the texts that were encoded last kept."""

    def __init__(self, tokenizer: Tokenizer, most: int = _MOST_CHARACTERS) -> None:
        """At most `most` characters of text are kept."""
        self.vocab_size = tokenizer.vocab_size
        self.bos_id, self.eos_id = tokenizer.bos_id, tokenizer.eos_id
        self.strips_leading_space = tokenizer.strips_leading_space
        self.blank_after_control = tokenizer.blank_after_control
        self.controls = tokenizer.controls
        self._tokenizer, self._most = tokenizer, most
        self._kept: dict[tuple[str, bool], list[int]] = {}  # in the order of their last use
        self._characters = 0

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """See Tokenizer."""
        key = text, continues
        ids = self._kept.pop(key, None)
        if ids is None:
            ids = self._tokenizer.encode(text, continues=continues)
            self._characters += len(text)
        self._kept[key] = ids
        while self._characters > self._most:
            oldest = next(iter(self._kept))
            del self._kept[oldest]
            self._characters -= len(oldest[0])
        return list(ids)

    def token_bytes(self, token: int) -> bytes:
        """See Tokenizer."""
        return self._tokenizer.token_bytes(token)
