"""ChatML: Qwen, SmolLM2, Hermes and many others."""

from __future__ import annotations

import re
from collections.abc import Sequence

from core.text.formats.base import Turn, behind_control, control, ends, words
from core.text.tokenizer import Tokenizer

_OPENING = re.compile(r"<\|im_start\|>system\n(.*)<\|im_end\|>\n<\|im_start\|>user\n", re.DOTALL)


class ChatML:
    """<|im_start|>role, a line break, the content, <|im_end|> and a line break, for every message.

    The marks are control tokens, which text cannot spell, so every text can be said. The ids are
    those of the rendered template: control tokens split a text before anything else does.
    """

    name = "chatml"
    replies_start_text = True

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int], default_system: str | None) -> None:
        """`stop_ids` are the checkpoint's own, `default_system` what its template says for want of others.

        Raises UserError without the format's control tokens.
        """
        self._tokenizer = tokenizer
        self._start = control(tokenizer, self.name, "<|im_start|>")
        self._end = control(tokenizer, self.name, "<|im_end|>")
        self._default_system = default_system
        self.stop_ids = stop_ids | ends(tokenizer) | {self._end}

    def check(self, text: str) -> None:
        """Accepts every text."""

    def encode(self, turns: Sequence[Turn], system: str | None) -> list[int]:
        """The system message, if any, and the turns; the last open one ends with the assistant's header."""
        if system is None:
            system = self._default_system
        between = [self._end, *behind_control(self._tokenizer, "\n")]
        ids: list[int] = []
        if system:
            ids += [*self._message("system", system), *between]
        for turn in turns:
            ids += [*self._message("user", turn.user), *between, *self._message("assistant", "")]
            if turn.reply is not None:
                ids += [*words(turn.reply, self.stop_ids), *between]
        return ids

    def _message(self, role: str, content: str) -> list[int]:
        """A message up to the token that ends it."""
        return [self._start, *behind_control(self._tokenizer, f"{role}\n{content}")]


def default_system(opening: str) -> str | None:
    """The system prompt in what a ChatML template writes before the first message; None if there is none."""
    match = _OPENING.fullmatch(opening)
    return match and match[1]
