"""What all chat formats promise, the demo model's among them, and prompts without any."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.text.dialogue import ChatFormat, ChatHints, Turn, choose_format, raw_prompt
from core.text.spm import SentencePieceTokenizer
from core.text.tokenizer import Tokenizer
from tests.core.chat_tokenizers import Letters

if TYPE_CHECKING:
    from core.checkpoint.gguf import GGUFCheckpoint
    from core.text.bpe import ByteLevelBPE

LETTERS = Letters()
EVERY = Letters(
    control=(*Letters.CONTROL, "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
)


def native(name: str, tokenizer: Tokenizer, *stop_ids: int) -> ChatFormat:
    return choose_format(name, tokenizer, ChatHints(stop_ids=frozenset(stop_ids)))


@pytest.fixture(scope="module")
def llama2(shared_data: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer((shared_data / "llama2" / "tokenizer.model").read_bytes())


@pytest.mark.parametrize(
    ("name", "tokenizer"),
    [
        ("llama2", Letters(bos_id=None)),
        ("llama3", LETTERS),
        ("mistral", Letters(eos_id=None)),
        ("chatml", Letters(control=("<s>", "</s>"))),
    ],
)
def test_what_a_format_needs_is_named(name: str, tokenizer: Letters) -> None:
    with pytest.raises(UserError, match=f"--chat-format {name}: this tokenizer has no"):
        native(name, tokenizer)


@pytest.mark.parametrize("name", ["llama2", "llama3", "mistral", "chatml", "none"])
class TestEveryFormat:
    TEXTS = st.text(st.sampled_from("ab é\n "), max_size=6)
    REPLIES = st.lists(st.integers(20, 260), max_size=4).map(tuple)
    FINISHED = st.lists(st.builds(Turn, TEXTS, REPLIES), min_size=1, max_size=4)

    @given(turns=FINISHED, more=TEXTS, system=st.none() | TEXTS)
    def test_a_prompt_begins_with_the_one_before_and_its_reply(
        self, name: str, turns: list[Turn], more: str, system: str | None
    ) -> None:
        chat = native(name, EVERY)
        *earlier, last = turns
        assert last.reply is not None
        before = chat.encode([*earlier, Turn(last.user)], system) + list(last.reply)
        after = chat.encode([*turns, Turn(more)], system)
        assert after[: len(before)] == before
        finished = chat.encode(turns, system)
        assert after[: len(finished)] == finished

    @given(turns=FINISHED)
    def test_a_stop_id_in_a_reply_makes_no_difference(self, name: str, turns: list[Turn]) -> None:
        chat = native(name, EVERY, 15)
        assert 15 in chat.stop_ids
        for stop in chat.stop_ids:
            marked = [Turn(turn.user, (*(turn.reply or ()), stop)) for turn in turns]
            assert chat.encode(marked, None) == chat.encode(turns, None)


@pytest.mark.parametrize("name", ["llama2", "mistral", "none"])
def test_the_next_prompt_begins_with_this_one_also_in_sentencepiece(
    name: str, llama2: SentencePieceTokenizer
) -> None:
    chat = native(name, llama2)
    four = (29871, 29946)
    before = [*chat.encode([Turn("What is\n2+2?")], "Be kind."), *four]
    after = chat.encode([Turn("What is\n2+2?", four), Turn("And 3+3?")], "Be kind.")
    assert after[: len(before)] == before


@pytest.fixture(scope="module")
def demo_chat(demo_checkpoint: GGUFCheckpoint, demo_tokenizer: ByteLevelBPE) -> ChatFormat:
    return choose_format(None, demo_tokenizer, demo_checkpoint.chat())


class TestDemo:
    """The demo model's own format and vocabulary, against its template rendered and encoded whole."""

    def test_ids_that_transformers_gives(self, demo_chat: ChatFormat) -> None:
        assert demo_chat.name == "chatml"
        system = (
            *(1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308),
            *(34519, 28, 7018, 411, 407, 19712, 8182, 2, 198),
        )
        french = "Quelle est la capitale de la France ? Réponds en une phrase."
        assert demo_chat.encode([Turn("hello world")], None) == [
            *system, 1, 4093, 198, 28120, 905, 2, 198, 1, 520, 9531, 198,
        ]  # fmt: skip
        assert demo_chat.encode([Turn(french)], None) == [
            *(*system, 1, 4093, 198, 65, 2726, 290, 1264, 2618, 47765, 1121, 367, 2618, 4649, 9148, 428),
            *(2756, 96, 19870, 430, 16520, 8715, 30, 2, 198, 1, 520, 9531, 198),
        ]
        assert demo_chat.stop_ids == {0, 2}

    @given(
        texts=st.lists(
            st.text(st.sampled_from("aé 1\n<|>😀") | st.characters(codec="utf-8"), max_size=9), max_size=5
        )
    )
    def test_ids_of_the_rendered_template(
        self,
        demo_chat: ChatFormat,
        demo_tokenizer: ByteLevelBPE,
        demo_library: tokenizers.Tokenizer,
        texts: list[str],
    ) -> None:
        texts = [text.replace(">", "") for text in texts]  # a template cannot quote its own marks
        rendered = "<|im_start|>system\nbe<|im_end|>\n"
        for text in texts:
            rendered += f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n9<|im_end|>\n"
        nine = tuple(demo_tokenizer.encode("9"))
        turns = [Turn(text, nine) for text in texts]
        assert demo_chat.encode(turns, "be") == demo_library.encode(rendered).ids


def test_raw_prompt() -> None:
    text = LETTERS.encode("hi")
    assert raw_prompt(LETTERS, "hi") == [0, *text]
    assert raw_prompt(LETTERS, "") == [0]
    assert raw_prompt(Letters(bos_id=None), "hi") == text
    assert raw_prompt(Letters(bos_id=None), "") == [4]
    assert raw_prompt(Letters(bos_id=None, control=("<s>", "</s>")), "") == [1]
    with pytest.raises(UserError, match="empty"):
        raw_prompt(Letters(bos_id=None, eos_id=None, control=()), "")
