"""Finding words: compared with a naive search in the text, and with what the screen shows."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tui.test_transcript import Host, painted, running
from tui.markdown.document import Document
from tui.markdown.reply import ReplySplitter
from tui.markdown.search import Words, locate
from tui.widgets.transcript import Transcript


def naive(text: str, words: str) -> list[int]:
    """Where `words` stand in `text`, letter by letter."""
    exact = any(letter != letter.lower() and len(letter.lower()) == 1 for letter in words)

    def same(a: str, b: str) -> bool:
        return a == b or (not exact and len(a.lower()) == 1 and a.lower() == b)

    found, at = [], 0
    while words and at + len(words) <= len(text):
        if all(same(*pair) for pair in zip(text[at : at + len(words)], words, strict=True)):
            found.append(at)
            at += len(words)
        else:
            at += 1
    return found


ALPHABET = "aAbB.*[\\ \nẞßéÉİıж漢"


@given(st.text(alphabet=ALPHABET, max_size=60), st.text(alphabet=ALPHABET, max_size=3))
@settings(max_examples=400, deadline=None)
def test_words_are_found_as_a_naive_search_finds_them(text: str, words: str) -> None:
    assert Words(words).find(text) == naive(text, words)
    assert Words(words).count(text) == len(naive(text, words))


@pytest.mark.parametrize(
    ("words", "found"),
    [("fox", [0, 4, 8]), ("Fox", [4]), ("FOX", [8]), ("f.x", []), ("x f", [2, 6]), ("", []), ("xx", [])],
)
def test_a_capital_makes_the_case_count_and_nothing_is_a_pattern(words: str, found: list[int]) -> None:
    assert Words(words).find("fox Fox FOX") == found


LONG = """# Heading with needle

A paragraph of **needle** words, `needle` and more needle,
in two lines with a needle.

- one needle
  - two needle needle
1. three

> quoted needle

| a | needle |
|---|--------|
| needle | b |

