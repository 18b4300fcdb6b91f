from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from core.text.gguf_vocab import gguf_tokenizer
from core.text.spm import SentencePieceTokenizer
from core.text.spm_model import Kind, Piece, bpe_settings, join, split
from core.text.tokenizer import Tokenizer
from tests.core.tokenizer_kinds import BLANK

NORMAL = [BLANK, "a", "b", "ab", f"{BLANK}ab", "<", "|", ">", "i", "m"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
# id 3 is a mark that was added as an ordinary piece, id 4 ordinary text that was added.
SMALL = [
    Piece("<unk>", 0, Kind.UNKNOWN),
    Piece("<s>", 0, Kind.CONTROL),
    Piece("</s>", 0, Kind.CONTROL),
    Piece("<|im|>", 0, Kind.USER_DEFINED),
    Piece(f"b{BLANK}b", 0, Kind.USER_DEFINED),
    *(Piece(text, 0, Kind.BYTE) for text in BYTES),
    *(Piece(text, -float(i), Kind.NORMAL) for i, text in enumerate(NORMAL)),
    Piece("[PAD]", -100, Kind.UNUSED),
]


@pytest.fixture(scope="module")
def llama2(shared_data: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer((shared_data / "llama2" / "tokenizer.model").read_bytes())


def of_model(pieces: list[Piece]) -> Tokenizer:
    settings = bpe_settings(len(pieces), byte_fallback=True, add_dummy_prefix=True)
    return SentencePieceTokenizer(join(pieces, settings))


def of_lists(pieces: list[Piece]) -> Tokenizer:
    return gguf_tokenizer(
        "llama",
        [
            piece.text.replace(BLANK, " ") if piece.kind is Kind.USER_DEFINED else piece.text
            for piece in pieces
        ],
        scores=[float(piece.score) for piece in pieces],
        types=[int(piece.kind) for piece in pieces],
        merges=None,
        pre="default",
        bos_id=1,
        eos_id=2,
        adds_bos=None,
        adds_space_prefix=True,
    )


def test_sizes_and_special_ids(llama2: SentencePieceTokenizer, stories: Path) -> None:
    small = SentencePieceTokenizer((stories / "tokenizer.model").read_bytes())
    assert (llama2.vocab_size, llama2.bos_id, llama2.eos_id, llama2.strips_leading_space) == (
        32000, 1, 2, True,
    )  # fmt: skip
    assert (small.vocab_size, small.bos_id, small.eos_id, small.strips_leading_space) == (512, 1, 2, True)
    assert llama2.controls == {"<s>": 1, "</s>": 2}


@given(st.text())
def test_bytes_of_the_ids_are_the_text(llama2: SentencePieceTokenizer, text: str) -> None:
    # Llama 2's normalisation is the identity but for its own blank.
    joined = b"".join(map(llama2.token_bytes, llama2.encode(text)))
    assert joined == (" " * bool(text) + text.replace(BLANK, " ")).encode()


def test_bytes_of_every_piece_against_the_library(llama2: SentencePieceTokenizer, shared_data: Path) -> None:
    library = sentencepiece.SentencePieceProcessor(str(shared_data / "llama2" / "tokenizer.model"))
    a = library.PieceToId("a")
    for token in range(llama2.vocab_size):  # after "a", so that no leading blank is dropped
        text = "a" + llama2.token_bytes(token).decode(errors="replace")
        assert library.DecodeIds([a, token]) == text, token


def test_the_message_is_put_together_as_it_was(shared_data: Path) -> None:
    data = (shared_data / "llama2" / "tokenizer.model").read_bytes()
    pieces, rest = split(data)
    assert split(join(pieces, rest)) == (pieces, rest)
    library = sentencepiece.SentencePieceProcessor(model_proto=data)
    assert [piece.text for piece in pieces] == [library.IdToPiece(i) for i in range(32000)]
    assert [piece.score for piece in pieces] == [library.GetScore(i) for i in range(32000)]


@pytest.mark.parametrize("make", [of_model, of_lists])
class TestAddedPieces:
    def test_a_mark_is_out_of_reach_but_keeps_its_text(
        self, make: Callable[[list[Piece]], Tokenizer]
    ) -> None:
        tokenizer = make(SMALL)
        assert tokenizer.controls == {"<s>": 1, "</s>": 2, "<|im|>": 3}
        spelt = [SMALL[i].text for i in tokenizer.encode("<|im|>")]
        assert spelt == [BLANK, "<", "|", "i", "m", "|", ">"]
        assert tokenizer.token_bytes(3) == b"<|im|>"

    def test_text_is_found_in_a_text(self, make: Callable[[list[Piece]], Tokenizer]) -> None:
        tokenizer = make(SMALL)
        assert 4 in tokenizer.encode("ab b")
        assert tokenizer.token_bytes(4) == b"b b"

    def test_a_byte_is_itself(self, make: Callable[[list[Piece]], Tokenizer]) -> None:
        ids = make(SMALL).encode("é", continues=True)
        assert [SMALL[i].text for i in ids] == ["<0xC3>", "<0xA9>"]


class TestLists:
    @pytest.mark.parametrize(("adds_bos", "bos_id"), [(None, 1), (True, 1), (False, None)])
    def test_bos_and_prefix(self, adds_bos: bool | None, bos_id: int | None) -> None:
        tokenizer = gguf_tokenizer(
            "llama",
            [piece.text for piece in SMALL],
            scores=[float(piece.score) for piece in SMALL],
            types=[int(piece.kind) for piece in SMALL],
            merges=None,
            pre="default",
            bos_id=1,
            eos_id=3,
            adds_bos=adds_bos,
            adds_space_prefix=False,
        )
        assert (tokenizer.bos_id, tokenizer.eos_id) == (bos_id, 3)
        assert not tokenizer.strips_leading_space
        assert [SMALL[i].text for i in tokenizer.encode("ab")] == ["ab"]

    def test_the_unknown_token_may_be_called_a_control_token(self) -> None:
        tokenizer = of_lists([Piece("<unk>", 0, Kind.CONTROL), *SMALL[1:]])
        assert tokenizer.encode("ab") == of_lists(SMALL).encode("ab")
        assert "<unk>" not in tokenizer.controls

    def test_an_empty_token_is_kept_in_its_place(self) -> None:
        tokenizer = of_lists([*SMALL, Piece("", 0, Kind.UNUSED), Piece("", 0, Kind.UNUSED)])
        assert tokenizer.vocab_size == len(SMALL) + 2
        assert tokenizer.encode("ab") == of_lists(SMALL).encode("ab")

    @pytest.mark.parametrize(
        "pieces",
        [
            [],
            [*SMALL, Piece("ab", 0, Kind.NORMAL)],
            [*SMALL, Piece("x", float("nan"), Kind.NORMAL)],
            [*SMALL, Piece("x", 1e300, Kind.NORMAL)],
            [piece for piece in SMALL if piece.kind is not Kind.UNKNOWN],
            [piece for piece in SMALL if piece.text != "<0x41>"],
            [*SMALL, Piece("x", 0, Kind.BYTE)],
        ],
    )
    def test_tables_at_odds(self, pieces: list[Piece]) -> None:
        with pytest.raises(ValueError, match=r"."):
            of_lists(pieces)

    @pytest.mark.parametrize(
        ("scores", "types"), [(None, [1]), ([1.0], None), ([1.0], [1, 1]), ([1], [1]), ([1.0], [7])]
    )
    def test_lists_that_are_none(self, scores: object, types: object) -> None:
        with pytest.raises(ValueError, match=r"."):
            gguf_tokenizer(
                "llama", ["<unk>"], scores=scores, types=types, merges=None, pre="default", bos_id=None,
                eos_id=None, adds_bos=None, adds_space_prefix=True,
            )  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"hello" * 100, bytes(2000), bytes(range(256)), b"\n\x00" * 9])
def test_what_is_no_model_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a whole SentencePiece model"):
        SentencePieceTokenizer(content)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_model_is_refused(shared_data: Path, share: float) -> None:
    data = (shared_data / "llama2" / "tokenizer.model").read_bytes()
    with pytest.raises(ValueError, match="not a whole SentencePiece model"):
        SentencePieceTokenizer(data[: int(len(data) * share)])
