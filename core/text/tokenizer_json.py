"""Hugging Face's tokenizer.json: BPE over bytes, or over pieces as SentencePiece has them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from tokenizers import Tokenizer as Library

from core.errors import UserError
from core.text.bpe import BYTE_OF
from core.text.files import MOST_TOKENS
from core.text.marks import is_mark
from core.text.sanitize import without_surrogates
from core.text.spm_model import BLANK

_Step = dict[str, Any]
_Result = TypeVar("_Result")

_BYTE_PIECE = re.compile("<0x([0-9A-F]{2})>")

# The steps whose effect on the bytes is known, and that Llamas use.
_NORMALIZERS = {"NFC", "NFD", "NFKC", "NFKD", "Prepend", "Replace"}
_PRE_TOKENIZERS = {"ByteLevel", "Digits", "Metaspace", "Punctuation", "Split"}
_DECODERS = {"ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip"}


class JSONTokenizer:
    """A Tokenizer over a parsed tokenizer.json.

    Special tokens, and added ones that are spelt like a mark, are kept from the library, so that no
    text can become one. BOS is what the file's post-processor puts before a text; EOS it does not tell.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        """Raises ValueError for a damaged file, and for a kind that is not read, which it names."""
        try:
            self._load(document)
        except (AttributeError, KeyError, RecursionError, TypeError) as error:
            raise ValueError(f"its contents are not those of a tokenizer ({error!r})") from None

    def _load(self, document: dict[str, Any]) -> None:
        model: dict[str, Any] = document["model"]
        _check(model)
        added: list[_Step] = document.get("added_tokens") or []
        unknown = model.get("unk_token")  # stands for what no piece can spell, so it is no control token
        self.controls: Mapping[str, int] = {
            token["content"]: token["id"]
            for token in added
            if (token["special"] or is_mark(token["content"])) and token["content"] != unknown
        }
        ordinary = [token for token in added if token["content"] not in self.controls]
        # The library gives ids of its own choice to added tokens that its model lacks.
        vocab = {text: i for text, i in model["vocab"].items() if text not in self.controls}
        vocab |= {token["content"]: token["id"] for token in ordinary}
        self.vocab_size = _size([*vocab.values(), *self.controls.values()])
        self._spellings = {i: text for text, i in vocab.items()}
        self._literals = {
            token["id"]: b"" if token["special"] else token["content"].encode() for token in added
        }

        normalizers = _steps(document.get("normalizer"), "normalizer", _NORMALIZERS)
        cuts = _steps(document.get("pre_tokenizer"), "pre_tokenizer", _PRE_TOKENIZERS)
        decoders = _steps(document.get("decoder"), "decoder", _DECODERS)
        self._byte_level = _is_byte_level(decoders)
        self.strips_leading_space = not self._byte_level and any(map(_strips_blank, decoders))
        self._byte_fallback = model.get("byte_fallback") is True
        schemes = {_prefix(step) for step in (*normalizers, *cuts)}
        self.blank_after_control = "always" in schemes

        plain = document | {
            "model": model | {"vocab": vocab, "dropout": None},
            "added_tokens": [token for token in ordinary if token["content"] != unknown],
            **dict.fromkeys(("decoder", "padding", "truncation")),
        }
        self._library = self._continuing = _build(plain, normalizers, cuts)
        if schemes - {"never"}:
            self._continuing = _build(plain, _without_prefix(normalizers), _without_prefix(cuts))
        self.bos_id = self._own_bos()
        self.eos_id: int | None = None

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """The ids of plain text. Raises UserError for a text that the file's expressions cannot cut."""
        library = self._continuing if continues else self._library
        try:
            ids: list[int] = _call(
                lambda: library.encode(without_surrogates(text), add_special_tokens=False).ids
            )
        except ValueError as error:
            raise UserError(f"the text cannot be encoded ({error!s:.200}); use another tokenizer") from None
        return ids

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token, by the decoder's rules; b"" for a special token."""
        literal = self._literals.get(token)
        if literal is not None:
            return literal
        spelling = self._spellings.get(token, "")
        if self._byte_level:
            if BYTE_OF.keys() >= set(spelling):
                return bytes(BYTE_OF[letter] for letter in spelling)
            return spelling.encode()
        if self._byte_fallback and (match := _BYTE_PIECE.fullmatch(spelling)):
            return bytes.fromhex(match[1])
        return spelling.replace(BLANK, " ").encode()

    def _own_bos(self) -> int | None:
        """The special token that the post-processor puts before a text."""
        encoding = _call(lambda: self._library.encode("a", add_special_tokens=True))
        if not encoding.ids or not encoding.special_tokens_mask[0]:
            return None
        bos: int = encoding.ids[0]
        if bos >= self.vocab_size:
            raise ValueError(f"its post-processor adds the token {bos}, which it lacks")
        return bos


