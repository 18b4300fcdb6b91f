"""The checkpoint's own template as a chat format: what it learns of it, and refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import UserError
from core.text.dialogue import Turn
from core.text.formats.template import ChatTemplate
from tests.core import chat_templates as published
from tests.core.chat_tokenizers import Letters

TEXTS = st.text(st.sampled_from("ab é<\n "), max_size=6)
FINISHED = st.lists(
    st.builds(Turn, TEXTS, st.lists(st.integers(5, 255), max_size=4).map(tuple)), min_size=1, max_size=4
)
ECHO = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
ECHO_OF_OTHERS = ECHO.replace("messages", "messages if m.role != 'system'")


def chat_template(source: str, *stop_ids: int, letters: Letters | None = None) -> ChatTemplate:
    return ChatTemplate(letters or Letters(), source, frozenset(stop_ids))


@pytest.fixture(
    scope="module", params=["LLAMA2", "LLAMA31", "MISTRAL_01", "MISTRAL_03", "QWEN25", "ZEPHYR", "CHATML"]
)
def chat(request: pytest.FixtureRequest) -> Iterator[ChatTemplate]:
    made = chat_template(getattr(published, request.param))
    yield made
    made.close()


@settings(max_examples=30, deadline=None)
@given(turns=FINISHED, more=TEXTS)
def test_a_prompt_begins_with_the_one_before_and_its_reply(
    chat: ChatTemplate, turns: list[Turn], more: str
) -> None:
    *earlier, last = turns
    assert last.reply is not None
    before = chat.encode([*earlier, Turn(last.user)], None) + list(last.reply)
    assert chat.encode([*turns, Turn(more)], None)[: len(before)] == before


def test_a_stop_id_in_a_reply_makes_no_difference(chat: ChatTemplate) -> None:
    for stop in chat.stop_ids:
        assert chat.encode([Turn("a", (9, stop)), Turn("b")], None) == chat.encode(
            [Turn("a", (9,)), Turn("b")], None
        )


@pytest.mark.parametrize(
    ("source", "stops"),
    [(published.CHATML, {1, 3, 4}), (published.ZEPHYR, {1, 4}), (published.LLAMA2, {1, 4}), (ECHO, {1, 4})],
)
def test_stops(source: str, stops: set[int]) -> None:
    assert chat_template(source).stop_ids == stops
    assert chat_template(source, 2).stop_ids == stops | {2}


def test_system_prompt() -> None:
    letters = Letters()
    chat = chat_template(published.ZEPHYR, letters=letters)
    said = letters.spell(chat.encode([Turn("hi")], "be"))
    assert said == "<|system|>\nbe</s>\n<|user|>\nhi</s>\n<|assistant|>\n"
    assert chat.encode([Turn("hi")], "") == chat.encode([Turn("hi")], None)


@pytest.mark.parametrize("source", [published.GEMMA, published.MISTRAL_01, ECHO_OF_OTHERS])
def test_a_template_without_system_prompts_says_so(source: str) -> None:
    chat = chat_template(source)
    chat.encode([Turn("hi")], None)
    with pytest.raises(UserError, match="takes no system prompt; leave --system out"):
        chat.encode([Turn("hi")], "be")


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].content }}",
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content }}{% endif %}{% endfor %}",
        "{% for m in messages %}{{ m.content }}{{ m.content }}{% endfor %}",
    ],
)
def test_a_template_that_does_not_write_the_conversation_is_refused(source: str) -> None:
    with pytest.raises(
        UserError, match=r"leaves out a message or a reply, or repeats it; .*--chat-format NAME"
    ):
        chat_template(source)


def test_a_template_that_forgets_is_refused_when_it_does() -> None:
    chat = chat_template("{% for m in messages[-3:] %}{{ m.content }}{% endfor %}")
    turns = [Turn("a", (9,)), Turn("b")]
    assert chat.encode(turns, None)
    with pytest.raises(UserError, match="every reply of this conversation"):
        chat.encode([Turn("a", (9,)), *turns], None)


def test_names_of_tokens_come_from_the_tokenizer_or_the_checkpoint() -> None:
    letters = Letters()
    source = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    assert letters.spell(chat_template(source).encode([Turn("a")], None)) == "<s>a</s>"
    named = ChatTemplate(Letters(None, None), source, frozenset(), bos="<|im_start|>", eos="<|im_end|>")
    assert letters.spell(named.encode([Turn("a")], None)) == "<|im_start|>a<|im_end|>"
    nameless = chat_template(source, letters=Letters(None, None))
    assert letters.spell(nameless.encode([Turn("a")], None)) == "a"


def test_a_text_with_every_private_use_character_is_refused() -> None:
    chat = chat_template(ECHO)
    private = [*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE)]
    chat.encode([Turn("".join(map(chr, private[3:])))], None)
    with pytest.raises(UserError, match="private-use"):
        chat.encode([Turn("".join(map(chr, private)))], None)
