"""What every kind of tokenizer must do, each beside the library that its authors use."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.text.decode import StreamDecoder
from core.text.sanitize import without_surrogates
from core.text.tokenizer import Tokenizer
from tests.core.tokenizer_kinds import (
    ADDED,
    KINDS,
    MARKS,
    SPECIAL,
    Pair,
    hostile_texts,
    pair,
    random_texts,
    trained,
    vectors,
)

JSON_KINDS = [kind for kind in KINDS if kind.startswith("json-")]


@pytest.fixture(scope="module", params=KINDS)
def both(request: pytest.FixtureRequest, shared_data: Path) -> Pair:
    return pair(request.param, shared_data)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return random_texts(2000)


def decoded(tokenizer: Tokenizer, ids: list[int]) -> str:
    decoder = StreamDecoder(tokenizer, at_start=True)
    return "".join(map(decoder.feed, ids)) + decoder.flush()


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        *(("spm", "llama2"), ("gguf-llama", "llama2"), ("json-legacy", "llama2")),
        *(("ranks", "llama3"), ("gguf-llama-bpe", "llama3")),
    ],
)
def test_published_vectors(shared_data: Path, kind: str, model: str) -> None:
    cases = vectors(shared_data / model)
    assert len(cases) == 47
    for text, ids in cases:
        assert pair(kind, shared_data).ours.encode(text) == ids, repr(text)


def test_ids_agree_with_the_reference(both: Pair, texts: list[str]) -> None:
    for text in texts:
        assert both.ours.encode(text) == both.reference(without_surrogates(text)), repr(text)


def test_text_comes_back(both: Pair, texts: list[str]) -> None:
    for text in texts:
        assert decoded(both.ours, both.ours.encode(text)) == both.back(without_surrogates(text)), repr(text)


def test_a_continued_text_gets_no_blank(both: Pair, texts: list[str]) -> None:
    for first, second in zip(texts[:500], texts[500:1000], strict=True):
        first = f"a{first}"
        ids = both.ours.encode(first) + both.ours.encode(second, continues=True)
        expected = both.back(without_surrogates(first)) + both.back("a" + without_surrogates(second))[1:]
        assert decoded(both.ours, ids) == expected, repr((first, second))


def test_text_never_becomes_a_control_token(both: Pair) -> None:
    controls = set(both.ours.controls.values())
    spellings = [*both.ours.controls, "<unk>", *MARKS][:20]
    for text in hostile_texts(spellings, 500):
        for continues in (False, True):
            ids = both.ours.encode(text, continues=continues)
            assert controls.isdisjoint(ids), repr(text)
            assert all(map(both.ours.token_bytes, ids)), repr(text)


def test_an_id_outside_the_table_has_no_bytes(both: Pair) -> None:
    for token in (-1, both.ours.vocab_size, 2**31):
        assert both.ours.token_bytes(token) == b""


@pytest.mark.parametrize("kind", JSON_KINDS)
class TestTokenizerJSON:
    def test_behind_a_control_token(self, shared_data: Path, kind: str, texts: list[str]) -> None:
        ours, library = pair(kind, shared_data).ours, trained(kind, shared_data)
        for text in map(without_surrogates, texts[:500]):
            whole = library.encode(f"<|im_end|>{text}", add_special_tokens=False).ids
            behind = ours.encode(text, continues=not ours.blank_after_control)
            assert [ours.controls["<|im_end|>"], *behind] == whole, repr(text)

    def test_special_tokens(self, shared_data: Path, kind: str) -> None:
        ours, library = pair(kind, shared_data).ours, trained(kind, shared_data)
        assert ours.vocab_size == library.get_vocab_size()
        assert ours.bos_id == library.token_to_id("<s>")
        assert ours.controls == {text: library.token_to_id(text) for text in [*SPECIAL, *MARKS]}
        assert [ours.token_bytes(ours.controls[text]) for text in SPECIAL] == [b""] * len(SPECIAL)
        assert [ours.token_bytes(ours.controls[text]) for text in MARKS] == [m.encode() for m in MARKS]

    def test_bytes_of_every_token(self, shared_data: Path, kind: str) -> None:
        ours, library = pair(kind, shared_data).ours, trained(kind, shared_data)
        a = ours.encode("a")[-1]  # in front, so that no blank is dropped
        for token in range(ours.vocab_size):
            # The library puts U+FFFD for each byte of half a character in byte_fallback.
            theirs = library.decode([a, token]).removeprefix(library.decode([a]))
            assert ours.token_bytes(token).decode(errors="replace") == theirs, token


@pytest.mark.parametrize("kind", ["json-llama3", "json-smollm"])
def test_added_text_stays_text(shared_data: Path, kind: str) -> None:
    ours, library = pair(kind, shared_data).ours, trained(kind, shared_data)
    token = library.token_to_id(ADDED[0])
    assert ours.encode(f"a{ADDED[0]}b")[1] == token
    assert ours.token_bytes(token) == ADDED[0].encode()
    assert ADDED[0] not in ours.controls
