"""A tokenizer that remembers gives the ids of one that does not, and keeps only so much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.text.formats.remembered import Remembered
from core.text.tokenizer import Tokenizer
from tests.core.chat_tokenizers import Letters


class Counting(Letters):
    """Notes what it is asked to encode; a text in the middle of another has another id in front."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        self.asked.append(text)
        if "!" in text:
            raise UserError("no")
        return [int(continues), *super().encode(text)]


@given(st.lists(st.tuples(st.text("ab", max_size=6), st.booleans()), max_size=30), st.integers(0, 20))
def test_the_ids_are_those_of_the_tokenizer(texts: list[tuple[str, bool]], most: int) -> None:
    plain, remembered = Counting(), Remembered(Counting(), most)
    for text, continues in texts:
        ids = remembered.encode(text, continues=continues)
        assert ids == plain.encode(text, continues=continues)
        ids.append(7)  # what the caller does with them changes nothing
        assert sum(len(kept) for kept, _ in remembered._kept) == remembered._characters <= most


def test_the_texts_used_last_are_kept() -> None:
    counting = Counting()
    remembered = Remembered(counting, 6)
    for text in ("aa", "bb", "cc", "aa", "dd", "aa", "cc", "bb"):
        remembered.encode(text)
    assert counting.asked == ["aa", "bb", "cc", "dd", "bb"]


def test_a_text_that_cannot_be_encoded_is_refused_each_time() -> None:
    remembered = Remembered(Counting())
    for _ in range(2):
        with pytest.raises(UserError):
            remembered.encode("!")


def test_it_is_the_tokenizer_in_all_else() -> None:
    letters = Letters()
    remembered: Tokenizer = Remembered(letters)
    for name in ("vocab_size", "bos_id", "eos_id", "strips_leading_space", "blank_after_control", "controls"):
        assert getattr(remembered, name) == getattr(letters, name)
    assert remembered.token_bytes(100) == letters.token_bytes(100) != b""
