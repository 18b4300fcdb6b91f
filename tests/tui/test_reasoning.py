"""Reasoning before an answer: parted from it wherever the stream is cut, folded once it is over."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tui.test_transcript import painted, running
from tui.markdown.reasoning import NAMES, ReasoningParser
from tui.markdown.reply import ReplySplitter
from tui.widgets.transcript import Transcript


def parted(text: str, cuts: tuple[int, ...] = ()) -> tuple[str, str, int, bool]:
    """Reasoning, answer, lines of the reasoning and whether it is over, when the text comes in pieces."""
    parser, parts = ReasoningParser(), []
    for start, end in pairwise((0, *sorted(cuts), len(text))):
        parts += parser.feed(text[start:end])
    over = parser.over
    parts += parser.close()
    reasoning = "".join(part.text for part in parts if part.reasoning)
    return reasoning, "".join(part.text for part in parts if not part.reasoning), parser.lines, over


CASES = [
    ("<think>a\nb</think>\n\nanswer", ("a\nb", "answer", 2, True)),
    ("\n <thinking>a</thinking>x", ("a", "x", 1, True)),
    ("<reasoning>\n\na\n\nb\n</reasoning>x", ("\n\na\n\nb\n", "x", 3, True)),
    ("<THINK>a</Think>x", ("a", "x", 1, True)),
    ("<think></think>\n\nx", ("", "x", 0, False)),
    ("<think>never closed", ("never closed", "", 1, False)),
    ("<think>a</thi", ("a</thi", "", 1, False)),
    ("<think>a<think>b</think>c</think>x", ("a<think>b</think>c", "x", 1, True)),
    ("<think>a<reasoning>b</think>x", ("a<reasoning>b", "x", 1, True)),
    ("<think>a</reasoning>b</think>x", ("a</reasoning>b", "x", 1, True)),
    ("<think>a</think> <think>b</think>x", ("a\n\nb", "x", 3, True)),
    ("<think>a</think>x <think>b</think>", ("a", "x <think>b</think>", 1, True)),
    ("a <think>b</think>", ("", "a <think>b</think>", 0, False)),
    ("`<think>` is a tag", ("", "`<think>` is a tag", 0, False)),
    ("```\n<think>\n</think>\n```", ("", "```\n<think>\n</think>\n```", 0, False)),
    ("</think>x", ("", "</think>x", 0, False)),
    ("<thinker>x</thinker>", ("", "<thinker>x</thinker>", 0, False)),
    ("<think >x", ("", "<think >x", 0, False)),
    ("<thin", ("", "<thin", 0, False)),
    ("  \n", ("", "  \n", 0, False)),
    ("<think>see `</think>` there\n</think>x", ("see `</think>` there\n", "x", 1, True)),
    ("<think>\n```\n</think>\n```\nb</think>x", ("\n```\n</think>\n```\nb", "x", 4, True)),
    ("<think>\n~~~~\n</think>\n~~~\n~~~~</think>x", ("\n~~~~\n</think>\n~~~\n~~~~", "x", 4, True)),
    ("<think>List<int> a<b</think>x", ("List<int> a<b", "x", 1, True)),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_reasoning_is_parted_from_the_answer_wherever_it_is_cut(
    text: str, expected: tuple[str, str, int, bool]
) -> None:
    assert parted(text) == expected
    for cuts in combinations(range(len(text) + 1), 2):
        assert parted(text, cuts) == expected, cuts
    assert parted(text, tuple(range(1, len(text)))) == expected


PIECES = st.sampled_from(
    [*(f"<{slash}{name}>" for name in NAMES for slash in ("", "/")), "<", "`", "```", "\n", " ", "a", "</th"]
)


@given(st.lists(PIECES, max_size=14).map("".join), st.lists(st.integers(0, 90), max_size=5))
@settings(max_examples=200, deadline=None)
def test_nothing_is_lost_and_cuts_make_no_difference(text: str, cuts: list[int]) -> None:
    whole = parted(text)
    assert parted(text, tuple(min(cut, len(text)) for cut in cuts)) == whole
    reasoning, answer, lines, _ = whole
    assert answer == "" or text.endswith(answer)
    # Only tags at the edges of the reasoning, and blanks around them, are left out.
    rest = text.removesuffix(answer)
    for part in reasoning.split("\n\n"):
        assert part.strip() in rest
    assert lines == (len(reasoning.strip().split("\n")) if reasoning.strip() else 0)
    if not text.lstrip().lower().startswith(tuple(f"<{name}>" for name in NAMES)):
        assert (reasoning, answer) == ("", text)


@given(
    st.text(alphabet="ab \n-*`>#1.", max_size=120),
    st.text(alphabet="ab \n-*`>#1.", max_size=120),
    st.lists(st.integers(0, 260), max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_blocks_do_not_depend_on_cuts(thought: str, answer: str, cuts: list[int]) -> None:
    text = f"<think>{thought}</think>{answer}"

    def blocks(edges: list[int]) -> list[object]:
        splitter, found = ReplySplitter(), []
        for start, end in pairwise(edges):
            found += splitter.feed(text[start:end])
        return found + splitter.close()

    assert blocks([0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]) == blocks([0, len(text)])


REPLY = "<think>\nFoxes hunt *alone*.\n\n- mice\n- voles\n</think>\n\nBecause prey is **small**.\n"
FOLDED = [" llama ▸ ▸ thought for 4 lines", "", "   Because prey is small."]
OPEN = [
    " llama ▸ ▾ thought for 4 lines",
    "   │ Foxes hunt alone.",
    "",
    "   │ • mice",
    "   │ • voles",
    "",
    "   Because prey is small.",
]


async def test_it_is_open_while_it_streams_and_folded_when_it_is_over() -> None:
    async with running() as (app, transcript, pilot):
        transcript.add_message(1, "assistant", streaming=True)
        seen = []
        for character in REPLY:
            transcript.append(1, character)
            transcript._settle()
            seen.append(app.lines)
        await painted(pilot)
        assert not any("think>" in line for lines in seen for line in lines)
        transcript.finish(1)
        await pilot.pause()
        assert app.lines == FOLDED
        assert transcript.text_of(1) == REPLY


async def test_what_it_shows_while_it_thinks() -> None:
    async with running() as (app, transcript, pilot):
        transcript.add_message(1, "assistant", streaming=True)
        transcript.append(1, "<thi")
        await painted(pilot)
        assert app.lines == [" llama ▸"]
        transcript.append(1, "nk>one\n")
        await painted(pilot)
        assert app.lines == [" llama ▸ ▾ thinking, 1 line", "   │ one"]
        transcript.append(1, "\ntwo</th")
        await painted(pilot)
        assert app.lines == [" llama ▸ ▾ thinking, 3 lines", "   │ one", "", "   │ two"]
        transcript.finish(1)  # it ran into its limit
        await pilot.pause()
        assert app.lines == [" llama ▸ ▾ thinking, 3 lines", "   │ one", "", "   │ two</th"]


async def test_empty_reasoning_leaves_no_trace() -> None:
    async with running() as (app, transcript, pilot):
        transcript.add_message(1, "assistant", streaming=True)
        for character in "<think>\n\n</think>\n\nanswer\n":
            transcript.append(1, character)
            transcript._settle()
        transcript.finish(1)
        await pilot.pause()
        assert app.lines == [" llama ▸ answer"]


async def test_the_users_tags_are_text() -> None:
    async with running() as (app, transcript, pilot):
        transcript.add_message(1, "user", "<think>a</think>")
        await pilot.pause()
        assert app.lines == [" you ▸ <think>a</think>"]


async def test_a_click_opens_it_and_folds_it_again() -> None:
    async with running() as (app, transcript, pilot):
        transcript.add_message(1, "assistant", REPLY)
        await pilot.pause()
        assert app.lines == FOLDED
        await pilot.click(Transcript, offset=(20, 0))
        await pilot.pause()
        assert app.lines == OPEN
        await pilot.click(Transcript, offset=(20, 1))  # text is no switch
        await pilot.pause()
        assert app.lines == OPEN
        await pilot.click(Transcript, offset=(20, 0))
        await pilot.pause()
        assert app.lines == FOLDED


async def test_it_is_not_folded_under_the_eyes_of_who_scrolled_to_read_it() -> None:
    async with running(height=8) as (app, transcript, pilot):
        transcript.add_message(1, "assistant", streaming=True)
        transcript.append(1, "<think>" + "".join(f"thought {number}\n" for number in range(40)))
        await painted(pilot)
        await pilot.press("pageup")
        before = app.lines
        transcript.append(1, "</think>answer")
        await painted(pilot)
        assert app.lines == before
        await pilot.press("end")
        assert app.lines[-1] == "   answer"


async def test_a_selection_across_it_has_all_of_it() -> None:
    async with running() as (app, transcript, pilot):
        transcript.add_message(1, "user", "why")
        transcript.add_message(2, "assistant", REPLY)
        await pilot.pause()
        await pilot.mouse_down(Transcript, offset=(6, 0))
        await pilot.hover(Transcript, offset=(8, 4))
        await pilot.mouse_up(Transcript, offset=(8, 4))
        assert app.screen.get_selected_text() == ("why\n\nFoxes hunt alone.\n\n- mice\n- voles\n\nBecause")
