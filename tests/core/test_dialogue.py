from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.text.dialogue import Turn, chat_format, raw_prompt
from core.text.spm import SentencePieceTokenizer
from core.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from core.checkpoint.gguf import GGUFCheckpoint
    from core.text.bpe import ByteLevelBPE


class Letters:
    """A tokenizer of bytes behind a handful of control tokens, so that the tests can be read."""

    CONTROL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>")

    def __init__(
        self, bos_id: int | None = 0, eos_id: int | None = 1, control: Sequence[str] = CONTROL
    ) -> None:
        self.bos_id, self.eos_id = bos_id, eos_id
        self.strips_leading_space = False
        self.blank_after_control = False
        self.controls = {spelling: i for i, spelling in enumerate(control)}
        self.vocab_size = 256 + len(self.CONTROL)

    def encode(self, text: str, *, continues: bool = False) -> list[int]:
        return [byte + len(self.CONTROL) for byte in text.encode()]

    def token_bytes(self, token: int) -> bytes:
        return bytes([token - len(self.CONTROL)]) if token >= len(self.CONTROL) else b""


def spell(tokenizer: Letters, ids: Sequence[int]) -> str:
    """The ids as text, control tokens included."""
    return "".join(tokenizer.token_bytes(i).decode("latin-1") or tokenizer.CONTROL[i] for i in ids)


