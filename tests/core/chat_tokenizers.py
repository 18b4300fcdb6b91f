"""Tokenizers for the tests of chat formats: one that can be read, and the library's own as oracles."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from core.text.tokenizer import Tokenizer

BLANK = "\u2581"
LLAMA3_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


class Letters:
    """A tokenizer of bytes behind a handful of control tokens, so that the tests can be read."""

    CONTROL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")
    strips_leading_space = False
    blank_after_control = False

    def __init__(
        self, bos_id: int | None = 0, eos_id: int | None = 1, control: Sequence[str] = CONTROL
    ) -> None:
        self.bos_id, self.eos_id = bos_id, eos_id
        self.controls = {spelling: i for i, spelling in enumerate(control)}
        self._spellings = control
        self.vocab_size = 256 + len(control)

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        return [byte + len(self._spellings) for byte in text.encode(errors="replace")]

    def token_bytes(self, token: int) -> bytes:
        return bytes([token - len(self._spellings)]) if token >= len(self._spellings) else b""

    def spell(self, ids: Sequence[int]) -> str:
        """The ids as text, control tokens included."""
        parts = (self.token_bytes(i) or self._spellings[i].encode() for i in ids)
        return b"".join(parts).decode()


@dataclass(frozen=True)
class LibraryTokenizer:
    """Our protocol over `tokenizers`: `plain` knows no control token, `continuing` adds no blank either."""

    plain: tokenizers.Tokenizer
    continuing: tokenizers.Tokenizer
    controls: Mapping[str, int]
    bos_id: int
    eos_id: int
    strips_leading_space: bool
    blank_after_control: bool
    vocab_size: int

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        library = self.continuing if continues else self.plain
        ids: list[int] = library.encode(text, add_special_tokens=False).ids
        return ids

    def token_bytes(self, token: int) -> bytes:
        if token in self.controls.values():
            return b""
        piece: str = self.plain.id_to_token(token)
        if self.strips_leading_space:
            if byte := re.fullmatch("<0x(..)>", piece):
                return bytes.fromhex(byte[1])
            return piece.replace(BLANK, " ").encode()
        return bytes(BYTES[letter] for letter in piece)


BYTES = {letter: byte for byte, letter in bytes_to_unicode().items()}


@dataclass(frozen=True)
class Pair:
    """One vocabulary twice: as the library cuts templates with it, and as our protocol."""

    library: tokenizers.Tokenizer
    ours: Tokenizer

    def with_template(self, template: str, bos: str, eos: str) -> PreTrainedTokenizerFast:
        """The oracle: its apply_chat_template."""
        oracle = PreTrainedTokenizerFast(
            tokenizer_object=copy.deepcopy(self.library), bos_token=bos, eos_token=eos
        )
        oracle.chat_template = template
        return oracle


@cache
def byte_level(text: Path, control: tuple[str, ...], *, cut: str = LLAMA3_CUT) -> Pair:
    """A byte-level BPE of 1,000 pieces trained on `text`; the first two of `control` are BOS and EOS."""
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(cut), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    library.train_from_iterator([text.read_text(encoding="utf-8")[:200_000]], trainer)
    return _pair(library, library, control, spm=False, legacy=False)


@cache
def sentencepiece_like(model: Path, control: tuple[str, ...], *, legacy: bool) -> Pair:
    """A SentencePiece model as transformers converts it, `control` added where it lacks them.

    `legacy` puts a blank before every text between control tokens, else only before the first.
    """
    source = sentencepiece.SentencePieceProcessor(model_file=str(model))
    vocab = {source.IdToPiece(i): i for i in range(source.vocab_size())}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(vocab, key=lambda piece: -source.GetScore(vocab[piece]))
        for cut in range(1, len(piece))
        if piece[:cut] in vocab and piece[cut:] in vocab
    ]
    libraries = []
    for scheme in ("first", "never"):
        library = tokenizers.Tokenizer(
            models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
        )
        if legacy:
            steps = [normalizers.Prepend(BLANK)] if scheme == "first" else []
            library.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", BLANK)])
        else:
            library.pre_tokenizer = pre_tokenizers.Metaspace(BLANK, prepend_scheme=scheme, split=False)
        libraries.append(library)
    return _pair(*libraries, control, spm=True, legacy=legacy)


def _pair(
    first: tokenizers.Tokenizer,
    continuing: tokenizers.Tokenizer,
    control: tuple[str, ...],
    *,
    spm: bool,
    legacy: bool,
) -> Pair:
    library = copy.deepcopy(first)
    library.add_special_tokens(
        [tokenizers.AddedToken(spelling, special=True, normalized=False) for spelling in control]
    )
    controls = {spelling: library.token_to_id(spelling) for spelling in control}
    ours = LibraryTokenizer(
        first,
        continuing,
        controls,
        controls[control[0]],
        controls[control[1]],
        strips_leading_space=spm,
        blank_after_control=legacy,
        vocab_size=library.get_vocab_size(),
    )
    return Pair(library, ours)
