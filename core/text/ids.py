"""Text that is token ids joined by blanks, for models whose weights mean nothing."""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import UserError
from core.text.sanitize import one_line

_LONGEST = 18  # digits; Python refuses to read numbers of several thousand


class IdTokenizer:
    """A Tokenizer whose words are the ids themselves: "1 15043" is [1, 15043], and back.

    No id ends a reply. BOS is 1, as in Llama's own vocabulary, so that an empty prompt has a token to go
    on from.
    """

    bos_id: int | None = 1
    eos_id: int | None = None
    strips_leading_space = True
    """Every id is written with a blank before it; the first of a text has none."""
    blank_after_control = True
    controls: Mapping[str, int] = {}

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        """The ids that `text` names. Raises UserError for a word that is none below `vocab_size`."""
        return [self._id(word) for word in text.split()]

    def token_bytes(self, token: int) -> bytes:
        """The id in decimal digits behind a blank."""
        return b" %d" % token

    def _id(self, word: str) -> int:
        if word.isascii() and word.isdigit() and len(word) <= _LONGEST and int(word) < self.vocab_size:
            return int(word)
        raise UserError(
            f"{one_line(word, 40)!r} is no token id: this model takes numbers from 0 to "
            f"{self.vocab_size - 1} joined by blanks, such as 1 15043"
        )