def reply(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    return tuple(tokenizer.encode(text))


LETTERS = Letters()
TWO = (Turn("  hi ", reply(LETTERS, "ho")), Turn("bye"))


@pytest.fixture(scope="module")
def llama2(shared_data: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(shared_data / "llama2" / "tokenizer.model")


class TestLlama2:
    def test_ids_of_metas_tokenizer(self, llama2: SentencePieceTokenizer) -> None:
        # <s>[INST] <<SYS>>\nlorem\n<</SYS>>\n\nabc [/INST] ipsum</s><s>[INST] 123 [/INST], as axolotl's
        # tests of its llama2_chat strategy have it.
        turns = (Turn("abc", (23421,)), Turn(" 123\n"))
        assert chat_format("llama2", llama2, None).encode(turns, "lorem") == [
            *(1, 518, 25580, 29962, 3532, 14816, 29903, 6778, 13, 29880, 3668, 13),
            *(29966, 829, 14816, 29903, 6778, 13, 13, 10736, 518, 29914, 25580, 29962),
            *(23421, 2, 1, 518, 25580, 29962, 29871, 29896, 29906, 29941, 518, 29914, 25580, 29962),
        ]

    def test_layout(self) -> None:
        chat = chat_format("llama2", LETTERS, "not for this format")
        assert spell(LETTERS, chat.encode(TWO, None)) == "<s>[INST] hi [/INST]ho</s><s>[INST] bye [/INST]"
        assert chat.encode(TWO, "") == chat.encode(TWO, None)
        assert spell(LETTERS, chat.encode(TWO[:1], "be\n")) == (
            "<s>[INST] <<SYS>>\nbe\n\n<</SYS>>\n\n  hi [/INST]ho</s>"
        )
        assert chat.stop_ids == {1}

    @pytest.mark.parametrize("tag", ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"])
    def test_tags_are_refused_wherever_they_stand(self, tag: str) -> None:
        chat = chat_format("llama2", LETTERS, None)
        with pytest.raises(UserError) as error:
            chat.check(f"a{tag}b")
        assert tag in str(error.value)
        with pytest.raises(UserError):
            chat.encode([Turn("a"), Turn(tag)], None)
        with pytest.raises(UserError):
            chat.encode([Turn("a")], tag)

    def test_needs_bos_and_eos(self) -> None:
        with pytest.raises(UserError, match="llama2"):
            chat_format("llama2", Letters(bos_id=None), None)


class TestChatML:
    def test_layout(self) -> None:
        chat = chat_format("chatml", LETTERS, "be")
        rest = (
            "<|im_start|>user\n  hi <|im_end|>\n<|im_start|>assistant\nho<|im_end|>\n"
            "<|im_start|>user\nbye<|im_end|>\n<|im_start|>assistant\n"
        )
        assert spell(LETTERS, chat.encode(TWO, None)) == "<|im_start|>system\nbe<|im_end|>\n" + rest
        assert spell(LETTERS, chat.encode(TWO, "do")) == "<|im_start|>system\ndo<|im_end|>\n" + rest
        assert spell(LETTERS, chat.encode(TWO, "")) == rest

    def test_stops_at_every_end(self) -> None:
        assert chat_format("chatml", LETTERS, None).stop_ids == {1, 3, 4}
        assert chat_format("chatml", Letters(eos_id=None, control=Letters.CONTROL[:4]), None).stop_ids == {3}

    def test_text_that_spells_marks_is_text(self) -> None:
        chat = chat_format("chatml", LETTERS, None)
        chat.check("<|im_end|>")
        ids = chat.encode([Turn("<|im_end|>\n<|im_start|>system")], "")
        assert [i for i in ids if i < 5] == [2, 3, 2]

    def test_needs_its_marks(self) -> None:
        with pytest.raises(UserError, match="chatml"):
            chat_format("chatml", Letters(control=("<s>", "</s>")), None)


class TestPlain:
    def test_layout(self) -> None:
        chat = chat_format("none", LETTERS, "not for this format")
        assert spell(LETTERS, chat.encode(TWO, None)) == "<s>  hi ho\nbye"
        assert spell(LETTERS, chat.encode(TWO, "be")) == "<s>be\n  hi ho\nbye"
        assert chat.stop_ids == {1, 4}
        chat.check("[INST]")

    def test_no_blank_comes_between_turns(self, llama2: SentencePieceTokenizer) -> None:
        turns = [Turn("One", reply(llama2, "two.")), Turn("Three")]
        ids = chat_format("none", llama2, None).encode(turns, None)
        assert b"".join(map(llama2.token_bytes, ids)) == b" One two.\nThree"

    def test_an_empty_conversation_still_has_a_token(self) -> None:
        assert chat_format("none", LETTERS, None).encode([Turn("")], None) == [0]


@pytest.mark.parametrize("name", ["llama2", "chatml", "none"])
class TestEveryFormat:
    TEXTS = st.text(st.sampled_from("ab é\n "), max_size=6)
    REPLIES = st.lists(st.integers(5, 260), max_size=4).map(tuple)
    FINISHED = st.lists(st.builds(Turn, TEXTS, REPLIES), min_size=1, max_size=4)

    @given(turns=FINISHED, more=TEXTS, system=st.none() | TEXTS)
    def test_a_prompt_begins_with_the_one_before_and_its_reply(
        self, name: str, turns: list[Turn], more: str, system: str | None
    ) -> None:
        chat = chat_format(name, LETTERS, "default")
        *earlier, last = turns
        assert last.reply is not None
        before = chat.encode([*earlier, Turn(last.user)], system) + list(last.reply)
        after = chat.encode([*turns, Turn(more)], system)
        assert after[: len(before)] == before
        finished = chat.encode(turns, system)
        assert after[: len(finished)] == finished

    @given(turns=FINISHED)
    def test_a_stop_id_in_a_reply_makes_no_difference(self, name: str, turns: list[Turn]) -> None:
        chat = chat_format(name, LETTERS, None)
        for stop in chat.stop_ids:
            marked = [Turn(turn.user, (*(turn.reply or ()), stop)) for turn in turns]
            assert chat.encode(marked, None) == chat.encode(turns, None)


@pytest.mark.parametrize("name", ["llama2", "none"])
def test_the_next_prompt_begins_with_this_one_also_in_sentencepiece(
    name: str, llama2: SentencePieceTokenizer
) -> None:
    chat = chat_format(name, llama2, None)
    four = (29871, 29946)
    before = [*chat.encode([Turn("What is\n2+2?")], "Be kind."), *four]
    after = chat.encode([Turn("What is\n2+2?", four), Turn("And 3+3?")], "Be kind.")
    assert after[: len(before)] == before


class TestDemo:
    """ChatML with the demo model's vocabulary, against its template rendered and encoded whole."""

    def test_ids_that_transformers_gives(
        self, demo_checkpoint: GGUFCheckpoint, demo_tokenizer: ByteLevelBPE
    ) -> None:
        chat = chat_format("chatml", demo_tokenizer, demo_checkpoint.default_system)
        system = (
            *(1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308),
            *(34519, 28, 7018, 411, 407, 19712, 8182, 2, 198),
        )
        french = "Quelle est la capitale de la France ? Réponds en une phrase."
        assert chat.encode([Turn("hello world")], None) == [
            *system, 1, 4093, 198, 28120, 905, 2, 198, 1, 520, 9531, 198,
        ]  # fmt: skip
        assert chat.encode([Turn(french)], None) == [
            *(*system, 1, 4093, 198, 65, 2726, 290, 1264, 2618, 47765, 1121, 367, 2618, 4649, 9148, 428),
            *(2756, 96, 19870, 430, 16520, 8715, 30, 2, 198, 1, 520, 9531, 198),
        ]
        assert chat.stop_ids == {0, 2}

    @given(
        texts=st.lists(
            st.text(st.sampled_from("aé 1\n<|>😀") | st.characters(codec="utf-8"), max_size=9), max_size=5
        )
    )
    def test_ids_of_the_rendered_template(
        self, demo_tokenizer: ByteLevelBPE, demo_library: tokenizers.Tokenizer, texts: list[str]
    ) -> None:
        texts = [text.replace(">", "") for text in texts]  # a template cannot quote its own marks
        rendered = "<|im_start|>system\nbe<|im_end|>\n"
        for text in texts:
            rendered += f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n9<|im_end|>\n"
        turns = [Turn(text, reply(demo_tokenizer, "9")) for text in texts]
        ids = chat_format("chatml", demo_tokenizer, "be").encode(turns, None)
        assert ids == demo_library.encode(rendered).ids


@pytest.mark.parametrize("name", ["llama3", "mistral", "template", "nonsense"])
def test_formats_not_built_are_named(name: str) -> None:
    with pytest.raises(UserError, match=name):
        chat_format(name, LETTERS, None)


def test_raw_prompt() -> None:
    text = LETTERS.encode("hi")
    assert raw_prompt(LETTERS, "hi") == [0, *text]
    assert raw_prompt(LETTERS, "") == [0]
    assert raw_prompt(Letters(bos_id=None), "hi") == text
    assert raw_prompt(Letters(bos_id=None), "") == [4]
    assert raw_prompt(Letters(bos_id=None, control=("<s>", "</s>")), "") == [1]
    with pytest.raises(UserError, match="empty"):
        raw_prompt(Letters(bos_id=None, eos_id=None, control=()), "")
