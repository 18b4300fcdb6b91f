from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from core.text.bpe import ByteLevelBPE
from core.text.decode import StreamDecoder
from core.text.spm import SentencePieceTokenizer
from core.text.tokenizer import Tokenizer

FIRST_BYTE = 3  # <0x00>
TOKENS = st.one_of(st.integers(0, 31999), st.integers(FIRST_BYTE, FIRST_BYTE + 255))


@pytest.fixture(scope="module")
def model(shared_data: Path) -> Path:
    return shared_data / "llama2" / "tokenizer.model"


@pytest.fixture(scope="module")
def llama2(model: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(model.read_bytes())


@pytest.fixture(scope="module")
def library(model: Path) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(str(model))


def decode(tokenizer: Tokenizer, ids: list[int], *, at_start: bool = True) -> list[str]:
    """The text of every token, and what the end adds."""
    decoder = StreamDecoder(tokenizer, at_start=at_start)
    return [*map(decoder.feed, ids), decoder.flush()]


def by_the_byte(text: str) -> str:
    """SentencePiece puts U+FFFD for each byte, Unicode's recommendation one for each maximal part."""
    return re.sub("\ufffd+", "\ufffd", text)


@given(ids=st.lists(TOKENS, max_size=20))
def test_random_ids_read_as_the_library_reads_them(
    llama2: SentencePieceTokenizer, library: sentencepiece.SentencePieceProcessor, ids: list[int]
) -> None:
    a = library.PieceToId("\u2581a")
    ids = [a] + [i for i in ids if not library.IsControl(i)]
    assert by_the_byte("".join(decode(llama2, ids))) == by_the_byte(library.DecodeIds(ids))


@given(text=st.text(max_size=30), cut=st.integers(0, 40))
def test_text_comes_back_whole_wherever_it_is_cut(
    llama2: SentencePieceTokenizer,
    library: sentencepiece.SentencePieceProcessor,
    text: str,
    cut: int,
) -> None:
    ids = llama2.encode(text)
    pieces = decode(llama2, ids)
    assert "".join(pieces) == library.DecodeIds(ids)
    for piece in pieces:
        assert "\ufffd" not in piece or "\ufffd" in text
    # A prefix is what the library makes of it, but for the unfinished character at its end.
    whole = "".join(pieces[:cut])
    assert library.DecodeIds(ids[:cut]).rstrip("\ufffd").startswith(whole.rstrip("\ufffd"))


def test_half_a_character_waits(llama2: SentencePieceTokenizer) -> None:
    euro = [FIRST_BYTE + byte for byte in "€".encode()]
    assert decode(llama2, euro) == ["", "", "€", ""]
    assert decode(llama2, euro[:2]) == ["", "", "\ufffd"]
    assert decode(llama2, [*euro[:2], llama2.encode("a")[0]]) == ["", "", "\ufffd a", ""]


def test_only_the_first_blank_at_the_start_is_dropped(llama2: SentencePieceTokenizer) -> None:
    ids = llama2.encode("a b") + llama2.encode("c")
    assert "".join(decode(llama2, ids)) == "a b c"
    assert "".join(decode(llama2, ids, at_start=False)) == " a b c"
    assert decode(llama2, [1, *ids])[:2] == ["", "a"]
    assert "".join(decode(llama2, llama2.encode("   three"))) == "   three"


@given(ids=st.lists(st.integers(0, 49151) | st.integers(17, 400), max_size=20))
def test_random_ids_read_as_the_library_reads_them_in_bpe(
    demo_tokenizer: ByteLevelBPE, demo_library: tokenizers.Tokenizer, ids: list[int]
) -> None:
    assert "".join(decode(demo_tokenizer, ids)) == demo_library.decode(ids)


def test_golden_text_of_a_real_model(stories: Path) -> None:
    tokenizer = SentencePieceTokenizer((stories / "tokenizer.model").read_bytes())
    golden = json.loads((stories / "golden_tokens.json").read_text())
    text = "".join(decode(tokenizer, golden["prompt"] + golden["greedy"]))
    assert (stories / "golden_greedy200.txt").read_text().startswith(text)
