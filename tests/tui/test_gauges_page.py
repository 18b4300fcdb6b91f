"""F3: the full page of gauges, at every size."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from core.engine.events import Done, Reason, Reply, Snapshot, Stats
from core.weights.plan import Choice
from tests.fake_backend import SIMULATED_7B, FakeBackend, loads
from tests.fake_plans import CARD, ON_CPU, SIMULATED, plan_7b, readings
from tests.tui.conftest import Driver, Open
from tui import reply_table
from tui.conversation import Exchange
from tui.readings import Readings
from tui.screens.gauges import GaugesScreen
from tui.widgets.graph_panel import GraphPanel
from tui.widgets.history_graph import HistoryGraph

GB = 10**9
SIZES = [(40, 12), (60, 16), (80, 24), (120, 40), (200, 60)]


async def page_text(driver: Driver) -> str:
    """All of the page, screen by screen."""
    page, seen = driver.app.screen.query_one("#page"), ""
    for y in range(0, int(page.max_scroll_y) + page.size.height, page.size.height):
        page.scroll_to(y=y, animate=False, immediate=True)
        await driver.settle()
        seen += driver.screen_text + "\n"
    return seen


async def paint(driver: Driver) -> None:
    """What the page's timer does every second."""
    screen = driver.app.screen
    assert isinstance(screen, GaugesScreen)
    screen._paint()
    await driver.settle()
    screen._paint()  # texts that grew have pushed the graphs into another place
    await driver.settle()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
async def test_the_page_shows_everything_at_every_size(open_chat: Open, size: tuple[int, int]) -> None:
    plan = plan_7b()
    words = " ".join(["word"] * 60)
    async with open_chat(
        FakeBackend(["Hello there.", words], load=loads(plan), token_s=0.5, surprise=4.8),
        size=size,
        values={"mirostat": 2},
    ) as driver:
        await driver.say("one")
        await driver.advance(3)
        await driver.say("two")
        for second in range(6):
            driver.backend.emit(readings(plan, speed=0.5 + 0.4 * math.sin(second)))
            await driver.advance(1)
        await driver.press("f3")
        await paint(driver)
        status = driver.screen_text.splitlines()[-2]
        assert "2.0 tok/s" in status
        seen = await page_text(driver)
        for part in (
            "VRAM 6.3 of 9.0 GB",
            "R resident 4.3",
            "# pinned 8.9",
            "PCIe to GPU · ",
            "peak 21.8" if size[0] > 40 else "PCIe to GPU",
            "PCIe from GPU",
            "0 to 25.2 GB/s",
            "tok/s · 2.0 · peak 2.0",
            "surprise · mean 4.80 bits",
            "0 to 10 bits",
            "last replies",
            "running" if size[0] > 40 else "cached",
            "0.20 s",
            "context: ",
            "limited by: PCIe",
            "(measured)",
        ):
            assert part in seen, (part, seen)
        for line in seen.splitlines():
            assert len(line) <= size[0]
        before = driver.backend.commands[:]
        await driver.press("f3")
        assert driver.app.screen is driver.chat
        assert driver.chat.focused is driver.chat.prompt
        await driver.advance(2)
        assert "2.0 tok/s" in driver.status
        assert driver.backend.commands == before


async def test_escape_and_the_command_open_and_close_it(open_chat: Open) -> None:
    async with open_chat() as driver:
        for opened, closed in (("f3", "escape"), ("f3", "q"), ("f3", "ctrl+c"), ("f3", "f3")):
            await driver.press(opened)
            assert isinstance(driver.app.screen, GaugesScreen)
            await driver.press(closed)
            assert driver.app.screen is driver.chat
        await driver.say("/gauges")
        assert isinstance(driver.app.screen, GaugesScreen)
        await driver.press("f12")  # another page takes its place
        await driver.press("f3")
        assert isinstance(driver.app.screen, GaugesScreen)
        await driver.press("escape")
        assert driver.app.screen is driver.chat


async def test_everything_of_a_simulated_device_is_called_so(open_chat: Open) -> None:
    plan = plan_7b(budget=SIMULATED)
    async with open_chat(FakeBackend(load=loads(plan, SIMULATED_7B)), size=(200, 60)) as driver:
        driver.backend.emit(readings(plan))
        await driver.press("f3")
        await paint(driver)
        screen = driver.screen_text
        assert screen.lstrip().startswith("SIMULATED")
        for part in (
            "VRAM simulated",
            "PCIe to GPU · 21.4 GB/s 85 % · peak 21.4 · simulated",
            "simulated link",
        ):
            assert part in screen, part
        assert "device counter" not in screen


async def test_the_devices_counter_stands_beside_the_engines_bytes(open_chat: Open) -> None:
    plan = plan_7b()
    async with open_chat(FakeBackend(load=loads(plan))) as driver:
        driver.backend.emit(readings(plan))
        await driver.press("f3")
        await paint(driver)
        assert "21.4 GB/s 85 % · peak 21.4 · engine" in driver.screen_text
        assert "device counter 21.9 · 0 to 25.2 GB/s" in driver.screen_text


async def test_without_a_gpu_one_line_says_so(open_chat: Open) -> None:
    plan = plan_7b(Choice(), ON_CPU)
    host = replace(readings(plan), gpu_name=None, vram_total=None, vram_used=None)
    for size in ((120, 40), (40, 12)):
        async with open_chat(FakeBackend(load=loads(plan)), size=size) as driver:
            driver.backend.emit(host)
            await driver.press("f3")
            await paint(driver)
            assert driver.screen_text.count("no GPU: VRAM n/a, PCIe n/a") == 1
            seen = await page_text(driver)
            assert "PCIe to GPU" not in seen
            assert "C on CPU" in seen
            assert "limited by: CPU" in seen


