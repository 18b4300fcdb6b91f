from __future__ import annotations

from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from core.text.bpe import ByteLevelBPE
from core.text.gguf_vocab import gguf_tokenizer
from core.text.tokenizer import Tokenizer
from tests.core.tokenizer_kinds import hostile_texts

TOKENS = ["<|im_end|>", *"abcd<|>im_en1", "Ġ", "Ã", "©", "ab", "Ġab", "Ã©"]
MERGES = ["a b", "Ġ ab", "Ã ©"]


def small_bpe(tokens: list[str] = TOKENS, merges: list[str] = MERGES, pre: str = "smollm") -> ByteLevelBPE:
    return ByteLevelBPE(tokens, merges, control=[0], pre=pre, bos_id=None, eos_id=0)


def words(pre: str, text: str) -> list[str]:
    """How `pre` cuts a text: a vocabulary of bytes in which every merge is possible."""
    letters = [chr(code) for code in range(0x21, 0x7F)] + ["Ġ", "Ċ", "č"]
    tokens, merges = list(letters), []
    for start in range(len(text)):
        for end in range(start + 2, len(text) + 1):
            piece = text[start:end].replace(" ", "Ġ").replace("\n", "Ċ")
            if piece not in tokens:
                tokens.append(piece)
                merges.append(f"{piece[:-1]} {piece[-1]}")
    tokenizer = ByteLevelBPE(tokens, merges, control=[], pre=pre, bos_id=None, eos_id=None)
    return [tokenizer.token_bytes(i).decode() for i in tokenizer.encode(text)]


def of_lists(added: list[str], *, pre: str = "llama-bpe", adds_bos: bool | None = None) -> Tokenizer:
    """TOKENS, `added` ones, and one that is unused."""
    return gguf_tokenizer(
        "gpt2",
        [*TOKENS, *added, "[PAD]"],
        scores=None,
        types=[3] + [1] * (len(TOKENS) - 1) + [4] * len(added) + [5],
        merges=MERGES,
        pre=pre,
        bos_id=0,
        eos_id=0,
        adds_bos=adds_bos,
        adds_space_prefix=True,
    )


class TestByteLevelBPE:
    def test_merges_and_digits(self) -> None:
        tokenizer = small_bpe()
        spelt = [TOKENS[i] for i in tokenizer.encode("ab ab11 é")]
        assert spelt == ["ab", "Ġab", "1", "1", "Ġ", "Ã©"]

    def test_a_control_token_is_spelt_out(self) -> None:
        tokenizer = small_bpe()
        assert [TOKENS[i] for i in tokenizer.encode("<|im_end|>")] == list("<|im_end|>")
        assert tokenizer.controls == {"<|im_end|>": 0}
        assert tokenizer.token_bytes(0) == b""

    def test_another_pre_tokenizer_is_named(self) -> None:
        with pytest.raises(ValueError, match="'qwen2' is none of default"):
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

    @pytest.mark.parametrize(
        ("pre", "expected"),
        [
            ("gpt-2", ["I", "'ll", " cAse", " 12345", "--", "\n", "\n", "x"]),
            ("smollm", ["I", "'ll", " cAse", " ", "1", "2", "3", "4", "5", "--", "\n", "\n", "x"]),
            ("default", ["I", "'", "ll", " cAse", " ", "123", "45", "--", "\n", "\n", "x"]),
            ("llama-bpe", ["I", "'ll", " cAse", " ", "123", "45", "--\n\n", "x"]),
            ("tekken", ["I", "'ll", " c", "Ase", " ", "1", "2", "3", "4", "5", "--\n\n", "x"]),
        ],
    )
    def test_words(self, pre: str, expected: list[str]) -> None:
        assert words(pre, "I'll cAse 12345--\n\nx") == expected

    def test_a_word_that_is_a_token_is_not_put_together(self) -> None:
        tokens = [*TOKENS, "abc"]  # which no merge makes
        assert small_bpe(tokens, pre="llama-bpe").encode("abc") == [tokens.index("abc")]
        assert small_bpe(tokens, pre="gpt-2").encode("abc") == [tokens.index("ab"), tokens.index("c")]


class TestLists:
    def test_added_marks_and_added_text(self) -> None:
        tokenizer = of_lists(["<im>", "a b", "é"])
        mark, text, letter = range(len(TOKENS), len(TOKENS) + 3)
        assert tokenizer.controls == {"<|im_end|>": 0, "<im>": mark}
        assert [TOKENS[i] for i in tokenizer.encode("<im>")] == ["<", "i", "m", ">"]
        assert tokenizer.encode("ca bcé") == [TOKENS.index("c"), text, TOKENS.index("c"), letter]
        assert [tokenizer.token_bytes(i) for i in (mark, text, letter)] == [b"<im>", b"a b", "é".encode()]

    def test_an_unused_token_is_nothing(self) -> None:
        tokenizer = of_lists([])
        assert tokenizer.token_bytes(tokenizer.vocab_size - 1) == b""
        assert tokenizer.vocab_size - 1 not in tokenizer.encode("[PAD]")
        assert "[PAD]" not in tokenizer.controls

    @pytest.mark.parametrize(
        ("pre", "adds_bos", "bos_id"),
        [("llama-bpe", None, 0), ("llama-bpe", False, None), ("gpt-2", None, None), ("gpt-2", True, 0)],
    )
    def test_bos(self, pre: str, adds_bos: bool | None, bos_id: int | None) -> None:
        assert of_lists([], pre=pre, adds_bos=adds_bos).bos_id == bos_id

    def test_another_kind_is_named(self) -> None:
        with pytest.raises(ValueError, match="'t5' is neither"):
            gguf_tokenizer(
                "t5", ["a"], scores=[0.0], types=[1], merges=None, pre="default", bos_id=None, eos_id=None,
                adds_bos=None, adds_space_prefix=True,
            )  # fmt: skip


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

    def test_text_never_spells_a_control_token(self, demo_tokenizer: ByteLevelBPE) -> None:
        for text in hostile_texts(list(demo_tokenizer.controls), 500):
            assert all(map(demo_tokenizer.token_bytes, demo_tokenizer.encode(text))), repr(text)

    def test_bytes_of_every_token_against_the_library(
        self, demo_tokenizer: ByteLevelBPE, demo_library: tokenizers.Tokenizer
    ) -> None:
        for token in range(demo_tokenizer.vocab_size):
            text = demo_tokenizer.token_bytes(token).decode(errors="replace")
            assert demo_library.decode([token]) == text, token
