"""Conversations as token ids, in the form that a model was trained on.

Replies stay the ids that were sampled: to decode and encode again is not an identity. Every format
keeps one promise, `ChatTemplate` as far as the template does: the encoding of turns[:n + 1] starts
with that of turns[:n] and its reply, so a KV cache that holds a conversation holds the beginning of
the next prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from core.errors import UserError
from core.text.formats.base import ChatFormat, Turn
from core.text.formats.chatml import ChatML, default_system
from core.text.formats.llama2 import Llama2
from core.text.formats.llama3 import Llama3
from core.text.formats.mistral import Mistral
from core.text.formats.plain import Plain, raw_prompt
from core.text.formats.remembered import Remembered
from core.text.formats.template import ChatTemplate
from core.text.tokenizer import Tokenizer

__all__ = ["ChatFormat", "ChatHints", "Turn", "choose_format", "raw_prompt"]

_NATIVE: dict[str, Callable[[Tokenizer, frozenset[int]], ChatFormat]] = {
    "llama2": Llama2,
    "llama3": Llama3,
    "mistral": Mistral,
    "none": Plain,
}


@dataclass(frozen=True, slots=True)
class ChatHints:
    """What a checkpoint says of how it was trained to chat."""

    template: str | None = None
    """The Jinja source of its chat template."""
    format: str = "none"
    """The format to take where there is no template."""
    stop_ids: frozenset[int] = frozenset()
    """The tokens that it says end a reply."""
    bos: str = ""
    """What it calls bos_token; "" is the spelling of the tokenizer's BOS."""
    eos: str = ""
    """What it calls eos_token; "" is the spelling of the tokenizer's EOS."""


def choose_format(name: str | None, tokenizer: Tokenizer, hints: ChatHints) -> ChatFormat:
    """The format called `name`, or the checkpoint's own where that is None.

    It remembers what it has encoded, so that a turn costs the encoding of its own texts only. Raises
    UserError where the tokenizer lacks the format's control tokens, and for a template that is wanted and
    is not there or cannot be rendered.
    """
    tokenizer = Remembered(tokenizer)
    if name is None and hints.template is not None:
        return _of_template(tokenizer, hints, hints.template)
    name = name or hints.format
    if name == "template":
        if hints.template is None:
            raise UserError("--chat-format template: this checkpoint has no chat template; choose another")
        return _template(tokenizer, hints, hints.template)
    if name == "chatml":
        return ChatML(tokenizer, hints.stop_ids, _system_of_template(tokenizer, hints))
    return _NATIVE[name](tokenizer, hints.stop_ids)


def _of_template(tokenizer: Tokenizer, hints: ChatHints, source: str) -> ChatFormat:
    """The format of ours that writes what the template writes, or else the template.

    Llama 2's tags are plain text, which only our format keeps users from writing, so its marks are enough.
    """
    if "<<SYS>>" in source and "[INST]" not in tokenizer.controls:
        return Llama2(tokenizer, hints.stop_ids)
    template = _template(tokenizer, hints, source)
    native: ChatFormat | None = None
    with suppress(UserError):  # the tokenizer lacks the format's control tokens
        if "<|im_start|>" in source:
            native = ChatML(tokenizer, hints.stop_ids, default_system(template.opening))
        elif "<|start_header_id|>" in source:
            native = Llama3(tokenizer, hints.stop_ids)
        elif "[INST]" in source:
            native = Mistral(tokenizer, hints.stop_ids)
    if native is None or not _agree(native, template, tokenizer):
        return template
    template.close()
    return native


def _agree(native: ChatFormat, template: ChatTemplate, tokenizer: Tokenizer) -> bool:
    """Whether both give the same ids for conversations that tell layouts apart.

    Mistral's templates differ from mistral-common, and from each other, in blanks beside the tags;
    there the texts are compared without blanks, and mistral-common's are taken.
    """
    for turns, system in _probes(tokenizer):
        if system and not template.takes_system:
            continue
        ours, theirs = native.encode(turns, system), template.encode(turns, system)
        if isinstance(native, Mistral):
            ours, theirs = _without_blanks(tokenizer, ours), _without_blanks(tokenizer, theirs)
        if ours != theirs:
            return False
    return True


def _probes(tokenizer: Tokenizer) -> Iterator[tuple[Sequence[Turn], str | None]]:
    """Conversations with blanks at the edges of texts, which some templates cut off."""
    one, two, three = (tuple(tokenizer.encode(text)) for text in ("Two.", " 4\n", "5"))
    yield [Turn(" One and\none? \n")], None
    yield [Turn("1+1?", one), Turn("\n2+2?", two), Turn("And 3?", three), Turn(" 4 ")], None
    yield [Turn(" Hi")], " Be brief.\n"


def _without_blanks(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    """The bytes that `ids` stand for, but for blanks; a control token as a number below zero."""
    spelt: list[int] = []
    for token in ids:
        data = tokenizer.token_bytes(token)
        spelt += data.replace(b" ", b"") if data else (~token,)
    return spelt


def _template(tokenizer: Tokenizer, hints: ChatHints, source: str) -> ChatTemplate:
    return ChatTemplate(tokenizer, source, hints.stop_ids, bos=hints.bos, eos=hints.eos)


def _system_of_template(tokenizer: Tokenizer, hints: ChatHints) -> str | None:
    """The default system prompt of a ChatML template; None where there is no such template."""
    if hints.template is None or "<|im_start|>" not in hints.template:
        return None
    with suppress(UserError):  # a format was named because the template does not work, perhaps
        template = _template(tokenizer, hints, hints.template)
        template.close()
        return default_system(template.opening)
    return None
