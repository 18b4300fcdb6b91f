"""SentencePiece: the tokenizer of Llama 1 and 2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import sentencepiece

from core.errors import UserError
from core.text.sanitize import without_surrogates

_BLANK = "\u2581"
_LARGEST_FILE = 64 * 2**20  # bytes; the largest in use are about 5 MB
# normalizer_spec { add_dummy_prefix: false }: protobuf messages are merged by putting one behind the other.
_WITHOUT_BLANK = bytes([0x1A, 0x02, 0x18, 0x00])
_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+=* \d+\r?\n")


class SentencePieceTokenizer:
    """A Tokenizer that reads a SentencePiece model file (`tokenizer.model`)."""

    def __init__(self, path: Path) -> None:
        """Reads `path`. Raises UserError for a file that is not a SentencePiece model."""
        data = _read(path)
        self._model = _open(path, data)
        self._continuing = _open(path, data + _WITHOUT_BLANK)
        self.vocab_size: int = self._model.vocab_size()
        self.bos_id = _id_or_none(self._model.bos_id())
        self.eos_id = _id_or_none(self._model.eos_id())
        self.strips_leading_space = self._drops_first_blank()
        self.blank_after_control = self.strips_leading_space
        self.controls: Mapping[str, int] = {
            self._model.IdToPiece(token): token
            for token in range(self.vocab_size)
            if self._model.IsControl(token)
        }

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """The ids of plain text. The library builds them from ordinary pieces and bytes only.

        What no piece and no byte can spell becomes the unknown token; Llama's models have all bytes.
        """
        model = self._continuing if continues else self._model
        ids: list[int] = model.EncodeAsIds(without_surrogates(text))
        return ids

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes of a piece with its leading blank; b"" for a control token."""
        piece: str = self._model.IdToPiece(token)
        if self._model.IsControl(token):
            return b""
        if self._model.IsByte(token):
            return bytes([int(piece[3:-1], 16)])  # <0xE2>
        if self._model.IsUnknown(token):
            piece = self._model.DecodeIds([token])
        return piece.replace(_BLANK, " ").encode()

    def _drops_first_blank(self) -> bool:
        """The model's add_dummy_prefix, asked of its own decoder: the bindings have no getter for it."""
        for token in range(self.vocab_size):
            piece: str = self._model.IdToPiece(token)
            if piece.startswith(_BLANK):
                text: str = self._model.DecodeIds([token])
                return len(text) < len(piece)
        return False


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        data = path.read_bytes() if 0 < size <= _LARGEST_FILE else b""
    except OSError as error:
        raise UserError(
            f"{path}: the tokenizer cannot be read ({error.strerror}); check path and permissions"
        ) from None
    if _TIKTOKEN_LINE.match(data):
        raise UserError(
            f"{path}: a tiktoken file (Llama 3), which is not read yet; give a Llama 1 or 2 model"
        )
    return data


def _open(path: Path, data: bytes) -> sentencepiece.SentencePieceProcessor:
    try:
        if not data:
            raise RuntimeError
        return sentencepiece.SentencePieceProcessor(model_proto=data)
    except RuntimeError:
        raise UserError(
            f"{path}: not a whole SentencePiece model ({len(data)} bytes); fetch tokenizer.model again"
        ) from None


def _id_or_none(token: int) -> int | None:
    return None if token < 0 else token
