"""Which format a checkpoint gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from core.errors import UserError
from core.text.dialogue import ChatFormat, ChatHints, Turn, choose_format
from core.text.formats import template as template_format
from core.text.formats.template import ChatTemplate
from tests.core import chat_templates as published
from tests.core.chat_tokenizers import Letters

LLAMA3 = ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>")
CHATML = ("<|endoftext|>", "<|im_end|>", "<|im_start|>")
MISTRAL = ("<s>", "</s>", "[INST]", "[/INST]")
HI = [Turn("hi")]


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ChatTemplate]]:
    """The templates of a test, closed behind it."""
    made: list[ChatTemplate] = []
    learn = ChatTemplate._learn

    def record(self: ChatTemplate, stop_ids: frozenset[int]) -> None:
        made.append(self)
        learn(self, stop_ids)

    monkeypatch.setattr(template_format.ChatTemplate, "_learn", record)
    yield made
    for template in made:
        template.close()


def choose(
    template: str | None, control: Sequence[str], name: str | None = None, **hints: object
) -> ChatFormat:
    return choose_format(name, Letters(control=control), ChatHints(template, **hints))


@pytest.mark.parametrize(
    ("template", "control", "name"),
    [
        (published.LLAMA3, LLAMA3, "llama3"),
        (published.LLAMA31, LLAMA3, "template"),
        (published.CHATML, CHATML, "chatml"),
        (published.SMOLLM2, CHATML, "chatml"),
        (published.QWEN25, CHATML, "chatml"),
        (published.TRIMMED_CHATML, CHATML, "template"),
        (published.CHATML, CHATML[:1], "template"),
        (published.CHATML.replace("\n", " "), CHATML, "template"),
        (published.ZEPHYR, MISTRAL[:2], "template"),
        (published.GEMMA, ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"), "template"),
        (published.MISTRAL_01, MISTRAL[:2], "mistral"),
        (published.MISTRAL_02, MISTRAL[:2], "mistral"),
        (published.MISTRAL_02_NEWER, MISTRAL[:2], "mistral"),
        (published.MISTRAL_03, MISTRAL, "mistral"),
        (published.MISTRAL_NEMO, MISTRAL, "mistral"),
        (published.MISTRAL_7, (*MISTRAL, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), "template"),
        (published.LLAMA2, MISTRAL[:2], "llama2"),
        (published.LLAMA2, MISTRAL, "template"),
    ],
)
def test_the_format_of_published_templates(template: str, control: Sequence[str], name: str) -> None:
    assert choose(template, control).name == name


@pytest.mark.parametrize("name", ["llama2", "chatml", "mistral", "none"])
def test_without_a_template_the_checkpoint_names_it(name: str) -> None:
    assert choose(None, Letters.CONTROL, format=name).name == name


@pytest.mark.parametrize("name", ["llama2", "chatml", "mistral", "none", "template"])
def test_a_name_comes_before_the_template(name: str) -> None:
    assert choose(published.ZEPHYR, Letters.CONTROL, name).name == name


@pytest.mark.parametrize("name", [None, "chatml"])
def test_the_default_system_prompt_of_a_template_is_kept(name: str | None) -> None:
    letters = Letters(control=CHATML)
    chat = choose(published.SMOLLM2, CHATML, name)
    header = f"<|im_start|>system\n{published.SMOLLM2_SYSTEM}<|im_end|>\n"
    assert letters.spell(chat.encode(HI, None)).startswith(header)
    assert letters.spell(chat.encode(HI, "")).startswith("<|im_start|>user")
    assert letters.spell(chat.encode(HI, "Be.")).startswith("<|im_start|>system\nBe.<|im_end|>")


def test_no_process_is_left_behind_a_native_format(started: list[ChatTemplate]) -> None:
    choose(published.SMOLLM2, CHATML)
    (template,) = started
    assert template._renderer._process is None


def test_stops_of_the_checkpoint_come_along() -> None:
    for template, control in ((published.LLAMA3, LLAMA3), (published.LLAMA31, LLAMA3), (None, LLAMA3)):
        assert 77 in choose(template, control, stop_ids=frozenset({77})).stop_ids


def test_template_without_a_template() -> None:
    with pytest.raises(UserError, match="--chat-format template: this checkpoint has no chat template"):
        choose(None, CHATML, "template")


@pytest.mark.parametrize("broken", ["{% for", "{{ raise_exception('<|im_start|> of nothing') }}"])
def test_a_template_that_cannot_be_rendered(broken: str) -> None:
    with pytest.raises(UserError, match=r"chat template fails: .*--chat-format NAME") as error:
        choose(broken, CHATML)
    assert "\n" not in str(error.value)
    assert choose(broken, CHATML, "chatml").name == "chatml"
