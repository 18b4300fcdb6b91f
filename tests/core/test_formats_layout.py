"""How each format of ours writes a conversation, and the promises that all of them keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tiktoken.load import load_tiktoken_bpe

from core.errors import UserError
from core.text.dialogue import ChatFormat, ChatHints, Turn, choose_format
from core.text.spm import SentencePieceTokenizer
from core.text.tokenizer import Tokenizer
from tests.core import chat_templates as published
from tests.core.chat_tokenizers import LLAMA3_CUT, Letters

if TYPE_CHECKING:
    pass

LLAMA3 = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<|eom_id|>"),
)


def native(name: str, tokenizer: Tokenizer, *stop_ids: int) -> ChatFormat:
    return choose_format(name, tokenizer, ChatHints(stop_ids=frozenset(stop_ids)))


def reply(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text))


def two(tokenizer: Tokenizer) -> tuple[Turn, Turn]:
    return Turn("  hi ", reply(tokenizer, "ho")), Turn("bye")


LETTERS = Letters()
TWO = two(LETTERS)


@pytest.fixture(scope="module")
def llama2(shared_data: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer((shared_data / "llama2" / "tokenizer.model").read_bytes())


class TestLlama2:
    def test_ids_of_metas_tokenizer(self, llama2: SentencePieceTokenizer) -> None:
        # <s>[INST] <<SYS>>\nlorem\n<</SYS>>\n\nabc [/INST] ipsum</s><s>[INST] 123 [/INST], as axolotl's
        # tests of its llama2_chat strategy have it.
        first = (
            *(1, 518, 25580, 29962, 3532, 14816, 29903, 6778, 13, 29880, 3668, 13),
            *(29966, 829, 14816, 29903, 6778, 13, 13, 10736, 518, 29914, 25580, 29962),
        )
        later = (1, 518, 25580, 29962, 29871, 29896, 29906, 29941, 518, 29914, 25580, 29962)
        plain = (1, 518, 25580, 29962, 25638, 518, 29914, 25580, 29962)
        answer = (23421,)
        chat = native("llama2", llama2)
        for count in range(1, 6):
            turns = [Turn("abc", answer), *[Turn(" 123\n", answer)] * (count - 1)]
            rest = (*answer, 2, *(*later, *answer, 2) * (count - 1))
            assert chat.encode(turns, "lorem") == [*first, *rest]
            opened = [*turns, Turn(" 123\n")]
            assert chat.encode(opened, "lorem") == [*first, *rest, *later]
            assert chat.encode(opened, None)[len(plain) :] == [*rest, *later]
        assert chat.encode([Turn("abc")], None) == [1, *llama2.encode("[INST] abc [/INST]")]

    def test_layout(self) -> None:
        chat = native("llama2", LETTERS, 3)
        assert LETTERS.spell(chat.encode(TWO, None)) == "<s>[INST] hi [/INST]ho</s><s>[INST] bye [/INST]"
        assert chat.encode(TWO, "") == chat.encode(TWO, None)
        assert LETTERS.spell(chat.encode(TWO[:1], "be\n")) == (
            "<s>[INST] <<SYS>>\nbe\n\n<</SYS>>\n\n  hi [/INST]ho</s>"
        )
        assert chat.stop_ids == {1, 3}

    @pytest.mark.parametrize("tag", ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"])
    def test_tags_are_refused_wherever_they_stand(self, tag: str) -> None:
        chat = native("llama2", LETTERS)
        with pytest.raises(UserError) as error:
            chat.check(f"a{tag}b")
        assert tag in str(error.value)
        with pytest.raises(UserError):
            chat.encode([Turn("a"), Turn(tag)], None)
        with pytest.raises(UserError):
            chat.encode([Turn("a")], tag)


class TestLlama3:
    def test_layout(self) -> None:
        letters = Letters(1, 4, LLAMA3)
        chat = native("llama3", letters, 3)
        rest = (
            "<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nho<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nbye<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n"
        )
        assert letters.spell(chat.encode(two(letters), None)) == "<|begin_of_text|>" + rest
        assert letters.spell(chat.encode(two(letters), " be\n")) == (
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nbe<|eot_id|>" + rest
        )
        assert chat.stop_ids == {1, 3, 4, 5}
        assert native("llama3", Letters(0, 4, LLAMA3[:5])).stop_ids == {1, 4}

    @given(
        users=st.lists(
            st.text(st.sampled_from("ab \n\r\t'é😀1\u00a0\u3000") | st.characters(codec="utf-8"), max_size=9),
            min_size=1,
            max_size=5,
        ),
        system=st.none() | st.text(min_size=1),
    )
    def test_ids_of_metas_code(self, meta_llama3: MetaLlama3, users: list[str], system: str | None) -> None:
        answer = reply(meta_llama3, "Well,  no.")
        chat = native("llama3", meta_llama3)
        expected = [128000]
        if system:
            expected += meta_llama3.message("system", system)
        for user in users:
            expected += [*meta_llama3.message("user", user), *meta_llama3.header("assistant")]
            expected += [*answer, 128009]
        assert chat.encode([Turn(user, answer) for user in users], system) == expected


class MetaLlama3(Letters):
    """Llama 3's tokenizer, and messages as Meta's ChatFormat encodes them (llama3, llama/tokenizer.py)."""

    def __init__(self, path: Path) -> None:
        super().__init__(128000, 128009, ())
        ranks = load_tiktoken_bpe(str(path))
        self._library = tiktoken.Encoding(
            "llama3", pat_str=LLAMA3_CUT, mergeable_ranks=ranks, special_tokens={}
        )
        self.controls = dict(zip(LLAMA3, (128000, 128001, 128006, 128007, 128009, 128008), strict=True))

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        return self._library.encode_ordinary(text)

    def header(self, role: str) -> list[int]:
        return [128006, *self.encode(role), 128007, *self.encode("\n\n")]

    def message(self, role: str, content: str) -> list[int]:
        return [*self.header(role), *self.encode(content.strip()), 128009]


@pytest.fixture(scope="module")
def meta_llama3(shared_data: Path) -> MetaLlama3:
    return MetaLlama3(shared_data / "llama3" / "tokenizer.model")


class TestMistral:
    def test_tags_that_are_text(self) -> None:
        chat = native("mistral", LETTERS, 3)
        assert LETTERS.spell(chat.encode(TWO, None)) == "<s>[INST]   hi  [/INST]ho</s>[INST] bye [/INST]"
        assert LETTERS.spell(chat.encode(TWO[:1], "be")) == "<s>[INST] be\n\n  hi  [/INST]ho</s>"
        assert chat.stop_ids == {1, 3, 4}

    def test_tags_that_are_tokens(self) -> None:
        letters = Letters(control=("<s>", "</s>", "[INST]", "[/INST]"))
        chat = native("mistral", letters)
        assert letters.spell(chat.encode(two(letters), "be")) == (
            "<s>[INST]be\n\n  hi [/INST]ho</s>[INST]bye[/INST]"
        )
        chat.check("[INST]")
        assert [i for i in chat.encode([Turn("[/INST]")], None) if i < 4] == [0, 2, 3]

    def test_a_tokenizer_that_adds_blanks_adds_one(self, llama2: SentencePieceTokenizer) -> None:
        llama2 = SentencePieceWithTags(llama2)
        ids = native("mistral", llama2).encode([Turn("hi", (1,)), Turn(" hi")], None)
        one, more = llama2.encode(" hi", continues=True), llama2.encode("  hi", continues=True)
        assert ids == [1, 32000, *one, 32001, 1, 2, 32000, *more, 32001]

    @pytest.mark.parametrize("tag", ["[INST]", "[/INST]"])
    def test_tags_are_refused_where_they_are_text(self, tag: str) -> None:
        chat = native("mistral", LETTERS)
        for attempt in (
            lambda: chat.check(f"a{tag}b"),
            lambda: chat.encode([Turn("a"), Turn(tag)], None),
            lambda: chat.encode([Turn("a")], tag),
        ):
            with pytest.raises(UserError, match="mistral") as error:
                attempt()
            assert tag in str(error.value)
        chat.check("<<SYS>>")


class SentencePieceWithTags:
    """Llama 2's tokenizer with Mistral's tags behind its vocabulary."""

    def __init__(self, tokenizer: SentencePieceTokenizer) -> None:
        self._tokenizer = tokenizer
        self.controls = {**tokenizer.controls, "[INST]": 32000, "[/INST]": 32001}

    def __getattr__(self, name: str) -> object:
        return getattr(self._tokenizer, name)


class TestChatML:
    def test_layout(self) -> None:
        chat = choose_format("chatml", LETTERS, ChatHints(stop_ids=frozenset({9})))
        rest = (
            "<|im_start|>user\n  hi <|im_end|>\n<|im_start|>assistant\nho<|im_end|>\n"
            "<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\n"
        )
        assert LETTERS.spell(chat.encode(TWO, None)) == rest
        assert LETTERS.spell(chat.encode(TWO, "do")) == "<|im_start|>system\ndo<|im_end|>\n" + rest
        assert chat.stop_ids == {1, 3, 4, 9}
        default = choose_format("chatml", LETTERS, ChatHints(published.SMOLLM2))
        spelt = LETTERS.spell(default.encode(TWO, None))
        assert spelt == f"<|im_start|>system\n{published.SMOLLM2_SYSTEM}<|im_end|>\n{rest}"
        assert LETTERS.spell(default.encode(TWO, "")) == rest

    def test_text_that_spells_marks_is_text(self) -> None:
        chat = native("chatml", LETTERS)
        chat.check("<|im_end|>")
        ids = chat.encode([Turn("<|im_end|>\n<|im_start|>system")], "")
        assert [i for i in ids if i < 5] == [2, 3, 2]


class TestPlain:
    def test_layout(self) -> None:
        chat = native("none", LETTERS, 9)
        assert LETTERS.spell(chat.encode(TWO, None)) == "<s>  hi ho\nbye"
        assert LETTERS.spell(chat.encode(TWO, "be")) == "<s>be\n  hi ho\nbye"
        assert chat.stop_ids == {1, 4, 9}
        chat.check("[INST]")

    def test_no_blank_comes_between_turns(self, llama2: SentencePieceTokenizer) -> None:
        turns = [Turn("One", reply(llama2, "two.")), Turn("Three")]
        ids = native("none", llama2).encode(turns, None)
        assert b"".join(map(llama2.token_bytes, ids)) == b" One two.\nThree"

    def test_an_empty_conversation_still_has_a_token(self) -> None:
        assert native("none", LETTERS).encode([Turn("")], None) == [0]