```python
needle = "needle"
```
""" + "x " * 4000 + "needle\n" + "".join(f"line {number} needle\n" for number in range(60))  # fmt: skip


@pytest.mark.parametrize("text", [LONG, f"<think>\n{LONG}</think>\n{LONG}"])
def test_every_find_has_its_place_on_screen(text: str) -> None:
    words, document = Words("needle"), Document()
    section = document.add(1, ReplySplitter())
    section.append(text)
    section.end()
    places = [locate(section, document.frame, words, offset) for offset in words.find(text)]
    drawn = [
        (index, number, at, len("needle"))
        for index, piece in enumerate(section.pieces)
        for number, line in enumerate(piece.lines(document.frame))
        for at in naive(line.text, "needle")
    ]
    assert places == drawn


def test_a_find_in_marks_of_markdown_has_its_piece() -> None:
    words, document = Words("**"), Document()
    section = document.add(1, ReplySplitter())
    section.append("one\n\ntwo **three**\n\nfour")
    section.end()
    places = [locate(section, document.frame, words, offset) for offset in words.find(section.text)]
    assert places == [(1, 0, 0, 0), (1, 0, 0, 0)]


def highlighted(app: Host, transcript: Transcript) -> list[tuple[str, bool]]:
    """What is drawn as found, from top to bottom, and whether it is the find that is shown."""
    here = transcript.get_component_rich_style("transcript--found").bgcolor
    now = transcript.get_component_rich_style("transcript--found-now").bgcolor
    return [
        (segment.text, segment.style.bgcolor == now)
        for y in range(len(app.lines))
        for segment in transcript.render_line(y)
        if segment.style.bgcolor in (here, now)
    ]


async def test_finds_are_marked_and_walked_over_in_a_circle() -> None:
    async with running() as (app, transcript, pilot):
        transcript.add_message(1, "user", "a fox, a Fox")
        transcript.add_message(2, "assistant", "No **fox** here: `foxes` [fox](fox.org)", footer="fox · stop")
        transcript.add_note("fox")
        await pilot.pause()
        assert transcript.find("fox") == (1, 6)
        assert highlighted(app, transcript) == [
            ("fox", True), ("Fox", False), ("fox", False), ("fox", False), ("fox", False), ("fox", False)
        ]  # fmt: skip
        assert transcript.step_find(1) == (2, 6)
        assert [now for _, now in highlighted(app, transcript)] == [False, True, *(False,) * 4]
        assert transcript.step_find(-2) == (6, 6)
        assert transcript.found_in == 2
        assert transcript.step_find(1) == (1, 6)
        assert transcript.find("Fox") == (1, 1)
        assert highlighted(app, transcript) == [("Fox", True)]
        assert transcript.find("nowhere") == (0, 0)
        assert transcript.step_find(1) == (0, 0)
        transcript.end_find(back=True)
        assert highlighted(app, transcript) == []


async def test_a_find_that_is_wrapped_is_marked_on_both_rows() -> None:
    async with running(20) as (app, transcript, pilot):
        transcript.add_message(1, "user", "aaaa bbbb cccc dddd eeee ffff")
        await pilot.pause()
        assert transcript.find("cccc dd") == (1, 1)
        assert [text.strip() for text, _ in highlighted(app, transcript)] in (["cccc", "dd"], ["cccc dd"])
        assert "".join(text for text, _ in highlighted(app, transcript)).replace(" ", "") == "ccccdd"


async def test_it_begins_where_one_is_and_goes_back_there() -> None:
    async with running(height=10) as (app, transcript, pilot):
        for key in range(60):
            transcript.add_message(key, "assistant", f"message {key}\n\nneedle {key}")
        await pilot.pause()
        transcript.mark(30)
        transcript.unmark()
        await pilot.pause()
        before = app.lines
        assert transcript.find("needle") == (31, 60)
        assert app.lines == before  # it is in view
        assert transcript.find("needle 5") == (2, 11)  # 5, 50, 51 ...: the first from here on
        await pilot.pause()
        assert any("needle 50" in line for line in app.lines)
        assert transcript.find("needle 2") == (11, 11)  # none from here on: the nearest above
        transcript.end_find(back=True)
        await pilot.pause()
        assert app.lines == before
        transcript.follow()
        transcript.find("message 3")
        assert not transcript.following
        transcript.end_find(back=True)
        assert transcript.following
        transcript.find("message 3")
        transcript.end_find(back=False)
        assert not transcript.following


async def test_what_is_folded_is_opened_for_its_finds_only() -> None:
    async with running() as (app, transcript, pilot):
        transcript.add_message(1, "assistant", "<think>\nneedle one\n</think>\nanswer\n\nneedle two")
        transcript.add_message(2, "user", "first\nneedle three")
        await pilot.pause()
        for key in (1, 2):
            transcript.mark(key)
            transcript.toggle()
            if key == 1:
                transcript.toggle()
        transcript.unmark()
        await pilot.pause()
        before = app.lines
        assert "needle one" not in "".join(before)
        assert transcript.find("needle") == (1, 3)
        await pilot.pause()
        assert "   │ needle one" in app.lines
        transcript.step_find(1)
        await pilot.pause()
        assert "   needle two" in app.lines
        assert "   │ needle one" not in app.lines
        transcript.step_find(1)
        await pilot.pause()
        assert "   needle three" in app.lines
        transcript.end_find(back=True)
        await pilot.pause()
        assert app.lines == before


async def test_text_that_came_since_is_found() -> None:
    async with running() as (_, transcript, pilot):
        transcript.add_message(1, "assistant", streaming=True)
        transcript.append(1, "needle\n\n")
        await painted(pilot)
        assert transcript.find("needle") == (1, 1)
        transcript.append(1, "needle")
        assert transcript.step_find(1) == (2, 2)
        transcript.remove_from(1)
        assert transcript.step_find(1) == (0, 0)
        transcript.end_find(back=True)


@pytest.mark.alone
async def test_a_thousand_messages_are_searched_in_a_moment() -> None:
    rng = random.Random(3)
    common = ["the", "fox", "hunts", "alone", "because", "prey", "is", "small", "Needle", "élan"]
    text = [" ".join(rng.choices(common, k=300)) + "\n\n- item\n\n```\nx = 1\n```\n" for _ in range(1000)]
    async with running(120, 40) as (_, transcript, pilot):
        for key, said in enumerate(text):
            transcript.add_message(key, "assistant" if key % 2 else "user", said)
        await pilot.pause(0.3)
        costs = []
        for words in ("needle", "e", "fox hunts", "nowhere"):
            start = time.perf_counter()
            found = transcript.find(words)
            costs.append(time.perf_counter() - start)
            assert found.total == sum(len(naive_count(said, words)) for said in text)
            start = time.perf_counter()
            transcript.step_find(-1)
            costs.append(time.perf_counter() - start)
        assert sorted(costs)[len(costs) // 2] < 0.1
        assert max(costs) < 0.3  # 0.1 on a machine of its own


def naive_count(text: str, words: str) -> list[str]:
    return text.lower().split(words)[1:]
