"""The tokenizer files that Llamas come with, told apart by what is in them, whatever their name."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.text.sanitize import one_line
from core.text.tokenizer import Tokenizer

MOST_TOKENS = 2**24  # an id from there on is a damaged one
_LARGEST_FILE = 64 * 2**20  # bytes; the largest in use are about 20 MB
_RANKS = re.compile(rb"[A-Za-z0-9+/]+=* \d+\r?\n")
_OBJECT = re.compile(rb"\s*\{")
_PIECE = b"\n"  # the tag of a SentencePiece model's first field


def open_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a file: a SentencePiece model, Llama 3's ranks, or a tokenizer.json.

    Hugging Face's files beside it have a say in its BOS and EOS. Raises UserError for anything else.
    """
    from core.text.huggingface import settle

    data = read_file(path)
    try:
        tokenizer = _open(data)
    except ValueError as error:
        raise UserError(
            f"{path}: {one_line(error)}; give the tokenizer that came with the model, whole"
        ) from None
    settle(tokenizer, path.parent)
    return tokenizer


def _open(data: bytes) -> Tokenizer:
    # Each brings a library that the others do without.
    if _RANKS.match(data):
        from core.text.ranks import RanksTokenizer

        return RanksTokenizer(data)
    if _OBJECT.match(data):
        from core.text.tokenizer_json import JSONTokenizer

        return JSONTokenizer(parse_object(data))
    if data.startswith(_PIECE):
        from core.text.spm import SentencePieceTokenizer

        return SentencePieceTokenizer(data)
    raise ValueError("neither a SentencePiece model, nor Llama 3's ranks, nor a tokenizer.json")


def read_file(path: Path) -> bytes:
    """The whole of a file. Raises UserError where it cannot be read, or is too large for what we read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_FILE:
            raise UserError(
                f"{path}: not a file of at most {_LARGEST_FILE >> 20} MiB, so no tokenizer; "
                "give a tokenizer.model or tokenizer.json"
            )
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: the tokenizer cannot be read ({error.strerror}); check path and permissions"
        ) from None


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises ValueError for anything else."""
    try:
        value = json.loads(data)
    except (RecursionError, ValueError) as error:
        raise ValueError(f"not whole JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
