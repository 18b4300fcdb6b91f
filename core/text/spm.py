"""SentencePiece: the tokenizer of Llama 1 and 2."""

from __future__ import annotations

import re
from pathlib import Path

import sentencepiece

from core.errors import UserError
from core.text.sanitize import without_surrogates

_BLANK = "\u2581"
_LARGEST_FILE = 64 * 2**20  # bytes; the largest in use are about 5 MB
_TIKTOKEN_LINE = re.compile(rb"[A-Za-z0-9+/]+=* \d+\r?\n")


class SentencePieceTokenizer:
    """A Tokenizer that reads a SentencePiece model file (`tokenizer.model`)."""

    def __init__(self, path: Path) -> None:
        """Reads `path`. Raises UserError for a file that is not a SentencePiece model."""
        self._model = _load(path)
        self.vocab_size: int = self._model.vocab_size()
        self.bos_id = _id_or_none(self._model.bos_id())
        self.eos_id = _id_or_none(self._model.eos_id())
        self.strips_leading_space = self._drops_first_blank()

    def encode(self, text: str) -> list[int]:
        """The ids of plain text. The library builds them from ordinary pieces and bytes only.

        What no piece and no byte can spell becomes the unknown token; Llama's models have all bytes.
        """
        ids: list[int] = self._model.EncodeAsIds(without_surrogates(text))
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

    def control_id(self, spelling: str) -> int | None:
        """The id of the control token spelled so, or None."""
        token: int = self._model.PieceToId(spelling)
        return token if self._model.IsControl(token) else None

    def _drops_first_blank(self) -> bool:
        """The model's add_dummy_prefix, asked of its own decoder: the bindings have no getter for it."""
        for token in range(self.vocab_size):
            piece: str = self._model.IdToPiece(token)
            if piece.startswith(_BLANK):
                text: str = self._model.DecodeIds([token])
                return len(text) < len(piece)
        return False


def _load(path: Path) -> sentencepiece.SentencePieceProcessor:
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
    try:
        if not data:
            raise RuntimeError
        return sentencepiece.SentencePieceProcessor(model_proto=data)
    except RuntimeError:
        raise UserError(
            f"{path}: not a whole SentencePiece model ({size} bytes); fetch tokenizer.model again"
        ) from None


def _id_or_none(token: int) -> int | None:
    return None if token < 0 else token
