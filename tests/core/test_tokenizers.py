from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.text.bpe import ByteLevelBPE
from core.text.spm import SentencePieceTokenizer

SPELLINGS = st.lists(
    st.sampled_from(
        [
            "<s>",
            "</s>",
            "<unk>",
            "<0x0A>",
            "<|im_end|>",
            "<|",
            "|>",
            "im_end",
            "s",
            "\u2581",
            " ",
            "\ud800",
            "é",
        ]
    )
).map("".join)


@pytest.fixture(scope="module")
def llama2(shared_data: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(shared_data / "llama2" / "tokenizer.model")


@pytest.fixture(scope="module")
def vectors(shared_data: Path) -> list[tuple[str, list[int]]]:
    with (shared_data / "llama2" / "vectors.inp").open(encoding="utf-8", newline="") as file:
        texts = file.read().split("\n__ggml_vocab_test__\n")
    lines = (shared_data / "llama2" / "vectors.out").read_text().split("\n")  # the last case is ""
    return [(text, [int(word) for word in line.split()]) for text, line in zip(texts, lines, strict=True)]


class TestSentencePiece:
    def test_published_vectors(
        self, llama2: SentencePieceTokenizer, vectors: list[tuple[str, list[int]]]
    ) -> None:
        assert len(vectors) == 47
        for text, ids in vectors:
            assert llama2.encode(text) == ids, repr(text)

    def test_sizes_and_special_ids(self, llama2: SentencePieceTokenizer, stories: Path) -> None:
        small = SentencePieceTokenizer(stories / "tokenizer.model")
        assert (llama2.vocab_size, llama2.bos_id, llama2.eos_id, llama2.strips_leading_space) == (
            32000, 1, 2, True,
        )  # fmt: skip
        assert (small.vocab_size, small.bos_id, small.eos_id, small.strips_leading_space) == (512, 1, 2, True)
        assert llama2.controls.get("<s>") == 1
        assert llama2.controls.get("</s>") == 2
        assert llama2.controls.get("hello") is None
        assert llama2.controls.get("<unk>") is None

    @given(SPELLINGS)
    def test_text_never_spells_a_control_token(self, llama2: SentencePieceTokenizer, text: str) -> None:
        ids = llama2.encode(text)
        assert all(llama2.token_bytes(i) for i in ids)

    @given(st.text())
    def test_bytes_of_the_ids_are_the_text(self, llama2: SentencePieceTokenizer, text: str) -> None:
        # Llama 2's normalisation is the identity but for its own blank.
        joined = b"".join(map(llama2.token_bytes, llama2.encode(text)))
        assert joined == (" " * bool(text) + text.replace("\u2581", " ")).encode()

    def test_bytes_of_every_piece_against_the_library(
        self, llama2: SentencePieceTokenizer, shared_data: Path
    ) -> None:
        library = sentencepiece.SentencePieceProcessor(str(shared_data / "llama2" / "tokenizer.model"))
        a = library.PieceToId("a")
        for token in range(llama2.vocab_size):  # after "a", so that no leading blank is dropped
            text = "a" + llama2.token_bytes(token).decode(errors="replace")
            assert library.DecodeIds([a, token]) == text, token


@pytest.mark.parametrize("content", [b"", b"hello" * 100, bytes(2000), bytes(range(256))])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"^.*tokenizer\.model: not a whole SentencePiece model.*$"):
        SentencePieceTokenizer(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_model_is_refused(tmp_path: Path, shared_data: Path, share: float) -> None:
    data = (shared_data / "llama2" / "tokenizer.model").read_bytes()
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match="not a whole SentencePiece model"):
        SentencePieceTokenizer(path)


def test_a_large_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="not a whole SentencePiece model"):
        SentencePieceTokenizer(path)


def test_llama3s_file_is_named_for_what_it_is(shared_data: Path) -> None:
    with pytest.raises(UserError, match="tiktoken file"):
        SentencePieceTokenizer(shared_data / "llama3" / "tokenizer.model")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        SentencePieceTokenizer(tmp_path / "absent")


TOKENS = ["<|im_end|>", *"abcd<|>im_en1", "Ġ", "Ã", "©", "ab", "Ġab", "Ã©"]
MERGES = ["a b", "Ġ ab", "Ã ©"]


def small_bpe(tokens: list[str] = TOKENS, merges: list[str] = MERGES, pre: str = "smollm") -> ByteLevelBPE:
    return ByteLevelBPE(tokens, merges, control=[0], pre=pre, bos_id=None, eos_id=0)


class TestByteLevelBPE:
    def test_merges_and_digits(self) -> None:
        tokenizer = small_bpe()
        spelt = [TOKENS[i] for i in tokenizer.encode("ab ab11 é")]
        assert spelt == ["ab", "Ġab", "1", "1", "Ġ", "Ã©"]

    def test_a_control_token_is_spelt_out(self) -> None:
        tokenizer = small_bpe()
        assert [TOKENS[i] for i in tokenizer.encode("<|im_end|>")] == list("<|im_end|>")
        assert tokenizer.controls.get("<|im_end|>") == 0
        assert tokenizer.controls.get("ab") is None
        assert tokenizer.token_bytes(0) == b""

    def test_another_pre_tokenizer_is_named(self) -> None:
        with pytest.raises(UserError, match="'qwen2' is not read yet"):
            small_bpe(pre="qwen2")

    @pytest.mark.parametrize(
        ("tokens", "merges"),
        [
            (TOKENS, ["a z"]),
            (TOKENS, ["ab"]),
            (TOKENS, ["a b c"]),
            ([*TOKENS, "a"], MERGES),
            ([*TOKENS, "日"], MERGES),
        ],
    )
    def test_tables_at_odds(self, tokens: list[str], merges: list[str]) -> None:
        with pytest.raises(ValueError, match=r"."):
            small_bpe(tokens, merges)


class TestDemo:
    def test_sizes_and_special_ids(self, demo_tokenizer: ByteLevelBPE) -> None:
        assert (demo_tokenizer.vocab_size, demo_tokenizer.bos_id, demo_tokenizer.eos_id) == (49152, None, 2)
        assert demo_tokenizer.controls.get("<|endoftext|>") == 0
        assert demo_tokenizer.controls.get("<|im_start|>") == 1

    def test_ids_agree_with_the_library_on_prose(
        self, demo_tokenizer: ByteLevelBPE, demo_library: tokenizers.Tokenizer, shared_data: Path
    ) -> None:
        text = (shared_data / "text" / "wikitext2.test.raw").read_text(encoding="utf-8")[:200_000]
        assert demo_tokenizer.encode(text) == demo_library.encode(text).ids

    @given(st.text(st.sampled_from("a é1²\n\t'’s😀日<|") | st.characters(codec="utf-8")))
    def test_ids_agree_with_the_library(
        self, demo_tokenizer: ByteLevelBPE, demo_library: tokenizers.Tokenizer, text: str
    ) -> None:
        text = text.replace(">", "")  # the library would parse control tokens
        assert demo_tokenizer.encode(text) == demo_library.encode(text).ids

    @given(SPELLINGS)
    def test_text_never_spells_a_control_token(self, demo_tokenizer: ByteLevelBPE, text: str) -> None:
        assert all(demo_tokenizer.token_bytes(i) for i in demo_tokenizer.encode(text))

    def test_bytes_of_every_token_against_the_library(
        self, demo_tokenizer: ByteLevelBPE, demo_library: tokenizers.Tokenizer
    ) -> None:
        for token in range(demo_tokenizer.vocab_size):
            text = demo_tokenizer.token_bytes(token).decode(errors="replace")
            assert demo_library.decode([token]) == text, token
