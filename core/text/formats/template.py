"""The checkpoint's own Jinja template."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain, islice, zip_longest

from core.errors import UserError
from core.text.formats.base import Turn, ends, words
from core.text.template import Renderer, refusal
from core.text.tokenizer import Tokenizer

_PRIVATE_USE = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


class ChatTemplate:
    """Turns as the template writes them, with the token ids that transformers' apply_chat_template gives.

    The rendering is cut at the spellings of control tokens; what lies between is encoded as plain text.
    For that, texts go in with private-use characters, one for one: where a control spelling begins, so
    that none in the rendering is the user's, whatever the template cuts or joins; and a single one for
    a reply, which is put back as the ids it was sampled as. Marks that are plain text to the tokenizer
    (zephyr's <|user|>) can be written by anybody, as with every program that uses the template.

    Blanks that a template writes between what it prompts with and an old reply (Mistral's) are left
    out: the model did not see them. So a prompt begins with the one before and its reply, unless the
    template itself writes old turns in another way than new ones; a cache then keeps what is common.
    """

    name = "template"
    replies_start_text = True

    def __init__(
        self, tokenizer: Tokenizer, source: str, stop_ids: frozenset[int], *, bos: str = "", eos: str = ""
    ) -> None:
        """`stop_ids` are the checkpoint's own, and so are `bos` and `eos`, which the template calls
        bos_token and eos_token; "" stands for the spellings of the tokenizer's.

        Raises UserError where the template does not render a conversation.
        """
        self._tokenizer = tokenizer
        self._source = source
        self._renderer = Renderer(source)
        spellings: dict[int | None, str] = {token: s for s, token in tokenizer.controls.items()}
        self._tokens = {
            "bos_token": bos or spellings.get(tokenizer.bos_id, ""),
            "eos_token": eos or spellings.get(tokenizer.eos_id, ""),
        }
        self._controls = {s: token for s, token in tokenizer.controls.items() if not s.isspace()}
        self._begins = list(dict.fromkeys(spelling.lstrip()[0] for spelling in self._controls))
        self._learn(stop_ids)

    def close(self) -> None:
        """Ends the process that renders."""
        self._renderer.close()

    def check(self, text: str) -> None:
        """Accepts every text."""

    def encode(self, turns: Sequence[Turn], system: str | None) -> list[int]:
        """The template's rendering of the turns. `system` "" is the same as None: it has the last word there.

        Raises UserError for a system prompt where it takes none, and for a conversation it cannot render.
        """
        if system and not self.takes_system:
            raise UserError("this model's chat template takes no system prompt; leave --system out")
        texts = [system or "", *(turn.user for turn in turns)]
        characters = _unused(chain(texts, [self._source]), len(self._begins) + len(turns))
        guards = dict(zip(self._begins, characters, strict=False))
        replies = dict(zip(characters[len(guards) :], (turn.reply for turn in turns), strict=True))
        guarded = str.maketrans(guards)
        messages = [_message("system", system.translate(guarded))] if system else []
        for turn, (mark, reply) in zip(turns, replies.items(), strict=True):
            messages.append(_message("user", turn.user.translate(guarded)))
            if reply is not None:
                messages.append(_message("assistant", mark))
        answered = {mark: words(reply, self.stop_ids) for mark, reply in replies.items() if reply is not None}
        plain = str.maketrans({guard: character for character, guard in guards.items()})
        return self._ids(self._render(messages), answered, plain)

    def _learn(self, stop_ids: frozenset[int]) -> None:
        """How the template opens a conversation, writes system prompts, and surrounds replies."""
        user, reply, more = _unused([self._source], 3)
        first = _message("user", user)
        prompt = self._render([first])
        whole = self._render([first, _message("assistant", reply), _message("user", more)])
        start, _, rest = whole.partition(reply)
        if user not in prompt or more not in rest or reply in rest:
            raise refusal("leaves out a message or a reply, or repeats it")
        self.opening = prompt.partition(user)[0]
        """What it writes before the first message where there is no system prompt."""
        try:
            self.takes_system = more in self._render([_message("system", more), first])
        except UserError:
            self.takes_system = False
        blanks = start.removeprefix(prompt)
        self._blanks_before_reply = blanks if start.startswith(prompt) and blanks.isspace() else ""
        end = re.match(_any_of(self._controls), rest.lstrip())
        self.stop_ids = stop_ids | ends(self._tokenizer) | ({self._controls[end[0]]} if end else set())

    def _render(self, messages: Sequence[Mapping[str, str]]) -> str:
        return self._renderer.render(
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=messages[-1]["role"] != "assistant",
            **self._tokens,
        )

    def _ids(self, text: str, replies: Mapping[str, Sequence[int]], plain: Mapping[int, str]) -> list[int]:
        """The ids of a rendering. `replies` are put where their characters stand; `plain` turns back
        the characters that stand for what the user wrote.

        As tokenizers cut: a text behind a control token is one in the middle of another, unless the
        tokenizer puts its blank there too.
        """
        ids: list[int] = []
        found: list[str] = []
        continues = False
        parts = re.split(f"({_any_of([*self._controls, *replies])})", text)
        for piece, mark in zip_longest(parts[::2], parts[1::2], fillvalue=""):
            if mark in replies:
                piece = piece.removesuffix(self._blanks_before_reply)
            if piece:
                ids += self._tokenizer.encode(piece.translate(plain), continues=continues)
                continues = True
            if mark in replies:
                found.append(mark)
                ids += replies[mark]
                continues = continues or bool(replies[mark])
            elif mark:
                ids.append(self._controls[mark])
                continues = not self._tokenizer.blank_after_control
        if found != list(replies):
            raise refusal("does not write every reply of this conversation once and in its place")
        return ids


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _any_of(spellings: Collection[str]) -> str:
    """A regular expression for the longest of `spellings`; one that never matches if there are none."""
    return "|".join(map(re.escape, sorted(spellings, key=len, reverse=True))) or "(?!)"


def _unused(texts: Iterable[str], count: int) -> list[str]:
    """`count` private-use characters that stand in none of `texts`. Raises UserError if they use up all."""
    taken = set[str]().union(*texts)
    unused = list(islice((c for c in map(chr, chain(*_PRIVATE_USE)) if c not in taken), count))
    if len(unused) < count:
        raise UserError("this message has every private-use character of Unicode; leave some of them out")
    return unused
