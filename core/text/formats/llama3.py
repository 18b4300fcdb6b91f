"""Llama 3 Instruct."""

from __future__ import annotations

from collections.abc import Sequence

from core.text.formats.base import Turn, behind_control, control, ends, words
from core.text.tokenizer import Tokenizer


class Llama3:
    """Meta's format since Llama 3 (meta-llama/llama3, llama/tokenizer.py).

    BOS, then for every message its role between two control tokens, a blank line, the content without
    outer blanks, and <|eot_id|>. The control tokens cannot be spelt by text, so every text can be
    said. The blank line is encoded together with the content, as a template's rendering is; Llama 3's
    tokenizer cuts between the two, so that Meta's code, which encodes them apart, gives the same ids.
    """

    name = "llama3"
    replies_start_text = True

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int]) -> None:
        """`stop_ids` are the checkpoint's own. Raises UserError without the format's control tokens."""
        self._tokenizer = tokenizer
        self._bos, self._start, self._close, self._end = (
            control(tokenizer, self.name, spelling)
            for spelling in ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
        )
        others = {"<|end_of_text|>", "<|eom_id|>"} & tokenizer.controls.keys()
        stops = {self._end, *(tokenizer.controls[spelling] for spelling in others)}
        self.stop_ids = stop_ids | ends(tokenizer) | stops

    def check(self, text: str) -> None:
        """Accepts every text."""

    def encode(self, turns: Sequence[Turn], system: str | None) -> list[int]:
        """BOS, the system message, if any, and the turns; an open one ends with the assistant's header."""
        ids = [self._bos]
        if system:
            ids += [*self._message("system", system), self._end]
        for turn in turns:
            ids += [*self._message("user", turn.user), self._end, *self._message("assistant", "")]
            if turn.reply is not None:
                ids += [*words(turn.reply, self.stop_ids), self._end]
        return ids

    def _message(self, role: str, content: str) -> list[int]:
        """A message up to the token that ends it."""
        header = [self._start, *behind_control(self._tokenizer, role), self._close]
        return header + behind_control(self._tokenizer, f"\n\n{content.strip()}")
