from __future__ import annotations

from dataclasses import replace

import pytest
from textual.app import App, ComposeResult

from core.engine.events import Placed, Snapshot, Traffic
from core.weights.plan import Choice
from tests.fake_backend import SIMULATED_7B, FakeBackend, loads
from tests.fake_plans import CARD as BUDGET
from tests.fake_plans import ON_CPU, SIMULATED, plan_7b, readings
from tests.tui.conftest import Open
from tui import meters
from tui.widgets.bars import level, shares
from tui.widgets.history_graph import HistoryGraph, nice_ceiling
from tui.widgets.memory_panel import memory_bar

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
    assert meters.speed(None) == "n/a"
    assert meters.disk(CARD) is None
    shared = meters.vram(replace(CARD, process_vram=None))
    assert shared is not None
    assert [kind.name for kind in shared.kinds] == ["used", "free"]


def test_shares_fill_the_bar_and_leave_nobody_out() -> None:
    assert shares([8, 7, 3, 14], 32, 32) == [8, 7, 3, 14]
    assert shares([1, 0, 999], 1000, 10) == [1, 0, 9]
    for width in range(1, 60):
        assert sum(shares([3, 5, 0.001, 92], 100, width)) == width or width < 4
    assert shares([1, 1], 0, 10) == [1, 1]
    assert shares([1, 0, 999], 1000, 10, all_seen=False) == [0, 0, 10]
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
            "m ours 5.0 x others 1.0",
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


# --- what the engine counts ---------------------------------------------------------------------

