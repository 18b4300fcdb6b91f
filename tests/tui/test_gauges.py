from __future__ import annotations

from dataclasses import replace

import pytest
from textual.app import App, ComposeResult

from core.engine.events import Snapshot
from tests.fake_backend import FakeBackend
from tests.tui.conftest import Open
from tui import meters
from tui.widgets.bars import level, shares
from tui.widgets.history_graph import HistoryGraph, nice_ceiling

GB = 10**9
HOST = Snapshot(ram_total=32 * GB, ram_used=15 * GB, process_anon=8 * GB, process_file=3 * GB)
CARD = replace(
    HOST,
    gpu_name="[/x] Card",
    vram_total=12 * GB,
    vram_used=6 * GB,
    process_vram=5 * GB,
    pcie_to_gpu=21.4e9,
    pcie_from_gpu=0.1e9,
    pcie_link=25.2e9,
)


def test_kinds_of_memory_are_disjoint_and_add_up() -> None:
    for memory in (meters.ram(HOST), meters.vram(CARD)):
        assert memory is not None
        assert sum(kind.amount for kind in memory.kinds) == memory.total
        assert len({kind.letter for kind in memory.kinds}) == len(memory.kinds)
    ram = meters.ram(HOST)
    assert ram is not None
    assert {kind.letter: kind.amount / GB for kind in ram.kinds} == {"a": 8, "o": 7, "c": 3, "·": 14}
    assert ram.used == 18 * GB


def test_readings_that_contradict_each_other_make_no_negative_kind() -> None:
    # The process and the machine are read one after the other, and a container counts its own way.
    ram = meters.ram(replace(HOST, process_anon=20 * GB, process_file=40 * GB))
    assert ram is not None
    assert all(kind.amount >= 0 for kind in ram.kinds)
    assert sum(kind.amount for kind in ram.kinds) == ram.total


def test_what_cannot_be_read_is_not_made_up() -> None:
    assert meters.ram(Snapshot()) is None
    assert meters.vram(HOST) is None
    assert meters.span(None) == "n/a"
    assert meters.bus(None) == "n/a"
    shared = meters.vram(replace(CARD, process_vram=None))
    assert shared is not None
    assert [kind.name for kind in shared.kinds] == ["used", "free"]


def test_shares_fill_the_bar_and_leave_nobody_out() -> None:
    assert shares([8, 7, 3, 14], 32, 32) == [8, 7, 3, 14]
    assert shares([1, 0, 999], 1000, 10) == [1, 0, 9]
    for width in range(1, 60):
        assert sum(shares([3, 5, 0.001, 92], 100, width)) == width or width < 4
    assert shares([1, 1], 0, 10) == [1, 1]
    assert level(0.5, 4) == "▓▓░░"
    assert level(7, 4) == "▓▓▓▓"


def test_scales_end_at_round_numbers() -> None:
    values = [0, 0.3, 1, 1.1, 2.5, 20, 21, 99]
    assert [nice_ceiling(value) for value in values] == [1, 0.5, 1, 2, 5, 20, 50, 100]


async def test_history_keeps_its_range() -> None:
    class Graphs(App[None]):
        def compose(self) -> ComposeResult:
            for name in ("high", "low"):
                graph = HistoryGraph(top=100, id=name)
                graph.styles.height = 2
                yield graph

    async with Graphs().run_test(size=(10, 4)) as pilot:
        high, low = pilot.app.query(HistoryGraph)
        for _ in range(30):
            high.push(100)
            low.push(10)
        low.push(None)
        low.push(0.001)
        assert [high.render_line(y).text for y in (0, 1)] == ["⣿" * 10, "⣿" * 10]
        assert low.render_line(0).text == " " * 10
        assert low.render_line(1).text == "⣀" * 9 + "⢀"


async def test_panels_show_letters_numbers_and_the_bus(open_chat: Open) -> None:
    async with open_chat() as driver:
        driver.backend.emit(CARD)
        await driver.settle()
        screen = driver.screen_text
        for part in (
            "VRAM 6.0 of 12.0 GB",
            "m ours 5.0 x other 1.0",
            "RAM 18.0 of 32.0 GB",
            "a ours 8.0 o other 7.0",
            "c mapped 3.0 · free 14",
            "link 25.2",
            "21.4 85 %",
            "peak 21.4",
        ):
            assert part in screen, part
        assert "n/a" not in screen
        driver.backend.emit(replace(CARD, pcie_to_gpu=1e9, pcie_link=None, vram_used=None))
        await driver.settle()
        assert "peak 21.4" in driver.screen_text
        assert "link n/a" in driver.screen_text


async def test_without_a_gpu_one_panel_says_so(open_chat: Open) -> None:
    for size in ((120, 40), (80, 24), (40, 12)):
        async with open_chat(size=size) as driver:
            driver.backend.emit(HOST)
            await driver.settle()
            assert driver.screen_text.count("no GPU") == 1
            assert "18.0" in driver.screen_text
            if size[0] > 40:
                assert "VRAM n/a" in driver.screen_text


async def test_one_line_where_it_is_low(open_chat: Open) -> None:
    async with open_chat(size=(80, 24)) as driver:
        driver.backend.emit(CARD)
        await driver.settle()
        line = driver.screen_text.splitlines()[1]
        for part in ("VRAM m", "6.0/12.0G", "RAM a", "18.0/32.0G", "PCIe to 21.4 from 0.1 GB/s 85%"):
            assert part in line, line


async def test_speed_and_surprise_are_shown_while_a_reply_runs(open_chat: Open) -> None:
    words = " ".join(["word"] * 99)
    async with open_chat(FakeBackend([words], token_s=0.5, surprise=4.8)) as driver:
        await driver.say("go")
        await driver.advance(6)
        assert "tok/s 2.0" in driver.screen_text
        assert "0 to 2" in driver.screen_text
        assert "surprise 4.8 bits" in driver.screen_text
        await driver.say("/mirostat 2")
        await driver.advance(1)
        assert "surprise 4.8 τ 5.0" in driver.screen_text


async def test_an_unchanged_reading_repaints_nothing(
    open_chat: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_chat() as driver:
        driver.backend.emit(HOST)
        await driver.advance(0.1)
        panel = driver.chat.query_one("#ram")
        painted = []
        monkeypatch.setattr(panel, "refresh", lambda *args, **kwargs: painted.append(args))
        driver.backend.emit(replace(HOST, process_anon=8 * GB + 1000))
        await driver.advance(0.1)
        assert painted == []
        driver.backend.emit(replace(HOST, process_anon=9 * GB))
        await driver.advance(0.1)
        assert painted
