"""Llama 2 chat."""

from __future__ import annotations

from collections.abc import Sequence

from core.text.formats.base import Turn, outer_tokens, refuse_tags, words
from core.text.tokenizer import Tokenizer


class Llama2:
    """Meta's format for Llama 2 chat (facebookresearch/llama, llama/generation.py).

    Each pair stands between BOS and EOS; the tags are plain text, so nobody else may write them. The
    system prompt is part of the first message. Where Meta's code encodes an old answer anew with a
    blank after it, the sampled ids are kept and followed by EOS at once: the model's own words.
    """

    name = "llama2"
    replies_start_text = True
    _TAGS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int]) -> None:
        """`stop_ids` are the checkpoint's own. Raises UserError without BOS and EOS."""
        self._encode = tokenizer.encode
        self._bos, self._eos = outer_tokens(tokenizer, self.name)
        self.stop_ids = stop_ids | {self._eos}

    def check(self, text: str) -> None:
        """Raises UserError for text that holds one of the format's tags."""
        refuse_tags(self.name, self._TAGS, text)

    def encode(self, turns: Sequence[Turn], system: str | None) -> list[int]:
        """BOS [INST] user [/INST] reply EOS, for every turn; without reply and EOS where it is open."""
        ids: list[int] = []
        for i, turn in enumerate(turns):
            self.check(turn.user)
            text = turn.user
            if i == 0 and system:
                self.check(system)
                text = f"<<SYS>>\n{system}\n<</SYS>>\n\n{text}"
            ids += [self._bos, *self._encode(f"[INST] {text.strip()} [/INST]")]
            if turn.reply is not None:
                ids += [*words(turn.reply, self.stop_ids), self._eos]
        return ids
