"""The marked message of a transcript: walking, blocks of code, folding, and what that costs."""

from __future__ import annotations

import pytest
from textual.geometry import Region

from tests.tui.test_transcript import painted, running, timed
from tui.markdown import pieces
from tui.markdown.code_blocks import code_blocks
from tui.markdown.document import Document
from tui.markdown.reply import ReplySplitter
from tui.widgets.transcript import Transcript

REPLY = "<think>\nHm.\n</think>\nOne.\n\n- two\n\nThree."


def conversation(transcript: Transcript, count: int = 6, lines: int = 5) -> None:
    """Questions and replies of so many lines, and a note in their middle."""
    for key in range(count):
        text = "\n".join(f"line {key}.{number}" for number in range(lines))
        transcript.add_message(key, "assistant" if key % 2 else "user", text)
        if key == count // 2:
            transcript.add_note("a note")


def marked(lines: list[str]) -> list[str]:
    return [line.split("▌", 1)[1].strip() for line in lines if line.startswith(" ▌")]


class TestWalking:
    async def test_the_last_in_view_comes_first_and_nothing_moves(self) -> None:
        async with running() as (app, transcript, pilot):
            conversation(transcript)
            await pilot.pause()
            before = app.lines
            assert transcript.mark_last_in_view()
            await pilot.pause()
            assert transcript.current == 5
            assert marked(app.lines) == ["line 5.1", "line 5.2", "line 5.3", "line 5.4"]
            assert [line.replace("▌", " ") for line in app.lines] == before
            label = next(iter(transcript.render_line(len(app.lines) - 5)))
            assert (label.text[0], label.style.reverse) == ("l", True)
            assert transcript.following

    async def test_each_message_once_and_notes_not(self) -> None:
        async with running(height=8) as (app, transcript, pilot):
            conversation(transcript)
            await pilot.pause()
            transcript.mark_last_in_view()
            seen = []
            for _ in range(7):
                seen.append(transcript.current)
                await pilot.pause()
                assert marked(app.lines) == [f"line {seen[-1]}.{number}" for number in range(1, 5)]
                transcript.step(-1)
            assert seen == [5, 4, 3, 2, 1, 0, 0]
            assert not transcript.following
            for _ in range(5):
                transcript.step(1)
            assert transcript.current == 5
            assert transcript.following
            transcript.unmark()
            await pilot.pause()
            assert (transcript.current, marked(app.lines)) == (None, [])

    async def test_a_long_message_is_shown_from_its_beginning(self) -> None:
        async with running(height=10) as (app, transcript, pilot):
            conversation(transcript, lines=30)
            await pilot.pause()
            transcript.mark_last_in_view()
            transcript.step(-1)
            await pilot.pause()
            assert app.lines[0] == " you ▸ line 4.0"
            transcript.step(1)
            await pilot.pause()
            assert app.lines[0] == " llama ▸ line 5.0"
            assert not transcript.following
            transcript.step(1)  # further than the last is the end
            await pilot.pause()
            assert app.lines[-1] == " ▌ line 5.29"
            assert transcript.following

    async def test_without_a_message_there_is_nothing_to_mark(self) -> None:
        async with running() as (_, transcript, pilot):
            transcript.add_note("only a note")
            await pilot.pause()
            assert not transcript.mark_last_in_view()
            transcript.step(1)
            transcript.toggle()
            assert transcript.step_code() is None
            assert (transcript.current, transcript.code) == (None, None)

    async def test_a_message_that_is_removed_is_not_marked(self) -> None:
        async with running() as (_, transcript, pilot):
            conversation(transcript)
            await pilot.pause()
            transcript.mark(4)
            transcript.remove_from(3)
            assert transcript.current is None
            await pilot.pause()
            transcript.step(-1)

    async def test_only_rows_whose_mark_changes_are_repainted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with running(height=30) as (_, transcript, pilot):
            conversation(transcript, count=4)
            await pilot.pause()
            transcript.mark(0)
            regions: list[Region] = []
            monkeypatch.setattr(transcript, "refresh", lambda *some, **_: regions.extend(some))
            transcript.mark(1)
            assert [(region.y, region.bottom) for region in regions] == [(0, 11)]

    async def test_the_mark_stays_with_a_message_that_grows(self) -> None:
        async with running() as (app, transcript, pilot):
            transcript.add_message(1, "assistant", streaming=True)
            transcript.append(1, "one\n\n")
            await painted(pilot)
            transcript.mark(1)
            transcript.append(1, "two\n\nthree")
            await painted(pilot)
            assert marked(app.lines) == ["", "two", "", "three"]


CODE = (
    "a\n\n```py\n"
    + "".join(f"\tx{number}\n" for number in range(14))
    + "```\n```\n\n\nb\n```\n> ```\n> q\n> ```\n"
)


