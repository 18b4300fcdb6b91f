"""Whatever a user writes: it is text, all of it, and nothing else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.errors import UserError
from core.text.dialogue import ChatFormat, ChatHints, Turn, choose_format
from core.text.tokenizer import Tokenizer
from tests.core import chat_templates as published
from tests.core.chat_tokenizers import byte_level, sentencepiece_like

LLAMA3 = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
CHATML = ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
MISTRAL = ("<s>", "</s>", "[INST]", "[/INST]")
# Deletes and joins parts of what the user wrote, as templates of reasoning models do.
CUTTING = published.CHATML.replace("message['content']", "message['content'].replace('/think', '').strip()")
FORMATS = {
    "llama2": ("llama2", None, MISTRAL[:2]),
    "llama3": ("llama3", None, LLAMA3),
    "mistral, text": ("mistral", None, MISTRAL[:2]),
    "mistral, tokens": ("mistral", None, MISTRAL),
    "chatml": ("chatml", None, CHATML),
    "none": ("none", None, CHATML),
    "llama3.1's template": ("template", published.LLAMA31, LLAMA3),
    "zephyr's template": ("template", published.ZEPHYR, MISTRAL[:2]),
    "mistral's template": ("template", published.MISTRAL_03, MISTRAL),
    "a template that cuts": ("template", CUTTING, CHATML),
}
TAGS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")


@dataclass(frozen=True)
class Made:
    """A format and its tokenizer."""

    chat: ChatFormat
    tokenizer: Tokenizer
    cuts: str
    """What the template deletes from a message."""

    def texts(self, seed: int) -> list[str]:
        """Those of 500 hostile texts that can be said."""
        return [text for text in hostile([*self.tokenizer.controls], seed) if self.accepts(text)]

    def accepts(self, text: str) -> bool:
        try:
            self.chat.check(text)
        except UserError:
            return False
        return True


@pytest.fixture(scope="module", params=FORMATS)
def made(request: pytest.FixtureRequest, shared_data: Path) -> Made:
    name, template, control = FORMATS[request.param]
    if control[0] == "<s>":
        model = shared_data / "stories260K" / "tokenizer.model"
        tokenizer = sentencepiece_like(model, control, legacy=False).ours
    else:
        tokenizer = byte_level(shared_data / "text" / "wikitext2.test.raw", control).ours
    cuts = "/think" if template == CUTTING else ""
    return Made(choose_format(name, tokenizer, ChatHints(template)), tokenizer, cuts)


def hostile(controls: Sequence[str], seed: int) -> list[str]:
    """500 texts of control spellings, parts of them, and what might be taken for marks of ours."""
    draw = random.Random(seed)
    parts = [*controls, *TAGS, *(spelling[:-1] for spelling in controls), "<", "|>", "]", "s>", "/think"]
    parts += [f"{spelling[:2]}/think{spelling[2:]}" for spelling in controls]
    parts += ["\ue000", "\ue001", "\U000f0000", " ", "\n", "a", "é", "{{ bos_token }}", "{% raw %}"]
    return ["x" + "".join(draw.choices(parts, k=draw.randint(1, 8))) + "y" for _ in range(500)]


def test_hostile_texts_add_no_control_token(made: Made) -> None:
    control_ids = set(made.tokenizer.controls.values())
    reply = tuple(made.tokenizer.encode("Yes."))

    def control_tokens(text: str) -> Counter[int]:
        ids = made.chat.encode([Turn(text, reply), Turn(text)], text)
        return Counter(token for token in ids if token in control_ids)

    expected = control_tokens("xy")
    for text in made.texts(seed=7):
        assert control_tokens(text) == expected, repr(text)


def test_hostile_texts_come_back_by_decoding(made: Made) -> None:
    for text in made.texts(seed=8):
        ids = made.chat.encode([Turn(text)], None)
        said = text.replace(made.cuts, "")
        assert said in b"".join(map(made.tokenizer.token_bytes, ids)).decode(), repr(text)


def test_only_tags_that_are_text_are_refused(made: Made) -> None:
    count = len(made.texts(seed=9))
    tags_are_text = made.chat.name in ("llama2", "mistral") and "[INST]" not in made.tokenizer.controls
    assert 0 < count < 500 if tags_are_text else count == 500
