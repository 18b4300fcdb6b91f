"""SentencePiece: the tokenizer of Llama 1 and 2, Mistral and TinyLlama."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import sentencepiece

from core.text.marks import is_mark
from core.text.sanitize import without_surrogates
from core.text.spm_model import BLANK, Kind, join, split, without_dummy_prefix


class SentencePieceTokenizer:
    """A Tokenizer over a SentencePiece model (`tokenizer.model`).

    Pieces that were added under the name of a mark are control tokens to the library, so that no text
    becomes one, but keep their text.
    """

    def __init__(self, data: bytes) -> None:
        """`data` is a whole model file. Raises ValueError for what is not one."""
        try:
            self._pieces, rest = split(data)
            self.controls: Mapping[str, int] = {
                piece.text: token
                for token, piece in enumerate(self._pieces)
                if piece.kind is Kind.CONTROL or (piece.kind is Kind.USER_DEFINED and is_mark(piece.text))
            }
            model = join(
                [
                    replace(piece, kind=Kind.CONTROL) if piece.text in self.controls else piece
                    for piece in self._pieces
                ],
                rest,
            )
            self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
            self._continuing = sentencepiece.SentencePieceProcessor(model_proto=without_dummy_prefix(model))
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"not a whole SentencePiece model ({error})") from None
        self.vocab_size = len(self._pieces)
        self.bos_id = _id_or_none(self._model.bos_id())
        self.eos_id = _id_or_none(self._model.eos_id())
        self.strips_leading_space = self._drops_first_blank()
        self.blank_after_control = self.strips_leading_space

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """The ids of plain text. The library builds them from ordinary pieces and bytes only.

        What no piece and no byte can spell becomes the unknown token; Llama's models have all bytes.
        """
        model = self._continuing if continues else self._model
        ids: list[int] = model.EncodeAsIds(without_surrogates(text))
        return ids

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes of a piece with its leading blank; b"" for a control token."""
        if not 0 <= token < len(self._pieces):
            return b""
        piece = self._pieces[token]
        if piece.kind is Kind.CONTROL:
            return b""
        if piece.kind is Kind.BYTE:
            return bytes([int(piece.text[3:-1], 16)])  # <0xE2>
        text: str = self._model.DecodeIds([token]) if piece.kind is Kind.UNKNOWN else piece.text
        return text.replace(BLANK, " ").encode()

    def _drops_first_blank(self) -> bool:
        """The model's add_dummy_prefix, asked of its own decoder, which has the last word on it."""
        for token, piece in enumerate(self._pieces):
            if piece.kind is Kind.NORMAL and piece.text.startswith(BLANK):
                text: str = self._model.DecodeIds([token])
                return len(text) < len(piece.text)
        return False


def _id_or_none(token: int) -> int | None:
    return None if token < 0 else token
