"""Token ids against transformers' apply_chat_template and Meta's code, over whole conversations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from core.text.dialogue import ChatFormat, ChatHints, Turn, choose_format
from core.text.formats.template import ChatTemplate
from tests.core import chat_templates as published
from tests.core.chat_tokenizers import Pair, byte_level, sentencepiece_like

LLAMA3 = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>")
CHATML = ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
MISTRAL = ("<s>", "</s>", "[INST]", "[/INST]")
GPT2_CUT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# No "<" and no "[", which a control spelling begins with: apply_chat_template takes the user's for its own.
TEXTS = st.text(
    st.sampled_from("ab \n\t'é😀1,>") | st.characters(codec="utf-8", exclude_characters="<["), max_size=12
)
SYSTEMS = TEXTS.filter(str.strip)
REPLIES = st.lists(st.sampled_from(["Yes", "no, 12", "é😀", "a b"]), max_size=3).map(" ".join).filter(bool)


@dataclass(frozen=True)
class Case:
    """A template, the tokenizer that goes with it, and the format of ours that writes the same."""

    template: str
    control: tuple[str, ...]
    kind: str
    """"gpt2", "llama3", "legacy" or "first": how texts are cut."""
    native: str | None = None
    takes_system: bool = True
    blank_before_reply: bool = False

    def pair(self, data: Path) -> Pair:
        if self.kind in ("gpt2", "llama3"):
            text = data / "text" / "wikitext2.test.raw"
            return (
                byte_level(text, self.control, cut=GPT2_CUT)
                if self.kind == "gpt2"
                else byte_level(text, self.control)
            )
        model = data / "stories260K" / "tokenizer.model"
        return sentencepiece_like(model, self.control, legacy=self.kind == "legacy")


CASES = {
    "llama3": Case(published.LLAMA3, LLAMA3, "llama3", "llama3"),
    "llama3 cut as gpt2": Case(published.LLAMA3, LLAMA3, "gpt2", "llama3"),
    "llama3.1": Case(published.LLAMA31, LLAMA3, "llama3"),
    "chatml": Case(published.CHATML, CHATML, "gpt2", "chatml"),
    "chatml in sentencepiece": Case(published.CHATML, ("<s>", "</s>", *CHATML[1:]), "first", "chatml"),
    "chatml in legacy sentencepiece": Case(
        published.CHATML, ("<s>", "</s>", *CHATML[1:]), "legacy", "chatml"
    ),
    "smollm2": Case(published.SMOLLM2, CHATML, "gpt2", "chatml"),
    "qwen2.5": Case(published.QWEN25, CHATML, "gpt2", "chatml"),
    "trimmed chatml": Case(published.TRIMMED_CHATML, CHATML, "gpt2"),
    "zephyr": Case(published.ZEPHYR, MISTRAL[:2], "legacy"),
    "tinyllama": Case(published.ZEPHYR, MISTRAL[:2], "first"),
    "mistral 0.1": Case(published.MISTRAL_01, MISTRAL[:2], "first", takes_system=False),
    "mistral 0.2": Case(published.MISTRAL_02, MISTRAL[:2], "legacy", "mistral", takes_system=False),
    "mistral 0.2, newer": Case(
        published.MISTRAL_02_NEWER, MISTRAL[:2], "first", "mistral", blank_before_reply=True
    ),
    "mistral 0.3": Case(published.MISTRAL_03, MISTRAL, "first", "mistral", blank_before_reply=True),
    "mistral nemo": Case(published.MISTRAL_NEMO, MISTRAL, "llama3", "mistral"),
    "gemma": Case(
        published.GEMMA, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "legacy", takes_system=False
    ),
}
# They write the system prompt into the last message; see Mistral.
MOVES_SYSTEM = {"mistral 0.3", "mistral nemo"}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def pair(case: str, shared_data: Path) -> Pair:
    return CASES[case].pair(shared_data)


@pytest.fixture(scope="module")
def oracle(case: str, pair: Pair) -> PreTrainedTokenizerFast:
    return pair.with_template(CASES[case].template, *CASES[case].control[:2])


@pytest.fixture(scope="module")
def formats(case: str, pair: Pair) -> Iterator[list[ChatFormat]]:
    hints = ChatHints(CASES[case].template)
    template = choose_format("template", pair.ours, hints)
    assert isinstance(template, ChatTemplate)
    native = CASES[case].native
    yield [template, *([choose_format(native, pair.ours, hints)] if native else [])]
    template.close()


def reply_ids(case: str, pair: Pair, text: str) -> tuple[int, ...]:
    """The ids of a reply that comes behind the case's generation prompt."""
    return tuple(pair.ours.encode(text, continues=not CASES[case].blank_before_reply))


@settings(max_examples=40, deadline=None)
@given(
    users=st.lists(TEXTS, min_size=1, max_size=5),
    replies=st.lists(REPLIES, min_size=5, max_size=5),
    system=st.none() | SYSTEMS,
    finished=st.booleans(),
)
def test_ids_of_apply_chat_template(
    case: str,
    pair: Pair,
    oracle: PreTrainedTokenizerFast,
    formats: list[ChatFormat],
    users: list[str],
    replies: list[str],
    system: str | None,
    finished: bool,
) -> None:
    system = system if CASES[case].takes_system else None
    messages = [{"role": "system", "content": system}] if system else []
    turns = []
    for i, user in enumerate(users):
        messages.append({"role": "user", "content": user})
        answered = finished or i < len(users) - 1
        if answered:
            messages.append({"role": "assistant", "content": replies[i]})
        turns.append(Turn(user, reply_ids(case, pair, replies[i]) if answered else None))
    expected = oracle.apply_chat_template(
        messages, tokenize=True, add_generation_prompt=not finished, return_dict=False
    )
    template, *natives = formats
    assert template.encode(turns, system) == expected
    moved = case in MOVES_SYSTEM and system and len(messages) > 2
    for native in natives:
        assert moved or native.encode(turns, system) == expected
