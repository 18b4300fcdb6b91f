"""The transcript on a screen: what it shows, where its view is, what it costs."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from textual import events
from textual.app import App, ComposeResult
from textual.color import Color
from textual.geometry import Offset
from textual.pilot import Pilot
from textual.selection import SELECT_ALL, Selection

import styles
from tui.markdown.pacer import Pacer
from tui.widgets.transcript import Transcript

HOSTILE = [
    "a <think> List<int> a <b>bold</b>",
    "[/x] [bold]x[/] [@click=app.quit]quit[/] [red",
    r"\(a_1\) \[b\] \frac{x}{y}",
    "&lt;x&gt; $HOME %s {0} {{x}}",
]


class Host(App[None]):
    CSS_PATH = Path(styles.__path__[0]) / "transcript.tcss"

    def __init__(self, pacer: Pacer | None = None) -> None:
        super().__init__()
        self.transcript = Transcript(pacer=pacer)
        self.followed: list[bool] = []

    def compose(self) -> ComposeResult:
        yield self.transcript

    def on_transcript_follow_changed(self, message: Transcript.FollowChanged) -> None:
        self.followed.append(message.following)

    @property
    def lines(self) -> list[str]:
        """What the screen shows, without the scroll bar and empty lines at the end."""
        strips = self.screen._compositor.render_strips()
        lines = [strip.crop(0, self.size.width - 1).text.rstrip() for strip in strips]
        while lines and not lines[-1]:
            lines.pop()
        return lines


@asynccontextmanager
async def running(
    width: int = 60, height: int = 20, pacer: Pacer | None = None
) -> AsyncIterator[tuple[Host, Transcript, Pilot[None]]]:
    app = Host(pacer)
    async with app.run_test(size=(width, height)) as pilot:
        app.transcript.focus()
        await pilot.pause()
        yield app, app.transcript, pilot


async def painted(pilot: Pilot[None]) -> None:
    """Waits for what is under way, a tick included."""
    await pilot.pause(0.12)
    await pilot.pause()


def filled(transcript: Transcript, lines: int = 100) -> None:
    """Adds a message of many lines."""
    transcript.add_message(1, "user", "\n".join(f"line {number}" for number in range(lines)))


class TestWhatItShows:
    async def test_a_conversation(self) -> None:
        async with running(40) as (app, transcript, pilot):
            transcript.add_message(1, "user", "Why *do* foxes\nhunt alone?")
            transcript.add_message(2, "assistant", streaming=True)
            transcript.append(2, "# Because\n\nthey **are** solitary:\n- small prey feeds one\n- `x`")
            transcript.finish(2, "9 tok · stop")
            transcript.add_note("context is full", "warning")
            await pilot.pause()
            assert app.lines == [
                " you ▸ Why *do* foxes",
                "   hunt alone?",
                "",
                " llama ▸ Because",
                "",
                "   they are solitary:",
                "   • small prey feeds one",
                "   • x",
                "   9 tok · stop",
                "",
                "   context is full",
            ]

    async def test_a_reply_grows_literally_and_is_rendered_when_a_block_ends(self) -> None:
        async with running() as (app, transcript, pilot):
            transcript.assistant_label = "fox-7b"
            transcript.add_message(1, "assistant", streaming=True)
            await painted(pilot)
            assert app.lines == [" fox-7b ▸"]
            transcript.append(1, "an **open")
            await painted(pilot)
            assert app.lines == [" fox-7b ▸ an **open"]
            transcript.append(1, " block**\n\nnext *one*")
            await painted(pilot)
            assert app.lines == [" fox-7b ▸ an open block", "", "   next *one*"]
            transcript.finish(1)
            await pilot.pause()
            assert app.lines == [" fox-7b ▸ an open block", "", "   next one"]

    @pytest.mark.parametrize("text", HOSTILE)
    async def test_hostile_text_is_literal(self, text: str) -> None:
        async with running(80) as (app, transcript, pilot):
            transcript.add_message(1, "user", text)
            transcript.add_message(2, "assistant", text, streaming=True)
            transcript.add_note(text)
            await painted(pilot)
            expected = [f" you ▸ {text}", "", f" llama ▸ {text}", "", f"   {text}"]
            assert app.lines == expected
            transcript.finish(2, text)
            await pilot.pause()
            assert app.lines == [*expected[:3], f"   {text}", *expected[3:]]
            assert app.is_running

    @pytest.mark.parametrize(
        "text", ["\x1b[2J\x9b1m", "\u0301\u200d\ufe0f", "\t\tx", "\ud800", "\r\n\r", "\u202e", ""]
    )
    async def test_unsanitised_text_does_no_harm(self, text: str) -> None:
        async with running(20, 10) as (app, transcript, pilot):
            for key in range(0, 4, 2):
                transcript.add_message(key, "user", text)
                transcript.add_message(key + 1, "assistant", streaming=True)
                transcript.append(key + 1, text)
                transcript.finish(key + 1, text)
            await pilot.click(Transcript, offset=(9, 1))
            await pilot.pause()
            assert not set("\x1b\x9b\r\ud800") & set("".join(app.lines))

    async def test_a_very_long_word_is_cut(self) -> None:
        async with running(51, 12) as (app, transcript, pilot):
            transcript.add_message(1, "assistant", "x" * 10_000)
            await pilot.pause()
            assert app.lines[-2] == "   " + "x" * 47
            assert 210 <= transcript.virtual_size.height <= 230

    async def test_a_line_of_ten_thousand_tokens_grows_without_getting_slow(self) -> None:
        async with running() as (app, transcript, pilot):
            transcript.add_message(1, "assistant", streaming=True)
            costs = []
            for number in range(100):
                transcript.append(1, " word" * 99 + f" end{number}")
                costs.append(timed(transcript._settle))
            await pilot.pause()
            assert app.lines[-1].endswith("end99")
            assert median(costs[-20:]) < 2.5 * median(costs[10:30])
            transcript.finish(1)
            assert transcript.text_of(1).count(" word") == 9900

    async def test_a_list_of_five_hundred_items(self) -> None:
        async with running() as (app, transcript, pilot):
            text = "".join(f"{number}. item {number}\n" for number in range(1, 501))
            transcript.add_message(1, "assistant", text)
            await pilot.pause()
            assert app.lines[-20:] == [f"   {number}. item {number}" for number in range(481, 501)]
            await pilot.press("home")
            assert app.lines[:3] == [" llama ▸", "   1. item 1", "   2. item 2"]
            assert transcript.virtual_size.height == 501

    async def test_removing_and_clearing(self) -> None:
        async with running() as (app, transcript, pilot):
            for key in range(3):
                transcript.add_message(key, "user", f"message {key}")
            transcript.remove_from(1)
            transcript.add_message(1, "assistant", "another")
            await pilot.pause()
            assert app.lines == [" you ▸ message 0", "", " llama ▸ another"]
            transcript.clear()
            await pilot.pause()
            assert app.lines == []
            with pytest.raises(KeyError):
                transcript.text_of(0)
            transcript.add_message(0, "user", "again")
            with pytest.raises(KeyError):
                transcript.add_message(0, "user", "twice")

    async def test_messages_may_come_before_the_screen(self) -> None:
        app = Host()
        app.transcript.add_message(1, "assistant", streaming=True)
        app.transcript.append(1, "early")
        async with app.run_test(size=(40, 5)) as pilot:
            await painted(pilot)
            assert app.lines == [" llama ▸ early"]

    @given(
        text=st.text(alphabet="ab \n\n-*`>|#1.漢\u0301", max_size=150),
        cuts=st.lists(st.integers(0, 150), max_size=8),
        size=st.tuples(st.integers(12, 50), st.integers(4, 30)),
    )
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    async def test_streamed_text_ends_up_as_whole_text_does(
        self, text: str, cuts: list[int], size: tuple[int, int]
    ) -> None:
        async with running(*size) as (app, transcript, pilot):
            transcript.add_message(1, "assistant", text)
            await pilot.pause()
            whole = app.lines
            transcript.clear()
            transcript.add_message(1, "assistant", streaming=True)
            edges = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
            for start, end in pairwise(edges):
                transcript.append(1, text[start:end])
                transcript._settle()
            transcript.finish(1)
            await pilot.pause()
            assert app.lines == whole


class TestTheView:
    async def test_it_follows_until_the_user_scrolls_away(self) -> None:
        async with running() as (app, transcript, pilot):
            filled(transcript)
            transcript.add_message(2, "assistant", streaming=True)
            await pilot.pause()
            assert transcript.following
            await pilot.press("pageup")
            assert not transcript.following
            before = app.lines
            for number in range(40):
                transcript.append(2, f"new {number}\n\n")
            await painted(pilot)
            assert app.lines == before
            transcript.finish(2, "footer")
            await pilot.pause()
            assert app.lines == before
            await pilot.press("end")
            await pilot.pause()
            assert transcript.following
            assert app.lines[-1] == "   footer"
            assert app.followed == [False, True]

    async def test_wheel_and_keys(self) -> None:
        async with running() as (app, transcript, pilot):
            filled(transcript)
            await pilot.pause()
            end = transcript.max_scroll_y
            assert transcript.scroll_offset.y == end
            for keys, top in [("up", -1), ("down", 0), ("pageup", -20), ("pagedown", 0), ("up", -1)]:
                await pilot.press(keys)
                assert (transcript.scroll_offset.y, transcript.following) == (end + top, top == 0)
            await pilot.press("home")
            assert transcript.scroll_offset.y == 0
            assert app.lines[0] == " you ▸ line 0"
            transcript.follow()
            for event, following in ((events.MouseScrollUp, False), (events.MouseScrollDown, True)):
                transcript.post_message(event(transcript, 1, 1, 0, 0, 0, False, False, False))
                await pilot.pause()
                assert transcript.following == following

    async def test_reading_backwards_never_jumps(self) -> None:
        rng = random.Random(2)
        async with running(50, 15) as (_, transcript, pilot):
            for key in range(60):
                words = " ".join("w" * rng.randint(1, 12) for _ in range(rng.randint(1, 120)))
                mixed = f"{words}\n\n- a **b**\n- c\n\n```\n{key}\n```\n"
                transcript.add_message(key, "assistant", mixed if key % 3 else "漢字" * len(words))
            await pilot.pause()
            steps = 0
            while transcript.scroll_offset.y > 9:
                above = [transcript.render_line(y).text for y in range(6)]
                transcript.scroll_relative(y=-9)
                assert [transcript.render_line(y).text for y in range(9, 15)] == above
                steps += 1
            assert steps > 50

    async def test_a_resize_keeps_the_text_at_the_top(self) -> None:
        async with running(70, 20) as (app, transcript, pilot):
            for key in range(100):
                transcript.add_message(key, "assistant", f"message {key} " + "some words " * 60)
            await pilot.pause()
            transcript.mark(40)
            transcript.unmark()
            await pilot.pause()
            for width in (30, 90, 45, 70):
                await pilot.resize_terminal(width, 20)
                await pilot.pause()
                assert app.lines[0].startswith(" llama ▸ message 40")
                assert not transcript.following

    async def test_the_end_stays_in_view_when_resized(self) -> None:
        async with running(70, 20) as (app, transcript, pilot):
            transcript.add_message(1, "assistant", "some words " * 500 + "LAST")
            for size in ((30, 20), (30, 40), (200, 10)):
                await pilot.resize_terminal(*size)
                await pilot.pause()
                assert app.lines[-1].endswith("LAST")
                assert transcript.following


class TestSelection:
    async def test_dragging_selects_text_without_decoration(self) -> None:
        async with running(30, 12) as (app, transcript, pilot):
            transcript.add_message(1, "assistant", "Some words that are wrapped here.\n- one\n  - two\n")
            await pilot.pause()
            assert app.lines == [" llama ▸ Some words that are", "   wrapped here.", "   • one", "     ◦ two"]
            await pilot.mouse_down(Transcript, offset=(13, 0))
            await pilot.hover(Transcript, offset=(7, 3))
            await pilot.mouse_up(Transcript, offset=(7, 3))
            await pilot.pause()
            assert app.screen.get_selected_text() == "words that are wrapped here.\n- one\n  - tw"
            marked = app.screen.get_component_rich_style("screen--selection").bgcolor
            strip = transcript.render_line(1)
            assert [segment.text for segment in strip if segment.style.bgcolor == marked] == ["wrapped here."]

    async def test_the_left_edge_is_the_beginning_of_the_row(self) -> None:
        async with running(30, 12) as (app, transcript, pilot):
            transcript.add_message(1, "user", "aaaa bbbb cccc dddd eeee ffff")
            await pilot.pause()
            assert app.lines == [" you ▸ aaaa bbbb cccc dddd", "   eeee ffff"]
            for x in (0, 1, 2):
                found = app.screen.get_widget_and_offset_at(x + 1, 1)
                assert found[1].x == 20

    async def test_it_stays_with_its_text(self) -> None:
        async with running(40, 12) as (app, transcript, pilot):
            transcript.add_message(1, "assistant", streaming=True)
            transcript.append(1, "one two three four five six seven eight nine\n\n")
            await painted(pilot)
            start = app.screen.get_widget_and_offset_at(10, 0)[1]
            app.screen.selections = {transcript: Selection(start, Offset(start.x + 9, start.y))}
            for width in (15, 90):
                transcript.append(1, "more text\n\n" * 20)
                await pilot.resize_terminal(width, 12)
                await painted(pilot)
                assert app.screen.get_selected_text() == "ne two th"

    async def test_whole_messages_are_copied_as_they_were_written(self) -> None:
        async with running() as (_, transcript, pilot):
            transcript.add_message(1, "user", "question")
            transcript.add_message(2, "assistant", "**answer**")
            transcript.add_note("note")
            await pilot.pause()
            assert transcript.get_selection(SELECT_ALL) == ("question\n\n**answer**\n\nnote", "\n")

    async def test_clicks_while_streaming(self) -> None:
        async with running() as (app, transcript, pilot):
            transcript.add_message(1, "assistant", streaming=True)
            for number in range(8):
                transcript.append(1, f"text {number} **bold\n\n- [x](y)\n")
                await pilot.click(Transcript, offset=Offset(number * 5, number * 2))
            await pilot.click(Transcript, offset=Offset(5, 5), times=2)
            assert app.is_running
            assert app.screen.get_selected_text() == transcript.text_of(1).rstrip()


class TestStyles:
    async def test_every_theme_draws(self) -> None:
        async with running() as (app, transcript, pilot):
            transcript.add_message(1, "user", "hello")
            transcript.add_message(2, "assistant", "# h\n> `q`\n```python\ndef f(): pass  # c\n```\n[a](b)\n")
            transcript.add_message(3, "assistant", "<think>a</think>b", streaming=True)
            transcript.mark(2)
            transcript.find("h")
            colours = set()
            for theme in app.available_themes:
                app.theme = theme
                await pilot.pause()
                segments = [segment for y in range(10) for segment in transcript.render_line(y)]
                colours.add(segments[0].style.color)
                for segment in segments:
                    assert segment.text.isspace() or contrast(segment.style) > 1.5 or app.current_theme.ansi
            assert len(colours) > 8

    async def test_code_fills_its_rows_and_text_does_not(self) -> None:
        async with running(30) as (_, transcript, pilot):
            transcript.add_message(1, "assistant", "*text*\n```\ncode\n```\n")
            await pilot.pause()
            text, code = (list(transcript.render_line(y)) for y in (0, 1))
            assert code[-1].style.bgcolor != text[-1].style.bgcolor
            assert code[0].style.bgcolor == text[-1].style.bgcolor


def contrast(style: Any) -> float:
    """The contrast ratio of WCAG 2.1."""
    light, dark = sorted(
        (0.2126 * r**2.2 + 0.7152 * g**2.2 + 0.0722 * b**2.2 + 0.05)
        for r, g, b in (Color.from_rich_color(colour).normalized for colour in (style.bgcolor, style.color))
    )[::-1]
    return light / dark


def timed(action: Callable[[], object]) -> float:
    """The seconds of a core that an action takes."""
    start = time.thread_time()
    action()
    return time.thread_time() - start


@asynccontextmanager
async def stall(stalls: dict[str, float], name: str) -> AsyncIterator[None]:
    """Takes down the longest time for which the loop could do nothing else, in seconds of a core."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            start = time.thread_time()
            await asyncio.sleep(0.001)
            longest = max(longest, time.thread_time() - start)

    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    yield
    watcher.cancel()
    stalls[name] = longest


