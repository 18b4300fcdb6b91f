"""No chat format: base models, and single prompts."""

from __future__ import annotations

from collections.abc import Sequence

from core.errors import UserError
from core.text.formats.base import SEPARATOR, Turn, ends, words
from core.text.tokenizer import Tokenizer


class Plain:
    """No format, for base models: what was said and answered is one text, and the model goes on with it.

    BOS, the system prompt if one is given, and the turns; a line break stands after the system
    prompt and after each reply. Nothing stands between a message and its reply.
    """

    name = "none"
    replies_start_text = False

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int]) -> None:
        """`stop_ids` are the checkpoint's own."""
        self._tokenizer = tokenizer
        self.stop_ids = stop_ids | ends(tokenizer)

    def check(self, text: str) -> None:
        """Accepts every text."""

    def encode(self, turns: Sequence[Turn], system: str | None) -> list[int]:
        """The text so far. Raises UserError where it is empty and the tokenizer has no start token."""
        ids: list[int] = []
        for i, turn in enumerate(turns):
            if i == 0:
                ids += raw_prompt(self._tokenizer, f"{system}\n{turn.user}" if system else turn.user)
            else:
                ids += self._tokenizer.encode(f"\n{turn.user}", continues=True)
            if turn.reply is not None:
                ids += words(turn.reply, self.stop_ids)
        return ids


def raw_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """BOS and the text, for completion without any chat format.

    A tokenizer without BOS begins with the text; an empty one then begins with the token that
    separated documents in training, since a model needs one token to go on from. Raises UserError
    where there is no such token.
    """
    ids = tokenizer.encode(text)
    if tokenizer.bos_id is not None:
        return [tokenizer.bos_id, *ids]
    if ids:
        return ids
    separator = tokenizer.controls.get(SEPARATOR)
    start = tokenizer.eos_id if separator is None else separator
    if start is None:
        raise UserError("the prompt is empty, and this tokenizer has no start token; give some text")
    return [start]
