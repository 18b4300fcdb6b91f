"""SentencePiece's model file, a protobuf message: its pieces taken out, and put together again.

Format: github.com/google/sentencepiece, src/sentencepiece_model.proto; protobuf.dev, "Encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

BLANK = "\u2581"
"""What stands for a blank in a piece."""


class Kind(IntEnum):
    """What a piece is for; GGUF numbers its token types alike."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of the vocabulary; of two possible merges the one with the higher score comes first."""

    text: str
    score: float
    kind: Kind


# Field numbers.
_PIECE, _TRAINER, _NORMALIZER = 1, 2, 3
_TEXT, _SCORE, _KIND = 1, 2, 3
_MODEL_TYPE, _VOCAB_SIZE, _BYTE_FALLBACK = 3, 4, 35
_NAME, _ADD_DUMMY_PREFIX, _REMOVE_EXTRA_WHITESPACES = 1, 3, 4

_BPE = 2  # model_type
_HIGHEST_SCORE = 3e38  # that of a float of four bytes
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5  # wire types


def split(data: bytes) -> tuple[list[Piece], bytes]:
    """The pieces of a model, and the rest of the message. Raises ValueError for a damaged one."""
    pieces: list[Piece] = []
    rest = bytearray()
    for number, field, value in _fields(data):
        if number == _PIECE and isinstance(value, bytes):
            pieces.append(_piece(value))
        else:
            rest += field
    if not pieces:
        raise ValueError("no pieces")
    return pieces, bytes(rest)


def join(pieces: Sequence[Piece], rest: bytes) -> bytes:
    """The message that `split` took apart. Raises ValueError for pieces that no model can have."""
    if len({piece.text for piece in pieces}) != len(pieces):
        raise ValueError("a piece stands twice in the vocabulary")
    if not all(piece.text and abs(piece.score) < _HIGHEST_SCORE for piece in pieces):
        raise ValueError("a piece is empty, or its score is not a finite number")
    return b"".join(map(_write_piece, pieces)) + rest


def bpe_settings(n_pieces: int, *, byte_fallback: bool, add_dummy_prefix: bool) -> bytes:
    """The rest of a message for BPE on text as it is, blanks and all, as Llama's models have it."""
    trainer = (
        _whole(_MODEL_TYPE, _BPE) + _whole(_VOCAB_SIZE, n_pieces) + _whole(_BYTE_FALLBACK, byte_fallback)
    )
    normalizer = (
        _bytes(_NAME, b"identity")
        + _whole(_ADD_DUMMY_PREFIX, add_dummy_prefix)
        + _whole(_REMOVE_EXTRA_WHITESPACES, False)
    )
    return _bytes(_TRAINER, trainer) + _bytes(_NORMALIZER, normalizer)


def without_dummy_prefix(model: bytes) -> bytes:
    """`model`, putting no blank before a text: messages are merged by writing one behind the other."""
    return model + _bytes(_NORMALIZER, _whole(_ADD_DUMMY_PREFIX, False))


def _piece(data: bytes) -> Piece:
    text, score, kind = b"", 0.0, int(Kind.NORMAL)
    for number, _, value in _fields(data):
        if number == _TEXT and isinstance(value, bytes):
            text = value
        elif number == _SCORE and isinstance(value, float):
            score = value
        elif number == _KIND and isinstance(value, int):
            kind = value
    return Piece(text.decode(), score, Kind(kind))


def _fields(data: bytes) -> Iterator[tuple[int, bytes, int | float | bytes]]:
    """(number, the field as it stands, its value). Raises ValueError where a field is cut off."""
    at = 0
    while at < len(data):
        start = at
        key, at = _read_varint(data, at)
        number, wire = key >> 3, key & 7
        value: int | float | bytes
        if wire == _VARINT:
            value, at = _read_varint(data, at)
        else:
            if wire == _LENGTH:
                size, at = _read_varint(data, at)
            elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
                size = 8 if wire == _EIGHT_BYTES else 4
            else:
                raise ValueError(f"wire type {wire}")
            value = data[at : at + size]
            at += size
            if at > len(data):
                raise ValueError("a field is cut off")
            if wire == _FOUR_BYTES:
                (value,) = struct.unpack("<f", value)
        yield number, data[start:at], value


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of at most 64 bits in groups of seven, the lowest first, and where it ends."""
    if at < len(data) and data[at] < 0x80:  # nearly always
        return data[at], at + 1
    value = 0
    for shift in range(0, 70, 7):
        if at == len(data):
            break
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
    raise ValueError("a number is cut off")


def _write_piece(piece: Piece) -> bytes:
    score = _varint(_SCORE << 3 | _FOUR_BYTES) + struct.pack("<f", piece.score)
    return _bytes(_PIECE, _bytes(_TEXT, piece.text.encode()) + score + _whole(_KIND, piece.kind))


def _whole(number: int, value: int) -> bytes:
    return _varint(number << 3 | _VARINT) + _varint(value)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    if value <= 0x7F:  # nearly always
        return bytes((value,))
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
