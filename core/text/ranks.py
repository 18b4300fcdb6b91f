"""Meta's Llama 3 tokenizer: a text file of byte strings and their ranks, for the tiktoken library."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator, Mapping

import tiktoken

from core.text.bpe import LLAMA3_WORDS
from core.text.sanitize import without_surrogates

# github.com/meta-llama/llama-models, models/llama3/tokenizer.py: the names since 3.1, and the sizes
# that keep the library's regular expressions from giving up on a text.
_NAMES = (
    *("begin_of_text", "end_of_text", "reserved_special_token_0", "reserved_special_token_1"),
    *("finetune_right_pad_id", "step_id", "start_header_id", "end_header_id", "eom_id", "eot_id"),
    "python_tag",
)
_N_SPECIAL = 256
_LONGEST_TEXT, _LONGEST_RUN = 400_000, 25_000  # characters

_MOST_RANKS = 2**20
_RUN = re.compile(r"\s+|\S+")


class RanksTokenizer:
    """A Tokenizer over Llama 3's `tokenizer.model`: the ranks are ids, and 256 special ones follow."""

    strips_leading_space = False
    blank_after_control = False

    def __init__(self, data: bytes) -> None:
        """Raises ValueError for a file that is not whole."""
        self._pieces = _parse(data)
        names = [*_NAMES, *(f"reserved_special_token_{i}" for i in range(2, _N_SPECIAL - len(_NAMES) + 2))]
        self.controls: Mapping[str, int] = {
            f"<|{name}|>": len(self._pieces) + i for i, name in enumerate(names)
        }
        self.vocab_size = len(self._pieces) + _N_SPECIAL
        self.bos_id: int | None = self.controls["<|begin_of_text|>"]
        self.eos_id: int | None = self.controls["<|end_of_text|>"]
        self._library = tiktoken.Encoding(
            "llama3",
            pat_str=LLAMA3_WORDS,
            mergeable_ranks={piece: rank for rank, piece in enumerate(self._pieces)},
            special_tokens=dict(self.controls),
        )

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """The ids of plain text; the same wherever it stands."""
        ids: list[int] = []
        for portion in _portions(without_surrogates(text)):
            ids += self._library.encode_ordinary(portion)
        return ids

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a piece; b"" for a control token."""
        return self._pieces[token] if 0 <= token < len(self._pieces) else b""


def _parse(data: bytes) -> list[bytes]:
    """The byte strings in the order of their ranks, which are checked to be 0, 1, 2 and so on."""
    lines = [line for line in data.splitlines() if line]
    if len(lines) > _MOST_RANKS:
        raise ValueError(f"{len(lines):,} lines are no ranks file of a Llama")
    pieces: dict[int, bytes] = {}
    for number, line in enumerate(lines, 1):
        try:
            piece, rank = line.split()
            pieces[int(rank)] = b64decode(piece, validate=True)
        except ValueError:
            raise ValueError(f"line {number} of its ranks is not base64 and a number") from None
    ordered = [pieces[rank] for rank in range(len(lines)) if rank in pieces]
    if len(ordered) != len(lines):
        raise ValueError("its ranks have gaps")
    if len(set(ordered)) != len(ordered):
        raise ValueError("a piece stands twice in its ranks")
    if not {bytes([byte]) for byte in range(256)}.issubset(ordered):
        raise ValueError("its ranks lack a byte")
    return ordered


def _portions(text: str) -> Iterator[str]:
    """`text` cut where Meta's code cuts it: every 400,000 characters, and in runs of (no) whitespace."""
    for start in range(0, len(text), _LONGEST_TEXT):
        window = text[start : start + _LONGEST_TEXT]
        done = 0
        for run in _RUN.finditer(window):
            for cut in range(run.start() + _LONGEST_RUN, run.end(), _LONGEST_RUN):
                yield window[done:cut]
                done = cut
        yield window[done:]
