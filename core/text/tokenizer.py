"""Strings to token ids and back, whatever library does the work."""

from __future__ import annotations

from typing import Protocol


class Tokenizer(Protocol):
    """A vocabulary. Text never becomes a control token by being spelled like one."""

    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    strips_leading_space: bool
    """Whether the first piece of a text carries a blank that is not part of it (SentencePiece)."""

    def encode(self, text: str) -> list[int]:
        """The ids of plain text: no BOS, and no control token whatever the text spells."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes, possibly part of a character, that a token stands for; b"" for a control token."""
        ...

    def control_id(self, spelling: str) -> int | None:
        """The id of the control token spelled so, such as "<|im_end|>", or None."""
        ...
