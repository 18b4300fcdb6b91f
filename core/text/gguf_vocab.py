"""Vocabularies as GGUF files hold them: lists of tokens, their types, and scores or merges.

Keys and types: github.com/ggml-org/ggml, docs/gguf.md. Defaults: llama.cpp, src/llama-vocab.cpp.
"""

from __future__ import annotations

from typing import Any

from core.text.spm_model import BLANK, Kind, Piece, bpe_settings, join
from core.text.tokenizer import Tokenizer

_UNKNOWN = "<unk>"
_WITHOUT_BOS = ("default", "gpt-2", "smollm")  # unless the file says otherwise


def gguf_tokenizer(
    model: str,
    tokens: list[str],
    *,
    scores: Any,
    types: Any,
    merges: list[str] | None,
    pre: str,
    bos_id: int | None,
    eos_id: int | None,
    adds_bos: bool | None,
    adds_space_prefix: bool,
) -> Tokenizer:
    """The tokenizer of `tokenizer.ggml.model`: "gpt2" from merges, "llama" from scores.

    `scores` and `types` are values as they stand in the file; `adds_bos` is None where it does not say.
    Raises ValueError for a kind that is not read and for lists at odds with each other.
    """
    kinds = _kinds(types, len(tokens))
    tokenizer: Tokenizer
    if model == "gpt2":
        from core.text.bpe import ByteLevelBPE

        if merges is None:
            raise ValueError("it has no merges")
        if adds_bos is None:
            adds_bos = pre not in _WITHOUT_BOS
        tokenizer = ByteLevelBPE(
            tokens,
            merges,
            control=_ids(kinds, Kind.CONTROL, Kind.UNKNOWN),
            added=_ids(kinds, Kind.USER_DEFINED),
            unused=_ids(kinds, Kind.UNUSED),
            pre=pre,
            bos_id=None,
            eos_id=None,
        )
    elif model == "llama":
        from core.text.spm import SentencePieceTokenizer

        tokenizer = SentencePieceTokenizer(
            _spm_model(tokens, _scores(scores, len(tokens)), kinds, adds_space_prefix)
        )
    else:
        raise ValueError(f"{model!r:.60} is neither 'gpt2' nor 'llama'")
    tokenizer.bos_id = None if adds_bos is False else bos_id
    tokenizer.eos_id = eos_id
    return tokenizer


def _spm_model(tokens: list[str], scores: list[float], kinds: list[Kind], adds_space_prefix: bool) -> bytes:
    """The SentencePiece model that the lists were taken out of."""
    if Kind.UNKNOWN not in kinds:  # converters call it a control token where it was added as one
        if _UNKNOWN not in tokens:
            raise ValueError("no token for what is unknown")
        kinds = [
            Kind.UNKNOWN if token == _UNKNOWN else kind for token, kind in zip(tokens, kinds, strict=True)
        ]
    # llama.cpp lets a token be empty, and converters write the blanks of added tokens as they are.
    texts = [token or f"[EMPTY_{i}]" for i, token in enumerate(tokens)]
    texts = [
        text.replace(" ", BLANK) if kind is Kind.USER_DEFINED else text
        for text, kind in zip(texts, kinds, strict=True)
    ]
    settings = bpe_settings(len(tokens), byte_fallback=Kind.BYTE in kinds, add_dummy_prefix=adds_space_prefix)
    return join([Piece(*entry) for entry in zip(texts, scores, kinds, strict=True)], settings)


def _kinds(types: Any, count: int) -> list[Kind]:
    if not isinstance(types, list) or len(types) != count:
        raise ValueError(f"no types of {count} tokens")
    return [Kind(number) for number in types]


def _scores(scores: Any, count: int) -> list[float]:
    if not isinstance(scores, list) or len(scores) != count:
        raise ValueError(f"no scores of {count} tokens")
    if not all(isinstance(score, float) for score in scores):
        raise ValueError("a score is not a number")
    return scores


def _ids(kinds: list[Kind], *wanted: Kind) -> list[int]:
    return [i for i, kind in enumerate(kinds) if kind in wanted]