@pytest.mark.alone
class TestCost:
    async def test_a_chunk_at_the_end_of_a_long_list_costs_as_one_at_its_start(self) -> None:
        rng = random.Random(1)
        async with running(120, 40) as (_, transcript, pilot):
            transcript.add_message(1, "assistant", streaming=True)
            costs = []
            for _ in range(1000):  # chunks of four tokens
                for token in rng.choices([" word", " another", "\n- item"], [6, 6, 1], k=4):
                    transcript.append(1, token)
                costs.append(timed(transcript._settle))
            await pilot.pause()
            first, last = median(costs[100:300]), median(costs[-200:])
            assert last <= 2 * first, f"{first * 1e3:.2f} ms at first, {last * 1e3:.2f} ms at last"

    async def test_a_thousand_messages_never_block_for_long(
        self, record_property: Callable[[str, object], None]
    ) -> None:
        text = "A **paragraph** of some length, as replies have them. " * 4
        text += "\n\n- one\n- two\n\n```python\nx = 1\n```\n"
        async with running(120, 40) as (app, transcript, pilot):
            await pilot.pause(0.3)  # for what is imported in the background
            start = time.thread_time()
            for key in range(1000):
                transcript.add_message(key, "assistant" if key % 2 else "user", text)
            await pilot.pause()
            opened = time.thread_time() - start
            assert app.lines[-1].strip() == "x = 1"
            for _ in range(150):  # so that many messages are or were laid out
                transcript.scroll_relative(y=-40)
            stalls: dict[str, float] = {}
            for width in (80, 119):
                async with stall(stalls, f"resize to {width}"):
                    await pilot.resize_terminal(width, 40)
                    await pilot.pause()
            async with stall(stalls, "theme"):
                app.theme = "nord"
                await pilot.pause()
            async with stall(stalls, "home"):
                await pilot.press("home")
            async with stall(stalls, "end"):
                await pilot.press("end")
            transcript.add_message(1000, "assistant", streaming=True)
            transcript.append(1000, text * 10 + "[*" * 1000)
            async with stall(stalls, "finish"):
                transcript.finish(1000)
                await pilot.pause()
            record_property("seconds", {"open": opened, **stalls})
            assert opened < 0.3
            assert max(stalls.values()) < 0.2, stalls  # 0.1 where nobody shares the core's caches

    async def test_text_waits_for_its_tick_and_the_end_does_not(self) -> None:
        now = [100.0]
        async with running(pacer=Pacer(clock=lambda: now[0])) as (app, transcript, pilot):
            transcript.add_message(1, "assistant", streaming=True)
            transcript.append(1, "one")
            await painted(pilot)
            assert app.lines == [" llama ▸ one"]
            transcript.append(1, " two")
            await painted(pilot)
            assert app.lines == [" llama ▸ one"]
            now[0] += 0.2
            await painted(pilot)
            assert app.lines == [" llama ▸ one two"]
            transcript.append(1, " three")
            transcript.finish(1)
            await pilot.pause()
            assert app.lines == [" llama ▸ one two three"]
