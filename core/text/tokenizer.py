"""Strings to token ids and back, whatever library does the work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Tokenizer(Protocol):
    """A vocabulary. Text never becomes a control token by being spelled like one."""

    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    strips_leading_space: bool
    """Whether the first piece of a text carries a blank that is not part of it (SentencePiece)."""
    blank_after_control: bool
    """Whether text right behind a control token carries that blank as well."""
    controls: Mapping[str, int]
    """Spellings such as "<|im_end|>" that stand for one token in a template, and never in a text."""

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """The ids of plain text: no BOS, and no control token whatever the text spells.

        `continues` says that the text stands in the middle of another: no blank is put before it.
        """
        ...

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes, possibly part of a character, that a token stands for; b"" for a control token."""
        ...
