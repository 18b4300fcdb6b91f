"""The memory map as a user works with it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from textual import events

from core.config.read import Config, read_config
from core.engine.commands import Apply, Watch
from core.engine.events import Activity, InSlot, Placed
from core.model.shapes import SHAPES
from core.weights.needs import needs_of
from core.weights.plan import Choice, Place, Plan
from tests.fake_backend import LLAMA_7B, SIMULATED_7B, FakeBackend, loads
from tests.fake_plans import CARD, GB, ON_CPU, SIMULATED, plan_7b, readings
from tests.tui.conftest import Driver, Open
from tui import keys
from tui.commands import ACTIONS
from tui.screens.map import MapScreen
from tui.widgets.memory_map import MemoryMap

ATTENTION = ("wq", "wk", "wv", "wo")
ROOMY = replace(CARD, vram=10 * GB)
SIZES = [(40, 12), (60, 16), (80, 24), (120, 40), (200, 60)]
KINDS = ("wq", "wk", "wv", "wo", "w1", "w2", "w3")
BUSY = Activity(
    "layers.4.feed_forward",
    (
        InSlot("layers.4.feed_forward", 9, 9, "there"),
        InSlot("layers.5.feed_forward", 62, 100, "copying"),
    ),
)


def layered(layers: int) -> Plan:
    needs = needs_of(replace(SHAPES["7b"], n_layers=layers), "float16", 2048, 512)
    budget = replace(ROOMY, vram=10 * GB * max(32, layers) // 32, card=64 * GB, ram=64 * GB)
    return plan_7b(budget=budget, needs=needs)


def streamed(plan: Plan | None = None, **arguments: Any) -> FakeBackend:
    words = " ".join(f"word{i}" for i in range(60))
    plan = plan or plan_7b(budget=ROOMY)
    return FakeBackend([words], load=loads(plan, LLAMA_7B), token_s=0.25, **arguments)


def page(driver: Driver) -> MapScreen:
    screen = driver.app.screen
    assert isinstance(screen, MapScreen)
    return screen


def cells(driver: Driver) -> MemoryMap:
    return page(driver).cells


def named(driver: Driver) -> set[str]:
    return {cell.name for cell in cells(driver).selected}


def row(driver: Driver, kind: str) -> str:
    """A line of the map, without what is at the right."""
    line = next(line for line in driver.screen_text.splitlines() if line[1:].startswith(f"{kind} "))
    return line[5:]


def pending(driver: Driver) -> Any:
    return driver.chat.session.placement.wanted


# --- what is shown ------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [22, 32, 80])
async def test_every_layer_can_be_seen_at_every_size(open_chat: Open, layers: int) -> None:
    async with open_chat(streamed(layered(layers)), size=SIZES[0]) as driver:
        driver.backend.emit(readings(layered(layers)))
        await driver.press("f4")
        driver.backend.emit(BUSY)
        for size in SIZES:
            await driver.pilot.resize_terminal(*size)
            await driver.press("up", *["up"] * 8, "home")
            lines = driver.screen_text.splitlines()
            assert len(lines) == size[1]
            assert max(map(len, lines)) <= size[0]
            for kind in KINDS:
                letter = "G" if kind in ATTENTION else "S"
                assert row(driver, kind).count(letter) >= min(layers, size[0] - 5)
            for part in ("layers.0.wq", "VRAM", "idle"):
                assert part in driver.screen_text
            await driver.press("end")
            assert named(driver) == {f"layers.{layers - 1}.wq"}
            assert str(layers - 1) in driver.screen_text
            await driver.press(*["down"] * 7, "right", "right")
            assert named(driver) == {"output"}
            if size[0] >= 60:
                for part in ("4.feed_forward  computing", "Esc back", "MEMORY MAP"):
                    assert part in driver.screen_text


async def test_three_cells_a_layer_where_there_is_room_and_else_one(open_chat: Open) -> None:
    async with open_chat(streamed(layered(32)), size=(120, 40)) as driver:
        await driver.press("f4")
        assert row(driver, "wq").startswith("[G] G  G  G ")
        assert row(driver, "w1").startswith(" S  S  S  S ")
        assert row(driver, "w1").split()[-2:] == ["90.2", "pinned"]
        await driver.pilot.resize_terminal(80, 24)
        await driver.settle()
        assert row(driver, "wq").startswith("G" * 32 + " ")
        assert row(driver, "w1").split()[-2:] == ["90.2", "pinned"]


async def test_what_does_not_fit_scrolls_with_the_cursor(open_chat: Open) -> None:
    plan = layered(80)
    async with open_chat(streamed(plan), size=(60, 24)) as driver:
        await driver.press("f4")

        def axis() -> str:
            lines = driver.screen_text.splitlines()
            return lines[next(i for i, line in enumerate(lines) if line[1:4] == "wq ") - 1]

        assert axis()[5] == "0"
        assert axis().endswith("…")
        await driver.press("end")
        assert axis()[5] == "…"
        assert axis().rstrip().endswith("79")
        await driver.press("left", "s")
        assert row(driver, "wq")[53] == "s"
        await driver.press("home")
        assert axis()[5] == "0"
        assert "s" not in row(driver, "wq")


async def test_cells_are_lit_while_they_are_copied_or_computed(open_chat: Open) -> None:
    async with open_chat(streamed(), size=(120, 40)) as driver:
        await driver.press("f4")
        driver.backend.emit(BUSY)
        await driver.settle()
        assert cells(driver).moving == {f"layers.5.{kind}" for kind in ("w1", "w2", "w3")}
        assert cells(driver).computing == {f"layers.4.{kind}" for kind in ("w1", "w2", "w3")}
        for kind, lit in (("wq", {}), ("w2", {4: "bold", 5: "reverse"})):
            styles = styles_of(driver, kind)
            for layer in range(32):
                look = styles[layer]
                found = "reverse" if look.reverse else "bold" if look.bold else ""
                assert found == lit.get(layer, ""), (kind, layer)
        for part in ("0: 4.feed_forward  computing", "1: 5.feed_forward  ▓▓▓▓▓░░░  62 %", "8.9 GB/token"):
            assert part in driver.screen_text
        tile = Activity("output.1", (None, InSlot("output.0", 5, 9, "copying")))
        driver.backend.emit(tile)
        await driver.settle()
        assert cells(driver).computing == cells(driver).moving == {"output"}
        assert "output  S tile 2/2" in driver.screen_text
        driver.backend.emit(Activity(placing="layers.1.wq"))
        await driver.settle()
        assert cells(driver).moving == {"layers.1.wq"}
        driver.backend.emit(Activity())
        await driver.settle()
        assert not cells(driver).moving | cells(driver).computing
        assert "2 tiles" in driver.screen_text


def styles_of(driver: Driver, kind: str) -> list[Any]:
    """The style of the letter of every layer, three cells a layer."""
    strip = cells(driver).render_line(1 + KINDS.index(kind))
    styles = [segment.style for segment in strip for _ in segment.text]
    return styles[6 : 6 + 3 * 32 : 3]


async def test_an_ansi_theme_says_all_of_it_without_mixing_colours(open_chat: Open) -> None:
    async with open_chat(streamed(), size=(120, 40)) as driver:
        driver.app.theme = "ansi-dark"
        await driver.press("f4")
        driver.backend.emit(BUSY)
        await driver.press("right", "s")
        looks = styles_of(driver, "w1")
        assert looks[4].bold
        assert not looks[4].reverse
        assert looks[5].reverse
        assert not looks[6].bold
        assert not looks[6].reverse
        assert styles_of(driver, "wq")[1].underline
        assert row(driver, "wq").startswith(" G [s] G ")
        colours = {style.color for kind in KINDS for style in styles_of(driver, kind) if style.color}
        assert all(colour.triplet is None or colour.is_default for colour in colours)


async def test_the_engine_is_looked_at_only_while_the_map_is_seen(open_chat: Open) -> None:
    async with open_chat(streamed()) as driver:
        assert driver.sent(Watch) == []
        await driver.press("f4")
        assert driver.sent(Watch) == [Watch(True)]
        await driver.press("f1")  # something before it
        assert driver.sent(Watch)[-1] == Watch(False)
        await driver.press("escape")
        assert isinstance(driver.app.screen, MapScreen)
        assert driver.sent(Watch)[-1] == Watch(True)
        await driver.press("f4")
        assert driver.app.screen is driver.chat
        assert driver.sent(Watch)[-1] == Watch(False)
        driver.backend.emit(BUSY)  # on its way still
        await driver.settle()
        await driver.say("/map")
        assert isinstance(driver.app.screen, MapScreen)


async def test_an_unchanged_activity_repaints_nothing(
    open_chat: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_chat(streamed(), size=(120, 40)) as driver:
        await driver.press("f4")
        driver.backend.emit(BUSY)
        await driver.settle()
        painted: list[object] = []
        monkeypatch.setattr(cells(driver), "refresh", lambda *regions, **_: painted.extend(regions))
        driver.backend.emit(replace(BUSY))
        await driver.settle()
        assert painted == []
        driver.backend.emit(replace(BUSY, computing="layers.5.attention"))
        await driver.settle()
        assert {region.y for region in painted} == {1, 2, 3, 4, 5, 6, 7}  # type: ignore[attr-defined]
        assert all(region.height == 1 for region in painted)  # type: ignore[attr-defined]


async def test_the_reply_goes_on_behind_the_map(open_chat: Open) -> None:
    for size in ((40, 12), (120, 40)):
        async with open_chat(streamed(), size=size) as driver:
            await driver.say("go")
            await driver.press("f4")
            await driver.advance(3)
            assert "tok/s" in driver.screen_text
            assert "Esc stop" not in driver.screen_text  # here it goes back
            await driver.advance(30)
            assert "idle · 60 tok" in driver.screen_text
            await driver.press("escape")
            assert driver.text_of(1).endswith("word59")
            await driver.until(lambda: "word59" in driver.screen_text)


async def test_what_grows_behind_the_map_is_not_painted_until_it_is_seen(
    open_chat: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_chat(streamed(), size=(120, 40)) as driver:
        await driver.say("go")
        await driver.press("f4")
        await driver.advance(0.5)
        assert not driver.chat.is_current
        painted: list[object] = []
        refresh = MapScreen.refresh
        monkeypatch.setattr(
            MapScreen,
            "refresh",
            lambda page, *regions, **how: painted.append(regions) or refresh(page, *regions, **how),
        )
        await driver.advance(3)
        assert painted == []
        monkeypatch.undo()
        await driver.press("escape", "f1")
        assert driver.chat.is_current  # a dialog shows what is below


async def test_before_the_model_is_there_the_map_waits_for_it(open_chat: Open) -> None:
    async with open_chat(streamed(), ready=False) as driver:
        await driver.press("f4")
        assert "MEMORY MAP  fake" in driver.screen_text
        assert "known when the model is loaded" in driver.screen_text
        await driver.press("right", "down", "r", "g")
        assert "once the model is loaded" in driver.screen_text
        await driver.advance(3)
        assert row(driver, "wq").startswith("[G]")
        assert "llama-2-7b-chat · 32 layers · float16 · 13.5 GB" in driver.screen_text


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (40, 12)])
async def test_on_the_cpu_the_map_shows_it_and_says_so(open_chat: Open, size: tuple[int, int]) -> None:
    plan = plan_7b(Choice(), ON_CPU)
    async with open_chat(streamed(plan), size=size) as driver:
        await driver.press("f4")
        assert row(driver, "w3").count("C") >= 32
        assert not set("GSD") & set(row(driver, "w3"))
        assert re.search("(everything is computed|all) on the CPU", driver.screen_text)
        driver.backend.emit(Activity("layers.2.attention"))
        await driver.settle()
        assert cells(driver).computing == {f"layers.2.{kind}" for kind in ATTENTION}
        await driver.press("g")
        assert "the model is computed on the CPU" in driver.screen_text
        assert driver.sent(Apply) == []
        disk = plan_7b(Choice(), replace(ON_CPU, ram=8 * GB))
        driver.backend.emit(Placed(disk))
        await driver.settle()
        assert "D" in "".join(row(driver, kind) for kind in KINDS)
        assert "GB/token from disk" in driver.screen_text


async def test_a_simulated_device_is_called_so_at_every_size(open_chat: Open) -> None:
    simulated = FakeBackend(load=loads(plan_7b(budget=SIMULATED), SIMULATED_7B))
    for size in SIZES:
        async with open_chat(simulated, size=size) as driver:
            await driver.press("f4")
            assert "SIMULATED" in driver.screen_text
        simulated = FakeBackend(load=loads(plan_7b(budget=SIMULATED), SIMULATED_7B))


async def test_a_terminal_that_is_too_small(open_chat: Open) -> None:
    async with open_chat(streamed(), size=(80, 24)) as driver:
        await driver.press("f4")
        for size in ((39, 12), (40, 11), (10, 3), (300, 100), (40, 12)):
            await driver.pilot.resize_terminal(*size)
            await driver.settle()
            assert page(driver).has_class("-too-small") is (size[0] < 40 or size[1] < 12)
        await driver.pilot.resize_terminal(39, 12)
        await driver.settle()
        assert "39x12 is too small" in driver.screen_text


# --- what the keys do ---------------------------------------------------------------------------


async def test_arrows_move_and_shift_names_ranges(open_chat: Open) -> None:
    async with open_chat(streamed(), size=(120, 40)) as driver:
        await driver.press("f4")
        assert named(driver) == {"layers.0.wq"}
        await driver.press("left", "up")
        assert named(driver) == {"layers.0.wq"}
        await driver.press("right", "right", "down", "left")
        assert named(driver) == {"layers.1.wk"}
        await driver.press("shift+right", "shift+right", "shift+down")
        assert named(driver) == {f"layers.{i}.{kind}" for i in (1, 2, 3) for kind in ("wk", "wv")}
        assert row(driver, "wk").startswith(" G [G  G  G] G ")
        assert "6 cells: layers.1-3 wk wv · 201 MB · 6 GPU" in driver.screen_text
        await driver.press("shift+left", "shift+up", "shift+up")
        assert named(driver) == {f"layers.{i}.{kind}" for i in (1, 2) for kind in ("wk", "wq")}
        await driver.press("down")
        assert named(driver) == {"layers.2.wk"}
        await driver.press("end", "r")
        assert named(driver) == {f"layers.{i}.wk" for i in range(32)}
        await driver.press("home", "R")  # as it is written
        assert named(driver) == {f"layers.{i}.wk" for i in range(32)}
        await driver.press("home", *["down"] * 9, "right", "shift+right", "shift+up")
        assert named(driver) == {"embeddings", "output"}
        await driver.press("r")
        assert named(driver) == {"norms", "embeddings", "output"}
        await driver.press("up")
        assert named(driver) == {"layers.0.w3"}


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (40, 12)])
async def test_a_change_its_what_if_undo_and_f8(open_chat: Open, size: tuple[int, int]) -> None:
    async with open_chat(streamed(), size=size) as driver:
        before = plan_7b(budget=ROOMY)
        await driver.press("f4", *["down"] * 5, "right", "right", "shift+right", "g")
        names = tuple(f"layers.{i}.w2" for i in (2, 3))
        after = plan_7b(Choice(True, (*ATTENTION, *names)), ROOMY)
        assert row(driver, "w2").replace(" ", "").replace("[", "").replace("]", "").startswith("SSggSSS")
        text = driver.screen_text
        taken = [f"{(plan.vram or 0) / GB:.1f}" for plan in (before, after)]
        assert f"VRAM {taken[0]}→{taken[1]} of 10.0" in text
        assert "F8 apply" in text
        if size[0] > 40:
            assert "2 changes" in text
            moved = [f"{plan.streamed_per_token / GB:.1f}" for plan in (before, after)]
            assert f"{moved[0]}→{moved[1]} GB/token" in text
            assert "limited by: PCIe" in text
            assert "then 2 GPU" in text
        await driver.press("c")
        assert pending(driver).cpu == ("layers.2-3.w2",)
        await driver.press("u")
        assert pending(driver).kept >= set(names)
        assert driver.sent(Apply) == []
        await driver.press("f8")
        assert [command.plan.places for command in driver.sent(Apply)] == [after.places]
        await driver.press("f8")
        assert "already" in driver.screen_text
        await driver.advance(0.5)
        page(driver).query_one("#map-status").end_flash()  # type: ignore[attr-defined]
        await driver.settle()
        assert "moving weights" in driver.screen_text
        await driver.advance(1)
        assert not driver.chat.session.placement.pending
        assert row(driver, "w2").replace(" ", "").replace("[", "").replace("]", "").startswith("SSGGSSS")
        await driver.press("f8")
        assert "no change of the placement is pend" in driver.screen_text
        await driver.press("u")
        assert "nothing is pending" in driver.screen_text


async def test_every_key_that_changes_a_place(open_chat: Open) -> None:
    async with open_chat(streamed(), size=(120, 40)) as driver:
        await driver.press("f4", "s")
        assert pending(driver).kept == driver.chat.session.placement._now().kept - {"layers.0.wq"}
        await driver.press("down", "C")
        assert pending(driver).cpu == ("layers.0.wk",)
        assert row(driver, "wk").startswith("[c]")
        await driver.press("g", "up", "g")
        assert not driver.chat.session.placement.pending
        await driver.press(*["down"] * 7, "s")
        assert "norms always stay" in driver.screen_text
        assert not driver.chat.session.placement.pending
        await driver.press("right", "r", "c")
        assert pending(driver).cpu == ("embeddings", "output")
        shown = driver.chat.session.placement.shown
        assert shown.places["output"] is shown.places["embeddings"] is Place.CPU


async def test_the_sidebar_and_the_map_have_one_wish(open_chat: Open) -> None:
    async with open_chat(streamed(), size=(120, 40)) as driver:
        await driver.say("/keep attention,w2")
        await driver.press("f4")
        assert "32 changes" in driver.screen_text
        assert row(driver, "w2").startswith(" g  g  g ")
        await driver.press(*["down"] * 5, "s", "escape")
        assert "[~]w2*" in driver.screen_text
        assert "F8 apply" in driver.screen_text
        await driver.say("/cpu_layers w1")
        await driver.press("f4")
        assert row(driver, "w1").startswith(" c  c  c ")


async def test_what_does_not_fit_says_why_and_is_not_applied(open_chat: Open) -> None:
    plan = plan_7b(budget=replace(ROOMY, vram=7 * GB))
    for size in ((120, 40), (80, 24), (40, 12)):
        async with open_chat(streamed(plan), size=size) as driver:
            await driver.press("f4", *["down"] * 5, "r", "g")
            assert "the model does not fit" in driver.screen_text
            assert row(driver, "w2").replace(" ", "").replace("[", "").startswith("gggg")
            await driver.press("f8")
            assert driver.sent(Apply) == []
            await driver.press("u")
            assert "does not fit" not in driver.screen_text.splitlines()[-3]
            assert not driver.chat.session.placement.pending


async def test_what_goes_wrong_is_said_where_it_is_seen(open_chat: Open) -> None:
    backend = streamed()
    backend.refusal = "no room in memory for it"
    async with open_chat(backend, size=(120, 40)) as driver:
        await driver.press("f4", "s", "f8")
        await driver.advance(2)
        assert "no room in memory for it" in driver.screen_text
        assert row(driver, "wq").startswith("[s]")  # still wanted


async def test_a_click_names_a_cell(open_chat: Open) -> None:
    async with open_chat(streamed(), size=(120, 40)) as driver:
        await driver.press("f4")
        await driver.pilot.click("#map-cells", offset=(5 + 3 * 7 + 1, 6))
        assert named(driver) == {"layers.7.w2"}
        await driver.pilot.click("#map-cells", offset=(5 + 3 * 8, 7), shift=True)
        assert named(driver) == {f"layers.{i}.{kind}" for i in (7, 8) for kind in ("w2", "w3")}
        line = driver.screen_text.splitlines()[11]
        await driver.pilot.click("#map-cells", offset=(line.index("output"), 8))
        assert named(driver) == {"output"}
        for offset in ((0, 3), (118, 3), (20, 0)):  # where no cell is
            await driver.pilot.click("#map-cells", offset=offset)
            assert named(driver) == {"output"}
        keys_line = driver.screen_text.splitlines()[-1]
        await driver.pilot.click("#map-keys", offset=(keys_line.index("row"), 0))
        assert named(driver) == {"norms", "embeddings", "output"}
        await driver.pilot.click("#map-keys", offset=(keys_line.index("back"), 0))
        assert driver.app.screen is driver.chat


async def test_moved_keys_act_and_are_named(open_chat: Open, tmp_path: Any) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[keys]\nmap_keep = "k"\nmap_apply = "f5"\nclose_map = "q"\n', encoding="utf-8")
    config: Config = read_config(path)
    try:
        async with open_chat(streamed(), size=(120, 40), config=config) as driver:
            await driver.press("f4", *["down"] * 4, "g")
            assert not driver.chat.session.placement.pending
            await driver.press("k")
            assert driver.chat.session.placement.pending
            assert "F5 apply" in driver.screen_text
            assert "k keep" in driver.screen_text
            await driver.press("f5")
            assert len(driver.sent(Apply)) == 1
            await driver.press("q")
            assert driver.app.screen is driver.chat
    finally:
        keys.use({})


async def test_every_action_of_the_map_does_something_without_a_model_too(open_chat: Open) -> None:
    async with open_chat(streamed(), ready=False) as driver:
        await driver.press("f4")
        for action in ACTIONS:
            if action.scope == "map" and action.id != "close_map":
                driver.app.post_message(events.Key(action.keys[0], None))
                await driver.settle()
        assert isinstance(driver.app.screen, MapScreen)


async def test_other_pages_take_the_maps_place(open_chat: Open) -> None:
    async with open_chat(streamed()) as driver:
        for key in ("f3", "f12"):
            await driver.press("f4")
            await driver.until(lambda: isinstance(driver.app.screen, MapScreen))
            await driver.press(key)
            await driver.until(lambda: not isinstance(driver.app.screen, MapScreen))
            assert driver.sent(Watch)[-1] == Watch(False)
            assert len(driver.app.screen_stack) == 2
        await driver.press("escape")
        assert driver.app.screen is driver.chat