class TestCode:
    async def test_blocks_are_walked_over_and_whole(self) -> None:
        async with running(height=12) as (app, transcript, pilot):
            transcript.add_message(1, "assistant", CODE)
            await pilot.pause()
            transcript.mark(1)
            assert transcript.code is None
            assert transcript.step_code() == (1, 2)
            assert transcript.code == "\n".join(f"\tx{number}" for number in range(14))
            await pilot.pause()
            assert marked(app.lines) == [f"x{number}" for number in range(12)]
            assert transcript.step_code() == (2, 2)
            assert transcript.code == "\n\nb"
            assert transcript.step_code() == (1, 2)
            transcript.mark(1)
            assert transcript.code is None

    @pytest.mark.parametrize("cuts", [1, 7, 10_000])
    def test_code_is_put_together_as_it_was_written(self, cuts: int) -> None:
        code = "long " * 2000 + "\n" + "\n".join("x" * (number % 7) for number in range(40)) + "\n  y"
        text = f"a\n```\n{code}\n```\nb\n~~~\nz\n~~~\n"
        document = Document()
        section = document.add(1, ReplySplitter())
        for start in range(0, len(text), cuts):
            section.append(text[start : start + cuts])
            if cuts > 1:
                document.flush(0)
        section.end()
        document.flush(0)
        assert [block.text for block in code_blocks(section)] == [code, "z"]

    async def test_a_folded_message_is_opened_for_its_code(self) -> None:
        async with running() as (app, transcript, pilot):
            transcript.add_message(1, "assistant", "a\n```\nx\n```\n")
            await pilot.pause()
            transcript.mark(1)
            transcript.toggle()
            assert transcript.step_code() == (1, 1)
            await pilot.pause()
            assert app.lines == [" llama ▸ a", " ▌  x"]


class TestFolding:
    async def test_a_folded_message_is_one_line(self) -> None:
        async with running(40) as (app, transcript, pilot):
            conversation(transcript, count=3)
            await pilot.pause()
            whole = app.lines
            transcript.mark(1)
            transcript.toggle()
            await pilot.pause()
            assert app.lines == [
                *whole[:6],
                " llama ▸ ▸ 5 lines · line 1.0 line 1.1…",
                *whole[11:],
            ]
            transcript.toggle()
            transcript.unmark()
            await pilot.pause()
            assert app.lines == whole

    async def test_space_goes_through_what_can_be_folded(self) -> None:
        async with running() as (app, transcript, pilot):
            transcript.add_message(1, "assistant", REPLY)
            await pilot.pause()
            transcript.mark(1)
            seen = []
            for _ in range(4):
                await pilot.pause()
                seen.append([line.replace("▌", " ") for line in app.lines])
                transcript.toggle()
            brief, full, folded, again = seen
            assert brief[0] == " llama ▸ ▸ thought for 1 line"
            assert full[:2] == [" llama ▸ ▾ thought for 1 line", "   │ Hm."]
            assert full[2:] == brief[1:]
            assert folded == [" llama ▸ ▸ 8 lines · One."]
            assert again == brief

    async def test_what_streams_into_a_folded_message_is_counted(self) -> None:
        async with running() as (app, transcript, pilot):
            transcript.add_message(1, "assistant", streaming=True)
            transcript.append(1, "one\n\ntwo")
            await painted(pilot)
            transcript.mark(1)
            transcript.toggle()
            transcript.append(1, "\n\nthree")
            await painted(pilot)
            assert app.lines == [" llama ▸ ▸ 5 lines · one"]
            transcript.finish(1, "figures")
            await pilot.pause()
            assert app.lines == [" llama ▸ ▸ 5 lines · one"]
            transcript.toggle()
            transcript.unmark()
            await pilot.pause()
            assert app.lines == [" llama ▸ one", "", "   two", "", "   three", "   figures"]

    async def test_what_is_above_stays_where_it_is(self) -> None:
        async with running(height=12) as (app, transcript, pilot):
            conversation(transcript, count=10)
            await pilot.pause()
            transcript.mark(4)
            transcript.unmark()
            await pilot.pause()
            before = app.lines
            transcript.mark(5)
            transcript.toggle()
            await pilot.pause()
            assert app.lines[:6] == before[:6]
            assert "5 lines" in app.lines[6]

    async def test_a_click_on_a_folded_message_opens_it(self) -> None:
        async with running() as (app, transcript, pilot):
            conversation(transcript, count=1)
            await pilot.pause()
            whole = app.lines
            transcript.mark(0)
            transcript.toggle()
            transcript.unmark()
            await pilot.pause()
            await pilot.click(Transcript, offset=(12, 0))
            await pilot.pause()
            assert app.lines == whole

    async def test_folding_wraps_nothing_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with running(100, 40) as (app, transcript, pilot):
            for key in range(300):
                transcript.add_message(key, "assistant", "some words " * 200 + "\n\nmore")
            await pilot.pause()
            transcript.mark(299)
            wrapped: list[str] = []
            lay_out = pieces.lay_out
            monkeypatch.setattr(
                pieces, "lay_out", lambda line, *rest: wrapped.append(line.text) or lay_out(line, *rest)
            )
            costs = []
            for _ in range(10):
                costs.append(timed(transcript.toggle))
                await pilot.pause()
            # The one line for each time it was folded, and what came into view above it.
            own = [text for text in wrapped if text.startswith("▸")]
            assert len(own) == 5
            assert len(wrapped) <= 5 + 2 * 12
            assert sorted(costs)[5] < 0.05
            assert "some words" in app.lines[0]

    async def test_a_resize_while_folded_keeps_it_folded(self) -> None:
        async with running(60) as (app, transcript, pilot):
            transcript.add_message(1, "assistant", REPLY + " word" * 30)
            await pilot.pause()
            transcript.mark(1)
            transcript.toggle()
            transcript.toggle()
            await pilot.resize_terminal(30, 20)
            await pilot.pause()
            assert app.lines == [" llama ▸ ▸ 8 lines · One."]
            transcript.toggle()
            await pilot.pause()
            assert app.lines[0] == " llama ▸ ▸ thought for 1 line"
            assert app.lines[-1].endswith("word")
