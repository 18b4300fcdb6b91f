"""Text that is ids: both ways, in every format that takes it, and what is not an id."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.engine.perplexity import first_tokens
from core.errors import UserError
from core.text.decode import StreamDecoder
from core.text.dialogue import ChatHints, Turn, choose_format, raw_prompt
from core.text.formats.base import ends
from core.text.ids import IdTokenizer

VOCABULARY = 32000


def text_of(ids: list[int], at_start: bool = True) -> str:
    decoder = StreamDecoder(IdTokenizer(VOCABULARY), at_start=at_start)
    return "".join(map(decoder.feed, ids)) + decoder.flush()


@given(st.lists(st.integers(0, VOCABULARY - 1)))
def test_text_is_the_ids_joined_by_blanks(ids: list[int]) -> None:
    text = " ".join(map(str, ids))
    assert IdTokenizer(VOCABULARY).encode(text) == ids
    assert text_of(ids) == text


@given(st.lists(st.integers(0, VOCABULARY - 1), min_size=1), st.lists(st.integers(0, VOCABULARY - 1)))
def test_a_reply_continues_its_prompt(prompt: list[int], reply: list[int]) -> None:
    whole = text_of(prompt) + text_of(reply, at_start=False)
    assert IdTokenizer(VOCABULARY).encode(whole) == prompt + reply


def test_any_blanks_separate() -> None:
    assert IdTokenizer(VOCABULARY).encode(" 1\n15043\t 7  ", continues=True) == [1, 15043, 7]


@pytest.mark.parametrize(
    "word", ["Hello", "32000", "-1", "1.5", "1,2", "²", "٣", "0x10", "1_000", "9" * 5000, "+3", "<s>"]
)
def test_a_word_that_is_no_id(word: str) -> None:
    with pytest.raises(UserError) as caught:
        IdTokenizer(VOCABULARY).encode(f"5 {word} 6")
    message = str(caught.value)
    assert word[:40] in message
    assert "0 to 31999" in message
    assert "\n" not in message
    assert len(message) < 200


def test_a_word_of_control_characters_reaches_no_terminal() -> None:
    with pytest.raises(UserError) as caught:
        IdTokenizer(VOCABULARY).encode("\x1b[31m")
    assert "\x1b" not in str(caught.value)


def test_an_empty_prompt_has_a_token_to_go_on_from() -> None:
    assert raw_prompt(IdTokenizer(VOCABULARY), "") == [1]
    assert raw_prompt(IdTokenizer(VOCABULARY), "5 6") == [1, 5, 6]


def test_it_chats_as_a_base_model_and_nothing_stops_a_reply() -> None:
    tokenizer = IdTokenizer(VOCABULARY)
    chat = choose_format(None, tokenizer, ChatHints())
    assert chat.stop_ids == ends(tokenizer) == frozenset()
    assert chat.encode([Turn("5 6", (7, 8)), Turn("9")], "3 4") == [1, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("name", ["llama2", "llama3", "mistral", "chatml", "template"])
def test_other_formats_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(UserError, match=f"--chat-format {name}"):
        choose_format(name, IdTokenizer(VOCABULARY), ChatHints())


def test_the_first_ids_of_a_long_text() -> None:
    text = " ".join(str(i % VOCABULARY) for i in range(50_000))
    assert first_tokens(IdTokenizer(VOCABULARY), text, 1000) == list(range(1000))