def _check(model: dict[str, Any]) -> None:
    """Raises ValueError unless `model` is plain BPE."""
    if model.get("type") != "BPE":
        raise ValueError(f"its tokenizer is {model.get('type')!r:.40}, which is not read, only BPE")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise ValueError(f"its {key} {model[key]!r:.40} is not read")


def _size(ids: Collection[int]) -> int:
    """The number of ids, gaps included. Raises ValueError for what cannot be the ids of a vocabulary."""
    if not all(type(i) is int and 0 <= i < MOST_TOKENS for i in ids) or len(set(ids)) != len(ids):
        raise ValueError("its ids are not whole numbers, one for each token")
    return max(ids, default=-1) + 1


def _steps(step: _Step | None, part: str, known: Collection[str]) -> list[_Step]:
    """One step or a sequence of them as a list. Raises ValueError for a step that is not known."""
    if step is None:
        return []
    if step["type"] == "Sequence":
        return [inner for each in step[_SEQUENCE_KEYS[part]] for inner in _steps(each, part, known)]
    if step["type"] not in known:
        raise ValueError(f"its {part} {step['type']!r:.40} is not read")
    return [step]


_SEQUENCE_KEYS = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}


def _is_byte_level(decoders: list[_Step]) -> bool:
    """Whether pieces are spelt in the byte-level alphabet, rather than with U+2581 for a blank.

    Raises ValueError for a decoder that is neither.
    """
    kinds = {step["type"] for step in decoders}
    if kinds == {"ByteLevel"}:
        return True
    replaced = [
        (step["pattern"], step["content"]) == ({"String": BLANK}, " ")
        if step["type"] == "Replace"
        else step["replacement"] == BLANK
        for step in decoders
        if step["type"] in ("Metaspace", "Replace")
    ]
    if "ByteLevel" in kinds or not replaced or not all(replaced):
        raise ValueError(f"its decoder ({', '.join(sorted(kinds)) or 'none'}) is not read")
    return False


def _strips_blank(step: _Step) -> bool:
    """Whether a decoder's step drops the blank before a text."""
    if step["type"] == "Strip":
        return bool(step["content"] == " " and step["start"] > 0)
    return step["type"] == "Metaspace" and _prefix(step) != "never"


def _prefix(step: _Step) -> str:
    """Where a step puts a blank before a text: never, first, or always, behind control tokens as well."""
    if step["type"] == "Prepend":
        return "always"
    if step["type"] == "Metaspace" and "prepend_scheme" in step:
        return str(step["prepend_scheme"])
    if step["type"] in ("Metaspace", "ByteLevel"):
        return "always" if step.get("add_prefix_space", True) else "never"
    return "never"


def _without_prefix(steps: list[_Step]) -> list[_Step]:
    """The steps, putting no blank before a text."""
    change: dict[str, _Step] = {
        "ByteLevel": {"add_prefix_space": False},
        "Metaspace": {"add_prefix_space": False, "prepend_scheme": "never"},
    }
    return [step | change.get(step["type"], {}) for step in steps if step["type"] != "Prepend"]


def _build(document: dict[str, Any], normalizers: list[_Step], cuts: list[_Step]) -> Library:
    whole = document | {
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": cuts},
    }
    return _call(lambda: Library.from_str(json.dumps(whole)))


def _call(function: Callable[[], _Result]) -> _Result:
    """The library's answer. Raises ValueError for all its ways to fail."""
    try:
        return function()
    except BaseException as error:
        # The bindings raise nothing more specific than Exception, and a panic of Rust is none.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"the tokenizers library says: {error}") from None