TRAFFIC = Traffic(
    simulated=False,
    vram_budget=9 * GB,
    vram=(("context", GB // 5), ("resident", 4 * GB), ("slots", GB // 2), ("kv", GB // 2), ("workspace", 0)),
    ram=(("pinned", 6 * GB), ("pageable", GB), ("cpu", 0)),
    to_gpu=20.16e9,
    from_gpu=0.1e9,
    from_disk=1.9e9,
    link=25.2e9,
    copied=None,
    computed=None,
)
STREAMED = replace(CARD, vram_used=6 * GB, engine=TRAFFIC)
SIMULATED_CARD = replace(HOST, vram_total=12 * GB, vram_used=5 * GB, engine=replace(TRAFFIC, simulated=True))


def kinds(memory: meters.Memory | None) -> dict[str, float]:
    assert memory is not None
    assert sum(kind.amount for kind in memory.kinds) == memory.total
    return {kind.letter: kind.amount / GB for kind in memory.kinds if kind.amount}


def test_what_the_engine_counts_on_the_card_comes_first_and_the_rest_is_others() -> None:
    vram = meters.vram(STREAMED)
    assert kinds(vram) == pytest.approx({"R": 4, "S": 0.5, "K": 0.5, "o": 0.2, "·": 6, "x": 0.8})
    assert meters.span(vram) == "5.2/9.0G"  # ours and the budget, not the card
    fuller = replace(STREAMED, vram_used=0)  # read before the last allocation
    assert kinds(meters.vram(fuller)) == pytest.approx({"R": 4, "S": 0.5, "K": 0.5, "o": 0.2, "·": 6.8})


def test_streamed_memory_is_a_part_of_our_own() -> None:
    parts = {"#": 6, "+": 1, "a": 1, "o": 7, "c": 3, "·": 14}
    assert kinds(meters.ram(replace(HOST, engine=TRAFFIC))) == parts
    # The card's memory is host memory on a simulated device; what does not fit into ours is not shown twice.
    assert kinds(meters.ram(SIMULATED_CARD)) == {"#": 6, "+": 1, "v": 1, "o": 7, "c": 3, "·": 14}
    on_cpu = replace(TRAFFIC, vram_budget=None, vram=(), ram=(("cpu", 20 * GB),))
    assert kinds(meters.ram(replace(HOST, engine=on_cpu))) == {"C": 8, "o": 7, "c": 3, "·": 14}


def bar(memory: meters.Memory | None, width: int) -> str:
    assert memory is not None
    return "".join(text for text, _ in memory_bar(memory, width, lambda name: name))  # type: ignore[arg-type,return-value]


def test_the_budget_is_marked_where_it_ends() -> None:
    vram = meters.vram(STREAMED)
    assert bar(vram, 37) == "RRRRRRRRRRRRSSKo···········|·······xx"
    assert vram is not None
    for width in range(2, 60):
        for budget in (GB, 5 * GB, 9 * GB, 12 * GB, 20 * GB):
            line = bar(meters.vram(replace(STREAMED, engine=replace(TRAFFIC, vram_budget=budget))), width)
            assert len(line) == width
            assert line.count("|") == 1
            if budget >= vram.used:
                assert not set("RSKo") & set(line.partition("|")[2])
    assert bar(meters.vram(replace(STREAMED, engine=replace(TRAFFIC, vram_budget=None))), 36).count("|") == 0


def test_the_engines_bytes_come_before_the_devices_counter() -> None:
    bus = meters.bus(STREAMED)
    assert (bus.to_gpu, bus.exact, bus.counter, bus.share) == (20.16e9, True, 21.4e9, "80 %")
    early = meters.bus(replace(STREAMED, engine=replace(TRAFFIC, to_gpu=None)))
    assert (early.to_gpu, early.exact, early.counter) == (21.4e9, False, None)
    simulated = meters.bus(replace(SIMULATED_CARD, pcie_to_gpu=9e9))  # of a card that has nothing to do
    assert (simulated.to_gpu, simulated.exact, simulated.counter) == (20.16e9, True, None)
    idle = replace(TRAFFIC, vram_budget=None, vram=(), to_gpu=0.0)  # computed on the CPU beside a card
    assert meters.bus(replace(CARD, engine=idle)).to_gpu == 21.4e9


async def test_panels_of_a_streamed_model(open_chat: Open) -> None:
    async with open_chat() as driver:
        driver.backend.emit(STREAMED)
        await driver.settle()
        for part in (
            "VRAM 5.2 of 9.0 GB · card 12",
            "R resident 4.0 S slots .5",
            "# pinned 6.0",
            "PCIe GB/s · link 25.2 · engine",
            "20.2 80 %",
            "device counter 21.4",
        ):
            assert part in driver.screen_text, part
        assert "disk" not in driver.screen_text  # no weight lies there
        await driver.pilot.resize_terminal(170, 40)
        await driver.settle()
        for part in (
            "VRAM 5.2 of 9.0 GB budget · card 12",
            "x others .8 | budget",
            "+ pageable 1.0",
        ):
            assert part in driver.screen_text, part


async def test_everything_of_a_simulated_device_is_called_so(open_chat: Open) -> None:
    simulated = loads(plan_7b(budget=SIMULATED), SIMULATED_7B)
    for size in ((120, 40), (100, 30), (80, 24), (60, 16), (40, 12)):
        async with open_chat(FakeBackend(load=simulated), size=size) as driver:
            driver.backend.emit(SIMULATED_CARD)
            await driver.settle()
            assert driver.screen_text.lstrip().startswith("SIMULATED")
            assert "device counter" not in driver.screen_text
            assert "no GPU" not in driver.screen_text
            if size[0] >= 100 and size[1] >= 30:
                assert "VRAM simulated 5.2" in driver.screen_text
                assert "PCIe simulated" in driver.screen_text
                assert "link 25.2" in driver.screen_text
            else:
                assert "sim VRAM R" in driver.screen_text


async def test_the_disk_is_shown_where_weights_lie_there(open_chat: Open) -> None:
    plan = plan_7b(budget=replace(BUDGET, ram=6 * GB))
    assert plan.disk
    for size, part in (((120, 40), "disk 1.9"), ((100, 20), "disk 1.9")):
        async with open_chat(FakeBackend(load=loads(plan)), size=size) as driver:
            driver.backend.emit(STREAMED)
            await driver.settle()
            assert part in driver.screen_text
    async with open_chat() as driver:
        driver.backend.emit(Placed(plan_7b(Choice(), replace(ON_CPU, ram=8 * GB))))
        driver.backend.emit(replace(HOST, engine=replace(TRAFFIC, vram_budget=None, vram=())))
        await driver.settle()
        assert "disk 1.9" in driver.screen_text
        assert "no GPU" in driver.screen_text


async def test_the_line_of_a_streamed_model(open_chat: Open) -> None:
    lines = {
        (80, 24): ("VRAM R", "5.2/9.0G", "RAM #", "18.0/32.0G", "PCIe to 20.2 from 0.1 GB/s 80%"),
        (60, 16): ("VRAM R", "5.2/9.0G", "RAM #", "PCIe 20.2 80%"),
        (40, 12): ("VRAM R", "5.2/9.0G", "PCIe 20.2 80%"),
    }
    for size, parts in lines.items():
        async with open_chat(size=size) as driver:
            driver.backend.emit(STREAMED)
            await driver.settle()
            line = driver.screen_text.splitlines()[1]
            for part in parts:
                assert part in line, line


def test_readings_of_a_plan_fill_the_gauges() -> None:
    plan = plan_7b(Choice(True, ("attention",), ("w2",)))
    snapshot = readings(plan)
    assert set(kinds(meters.vram(snapshot))) == set("RSKwo·x")
    assert set(kinds(meters.ram(snapshot))) == set("#+Caoc·")


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
        driver.backend.emit(HOST)
        await driver.advance(0.1)
        assert "0 to 2" in driver.screen_text
        assert "surprise 4.8 bits" in driver.screen_text
        await driver.say("/mirostat 2")
        await driver.advance(1)
        assert "surprise 4.8 tau 5.0" in driver.screen_text


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
