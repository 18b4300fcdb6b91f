"""Mistral and Mixtral Instruct."""

from __future__ import annotations

from collections.abc import Sequence

from core.text.formats.base import Turn, ends, outer_tokens, refuse_tags, words
from core.text.tokenizer import Tokenizer


class Mistral:
    """Mistral's format in the layouts of mistral-common, told apart by the tokenizer.

    v1, where the tags are plain text:  <s>[INST] user [/INST] reply</s>[INST] user [/INST]
    v3, where they are control tokens:  <s>[INST] user[/INST] reply</s>[INST] user[/INST]
    v3 with Tekken, which adds no blank: <s>[INST]user[/INST]reply</s>[INST]user[/INST]

    The blanks before the first [INST] and before a reply are the tokenizer's own. Where tags are text,
    nobody else may write them. The system prompt stands before the first message with an empty line
    between; newer templates move it into the last one, which would change what came before with every
    turn, and a cache of the conversation would be worth nothing.
    """

    name = "mistral"
    replies_start_text = True
    _TAGS = ("[INST]", "[/INST]")

    def __init__(self, tokenizer: Tokenizer, stop_ids: frozenset[int]) -> None:
        """`stop_ids` are the checkpoint's own. Raises UserError without BOS and EOS."""
        self._encode = tokenizer.encode
        self._bos, self._eos = outer_tokens(tokenizer, self.name)
        self._begin, self._end = (tokenizer.controls.get(tag) for tag in self._TAGS)
        self._blank = " " if tokenizer.strips_leading_space else ""
        self.stop_ids = stop_ids | ends(tokenizer)

    def check(self, text: str) -> None:
        """Raises UserError for text that holds one of the tags, where these are text themselves."""
        if self._begin is None or self._end is None:
            refuse_tags(self.name, self._TAGS, text)

    def encode(self, turns: Sequence[Turn], system: str | None) -> list[int]:
        """BOS, then [INST] user [/INST] reply EOS for every turn; without reply and EOS where it is open."""
        ids = [self._bos]
        for i, turn in enumerate(turns):
            ids += self._instruction(f"{system}\n\n{turn.user}" if i == 0 and system else turn.user)
            if turn.reply is not None:
                ids += [*words(turn.reply, self.stop_ids), self._eos]
        return ids

    def _instruction(self, text: str) -> list[int]:
        self.check(text)
        if self._begin is None or self._end is None:
            return self._encode(f"[INST] {text} [/INST]")
        return [self._begin, *self._encode(self._blank + text, continues=True), self._end]