async def test_before_anything_is_known_nothing_is_made_up(open_chat: Open) -> None:
    async with open_chat(ready=False) as driver:
        await driver.press("f3")
        await paint(driver)
        seen = await page_text(driver)
        for part in ("no reply yet", "no plan yet", "tok/s · n/a", "surprise · n/a", "starting"):
            assert part in seen, part


async def test_the_disk_has_a_graph_where_weights_come_from_it(open_chat: Open) -> None:
    plan = plan_7b(budget=replace(CARD, ram=6 * GB))
    async with open_chat(FakeBackend(load=loads(plan)), size=(120, 60)) as driver:
        driver.backend.emit(readings(plan))
        await driver.press("f3")
        await paint(driver)
        assert "disk · 1.9 GB/s · peak 1.9" in driver.screen_text


async def test_surprise_is_drawn_for_each_token_with_tau_at_half_height(open_chat: Open) -> None:
    words = " ".join(["word"] * 40)
    async with open_chat(FakeBackend([words], token_s=0.1, surprise=2.5), values={"mirostat": 2}) as driver:
        await driver.say("go")
        await driver.advance(6)
        await driver.press("f3")
        await paint(driver)
        graph = driver.app.screen.query_one("#graph-surprise", GraphPanel).query_one(HistoryGraph)
        assert list(graph.readings) == [2.5] * 40
        assert (graph.mark, graph.top) == (5.0, 10.0)
        rows = [graph.render_line(y).text for y in range(graph.size.height)]
        assert graph.size.height == 5
        # 20 dots high: tau at the tenth, the tokens at the fifth.
        assert [set(row) for row in rows] == [{" "}, {" "}, {"⠠", " "}, {" ", "⣀"}, {" "}]
        assert rows[3].endswith("⣀" * 20)
        assert rows[3].count("⣀") == 20


async def test_nothing_is_sampled_or_painted_once_it_is_closed(
    open_chat: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted: list[object] = []
    monkeypatch.setattr("tui.screens.gauges._PERIOD_S", 0.005)
    monkeypatch.setattr(GaugesScreen, "_paint_header", lambda self: painted.append(self))
    async with open_chat() as driver:
        await driver.press("f3")
        await driver.until(lambda: len(painted) > 3)
        await driver.press("escape")
        await driver.until(lambda: driver.app.screen is driver.chat)
        await driver.settle()
        count = len(painted)
        await driver.pilot.pause(0.05)
        assert len(painted) == count


def test_the_bus_is_measured_against_the_most_the_card_ever_said() -> None:
    readings = Readings()
    card = Snapshot(gpu_name="Card", pcie_to_gpu=1e9, pcie_from_gpu=0.0, pcie_link=31.5e9)
    readings.take(card, None)
    readings.take(replace(card, pcie_link=4e9), None)  # it rests, so its link is slow
    assert readings.link == 31.5e9
    readings.take(replace(card, pcie_link=None), None)
    assert readings.link is None


def test_the_engines_link_counts_before_what_the_card_says() -> None:
    readings_ = Readings()
    readings_.take(Snapshot(gpu_name="Card", pcie_to_gpu=1e9, pcie_link=31.5e9), None)
    readings_.take(readings(plan_7b()), 2.5)
    assert readings_.link == pytest.approx(25.2e9)
    assert readings_.to_gpu.last == pytest.approx(0.85 * 25.2e9)
    assert readings_.counter.last == pytest.approx(0.85 * 25.2e9 + 0.5e9)
    assert readings_.speed.last == 2.5


# --- the table of replies -----------------------------------------------------------------------


def reply(run: int, tokens: int, **figures: float) -> Exchange:
    exchange = Exchange(run, "question", surprises=[3.0] * tokens)
    said = Reply("text", (1,) * tokens, (3.0,) * tokens, Reason.STOP, 7, None, 120, 86, Stats())
    exchange.done = Done(run, Reason.STOP, Stats(**figures), said)  # type: ignore[arg-type]
    return exchange


def test_the_last_replies_stand_in_columns_the_newest_first() -> None:
    running = Exchange(3, "question", surprises=[2.0, 4.0, 4.5])
    waiting = Exchange(4, "question")
    told = [
        reply(1, 118, decode_tok_s=2.54, ttft_s=1.9, prefill_tok_s=31.0),
        reply(2, 7, decode_tok_s=12.0, ttft_s=0.2),
        running,
        waiting,
    ]
    assert reply_table.lines(told, 80) == [
        "tok  tok/s   first  cached  surprise      end  prefill tok/s",
        "  3      -       -       -      3.50  running              -",
        "  7   12.0  0.20 s  86/120      3.00     stop              -",
        "118    2.5   1.9 s  86/120      3.00     stop           31.0",
    ]
    assert reply_table.lines(told, 30) == [
        "tok  tok/s   first  cached",
        "  3      -       -       -",
        "  7   12.0  0.20 s  86/120",
        "118    2.5   1.9 s  86/120",
    ]
    assert len(reply_table.lines(told * 9, 80)) == 9
    assert reply_table.lines([waiting], 80) == ["no reply yet"]
