"""Byte-level BPE: the tokenizer of GPT-2 and its many heirs, from a vocabulary and its merges."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from tokenizers import AddedToken, Regex, models
from tokenizers import Tokenizer as Library
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Split
from tokenizers.pre_tokenizers import Sequence as Steps

from core.text.marks import is_mark
from core.text.sanitize import without_surrogates


class ByteLevelBPE:
    """A Tokenizer over pieces spelt in GPT-2's alphabet of 256 letters, one for each byte.

    `control` are the ids of control tokens and `unused` those of no token at all: they are kept out of
    the vocabulary that text is cut into, so nothing a text spells can become one. `added` are the ids
    of pieces spelt as they read, which are found in a text before it is cut; of those, marks are never
    found. `pre` names, as GGUF does, how a text is cut into words before the merges. `bos_id` is None
    for a model that was trained without BOS.
    """

    strips_leading_space = False
    blank_after_control = False

    def __init__(
        self,
        tokens: Sequence[str],
        merges: Sequence[str],
        *,
        control: Collection[int],
        added: Collection[int] = (),
        unused: Collection[int] = (),
        pre: str,
        bos_id: int | None,
        eos_id: int | None,
    ) -> None:
        """Builds the tables. Raises ValueError for an unknown `pre` and for tables at odds."""
        if pre not in _CUTS:
            raise ValueError(f"its pre-tokenizer {pre!r:.60} is none of {', '.join(_CUTS)}")
        if len(set(tokens)) != len(tokens):
            raise ValueError("a token stands twice in the vocabulary")
        self.vocab_size = len(tokens)
        self.bos_id, self.eos_id = bos_id, eos_id
        self._tokens = tokens
        self._silent = frozenset([*control, *unused])
        self._added = frozenset(added)
        self.controls: Mapping[str, int] = {
            tokens[i]: i for i in [*control, *(i for i in added if is_mark(tokens[i]))]
        }
        hidden = self._silent.union(self.controls.values())
        words = {token: i for i, token in enumerate(tokens) if i not in hidden}
        found = [token for token, i in words.items() if i in self._added]
        if not BYTE_OF.keys() >= set().union(*(words.keys() - found)):
            raise ValueError("a token is not spelt in the byte-level alphabet")
        try:
            self._library = Library(
                models.BPE(words, [_pair(merge) for merge in merges], ignore_merges=pre in _WHOLE_WORDS)
            )
        except Exception as error:  # the bindings raise nothing more specific
            raise ValueError(str(error)) from None
        self._library.pre_tokenizer = _CUTS[pre]
        self._library.add_tokens([AddedToken(token, normalized=False) for token in found])

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """The ids of plain text. A byte that the vocabulary lacks is left out, as in the reference."""
        ids: list[int] = self._library.encode(without_surrogates(text), add_special_tokens=False).ids
        return ids

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token's letters stand for; b"" for a control token."""
        if not 0 <= token < self.vocab_size or token in self._silent:
            return b""
        spelling = self._tokens[token]
        return spelling.encode() if token in self._added else bytes(BYTE_OF[letter] for letter in spelling)


def _pair(merge: str) -> tuple[str, str]:
    left, right = merge.split(" ")  # the alphabet has no blank
    return left, right


def _alphabet() -> dict[str, int]:
    """Letter -> byte: a printable Latin-1 character stands for itself, the rest for U+0100 onwards."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTE_OF = _alphabet()

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 cuts a text into words, as its tokenizer.json and Meta's code have it."""

# Mistral NeMo's tokenizer.json: upper before lower case, each digit alone.
_TEKKEN_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _words(*cuts: str | PreTokenizer) -> PreTokenizer:
    """Each expression cuts what the one before it left; its matches and what lies between are words."""
    steps = [Split(Regex(cut), "isolated") if isinstance(cut, str) else cut for cut in cuts]
    return Steps([*steps, ByteLevel(add_prefix_space=False, use_regex=False)])


# By GGUF's names. What a name means: llama.cpp, src/llama-vocab.cpp, and the tokenizer.json of the
# model that it was made for; "default" is what llama.cpp did before there were names.
_CUTS: dict[str, PreTokenizer] = {
    "default": _words(r"[\p{P}$+<=>^~|]+", _GPT2_WORDS, r"\p{N}+", r"[0-9][0-9][0-9]"),
    "gpt-2": _words(_GPT2_WORDS),
    "llama-bpe": _words(LLAMA3_WORDS),
    "llama3": _words(LLAMA3_WORDS),
    "llama-v3": _words(LLAMA3_WORDS),
    "smollm": _words(Digits(individual_digits=True), _GPT2_WORDS),
    "tekken": _words(_TEKKEN_WORDS),
}
_WHOLE_WORDS = {"llama-bpe", "llama3", "llama-v3", "tekken"}  # a word that is a token is not put together
