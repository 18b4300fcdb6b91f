from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.text.sanitize import one_line, sanitize, without_surrogates

ANY = st.text(st.characters())  # lone surrogates too
EVERYTHING = "".join(map(chr, range(sys.maxunicode + 1)))


def test_escape_sequences_lose_what_makes_them_one() -> None:
    assert sanitize("\x1b]52;c;aGk=\x07 \x9b31m \x1b[2J") == "]52;c;aGk= 31m [2J"


def test_of_all_control_characters_only_tab_and_line_feed_remain() -> None:
    left = {c for c in sanitize(EVERYTHING) if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    assert left == {"\t", "\n"}


def test_nothing_left_changes_direction() -> None:
    controls = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    left = sanitize(EVERYTHING)
    assert not {c for c in left if unicodedata.bidirectional(c) in controls}
    assert not {c for c in left if unicodedata.name(c, "").endswith(("-TO-RIGHT MARK", "-TO-LEFT MARK"))}
    assert "\u061c" not in left


def test_carriage_returns_go_and_separators_become_line_breaks() -> None:
    assert sanitize("a\r\nb\u2028c\u2029d") == "a\nb\nc\nd"


@pytest.mark.parametrize(
    "text",
    [
        "👩\u200d👩\u200d👧",
        "❤\ufe0f",
        "می\u200cخواهم",
        "क्\u200dष",
        "e\u0301",
        "🇮🇸",
        "שלום",
        "{[(`~!?",
        "日本",
    ],
)
def test_writing_that_people_use_passes(text: str) -> None:
    assert sanitize(text) == text


@pytest.mark.parametrize("char", "\u200b\u2060\ufeff\u00ad\u180e\u2063\ufff9\ud800\U000e0041")
def test_what_is_invisible_and_spoofs_goes(char: str) -> None:
    assert sanitize(f"a{char}b") == "ab"


@given(ANY, ANY)
def test_a_cut_lets_nothing_through(a: str, b: str) -> None:
    assert sanitize(a + b) == sanitize(a) + sanitize(b)


@given(ANY)
def test_twice_is_once_and_the_result_is_utf8(text: str) -> None:
    clean = sanitize(text)
    assert sanitize(clean) == clean
    clean.encode()


@given(ANY)
def test_without_surrogates_keeps_everything_else(text: str) -> None:
    whole = without_surrogates(text)
    whole.encode()
    assert [b for a, b in zip(text, whole, strict=True) if a != b] == ["\ufffd"] * sum(
        "\ud800" <= c <= "\udfff" for c in text
    )


def test_one_line_of_what_may_quote_a_file() -> None:
    assert one_line(ValueError("a\x1b[31m\n b\u202e\x1ec ")) == "a[31m bc"
    assert one_line("x" * 300) == "x" * 200
