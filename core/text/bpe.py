"""Byte-level BPE: the tokenizer of GPT-2 and its many heirs, from a vocabulary and its merges."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers

from core.errors import UserError
from core.text.sanitize import without_surrogates


class ByteLevelBPE:
    """A Tokenizer over pieces spelt in GPT-2's alphabet of 256 letters, one for each byte.

    `control` are the ids of control tokens: they are kept out of the vocabulary that text is cut
    into, so nothing a text spells can become one. `pre` names, as GGUF does, how a text is cut into
    words before the merges. `bos_id` is None for a model that was trained without BOS.
    """

    strips_leading_space = False
    blank_after_control = False

    def __init__(
        self,
        tokens: Sequence[str],
        merges: Sequence[str],
        *,
        control: Collection[int],
        pre: str,
        bos_id: int | None,
        eos_id: int | None,
    ) -> None:
        """Builds the tables. Raises UserError for an unknown `pre`, ValueError for tables at odds."""
        if pre not in _CUTS:
            raise UserError(
                f"the pre-tokenizer {pre!r:.60} is not read yet, only {', '.join(_CUTS)}; use --demo"
            )
        if len(set(tokens)) != len(tokens):
            raise ValueError("a token stands twice in the vocabulary")
        self.vocab_size = len(tokens)
        self.bos_id, self.eos_id = bos_id, eos_id
        self._tokens = tokens
        self.controls: Mapping[str, int] = {tokens[i]: i for i in control}
        words = {token: i for i, token in enumerate(tokens) if token not in self.controls}
        if not _BYTE_OF.keys() >= set().union(*words):
            raise ValueError("a token is not spelt in the byte-level alphabet")
        try:
            self._library = Library(models.BPE(words, [_pair(merge) for merge in merges]))
        except Exception as error:  # the bindings raise nothing more specific
            raise ValueError(str(error)) from None
        self._library.pre_tokenizer = _CUTS[pre]

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """The ids of plain text. A byte that the vocabulary lacks is left out, as in the reference."""
        ids: list[int] = self._library.encode(without_surrogates(text), add_special_tokens=False).ids
        return ids

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token's letters stand for; b"" for a control token."""
        spelling = self._tokens[token]
        if spelling in self.controls:
            return b""
        return bytes(_BYTE_OF[letter] for letter in spelling)


def _pair(merge: str) -> tuple[str, str]:
    left, right = merge.split(" ")  # the alphabet has no blank
    return left, right


def _alphabet() -> dict[str, int]:
    """Letter -> byte: a printable Latin-1 character stands for itself, the rest for U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _alphabet()

# How llama.cpp and the model's own tokenizer.json cut: each digit alone, then GPT-2's expression.
_CUTS = {
    "smollm": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    ),
}
