"""Token ids back to text while they arrive, never half a character."""

from __future__ import annotations

import codecs

from core.text.tokenizer import Tokenizer


class StreamDecoder:
    """Turns tokens into text one at a time; bytes of an unfinished character wait for the rest.

    `at_start` says that the first token begins a text of its own: there SentencePiece's first piece
    carries a blank that nobody wrote, and it is dropped (of whatever token comes first). Bytes that
    can never become UTF-8 turn into U+FFFD, one for each maximal part as Unicode 3.9 recommends.
    Control tokens have no text.
    """

    def __init__(self, tokenizer: Tokenizer, *, at_start: bool) -> None:
        self._tokenizer = tokenizer
        self._drop_blank = at_start and tokenizer.strips_leading_space
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        """The text that is certain once `token` is known; "" while a character is unfinished."""
        data = self._tokenizer.token_bytes(token)
        if self._drop_blank and data:
            data = data.removeprefix(b" ")
            self._drop_blank = False
        return self._utf8.decode(data)

    def flush(self) -> str:
        """What is still held back, as U+FFFD: the text ends here."""
        return self._utf8.decode(b"", final=True)
