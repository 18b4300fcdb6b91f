"""The memory map over a real engine on the simulated device: what is lit, and whose bytes it shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from textual.pilot import Pilot

from core.engine.events import Snapshot
from core.engine.worker import LocalBackend
from core.options import LoadOptions, default_values
from core.traffic import TrafficMeter
from core.weights.needs import aligned
from core.weights.plan import Choice
from tests.held import Gate, gate_at_computing, gate_at_copy
from tests.streamed import accidents, chosen, greedy, small, start
from tui.app import LlamaApp
from tui.cells import grid_of
from tui.chat_session import ChatSession
from tui.map_words import link_words
from tui.screens.map import MapScreen
from tui.settings import Settings
from tui.talk import Talk
from tui.widgets.memory_map import MemoryMap

__all__ = ["small"]  # a fixture

KEEP = ("wq", "w2")
OPTIONS = LoadOptions(
    "", device="sim", synthetic="tiny", dtype="float32", raw=True, context=128, keep=KEEP, offload=True
)


@asynccontextmanager
async def chatting() -> AsyncIterator[tuple[Pilot[Any], LocalBackend]]:
    """The app with the tiny model, loaded."""
    backend = LocalBackend(meters=True)
    session = ChatSession(
        backend, OPTIONS, Settings(default_values() | {"temperature": 0.0, "max_tokens": 6})
    )
    app = LlamaApp(Talk(session, "tiny", (), None, None))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: session.model is not None)
        yield pilot, backend
        app.exit()
    assert await asyncio.to_thread(backend.close, 5)


async def until(pilot: Pilot[Any], condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await pilot.pause(0.02)


async def lit(pilot: Pilot[Any], gate: Gate, settled: Callable[[MemoryMap], object]) -> MemoryMap:
    """The map while the engine is held in the middle of a reply."""
    await pilot.press(*"5", "space", *"77", "enter")
    assert await asyncio.to_thread(gate.reached.wait, 20)
    await pilot.press("f4")
    screen = pilot.app.screen
    assert isinstance(screen, MapScreen)
    await until(pilot, lambda: settled(screen.cells))
    await pilot.pause(0.25)  # two more looks at the engine, which stands still
    return screen.cells


@pytest.mark.parametrize(
    ("unit", "streamed"),
    [
        ("layers.1.attention", {"layers.1.wk", "layers.1.wv", "layers.1.wo"}),
        ("layers.2.feed_forward", {"layers.2.w1", "layers.2.w3"}),
        ("output.1", {"output"}),
    ],
)
async def test_a_run_held_in_the_copy_of_a_unit_lights_its_streamed_cells_alone(
    unit: str, streamed: set[str]
) -> None:
    async with chatting() as (pilot, backend):
        assert backend._engine is not None
        with gate_at_copy(backend._engine.machine.lane, unit) as gate:
            cells = await lit(pilot, gate, lambda cells: cells.moving and not cells.computing)
            assert cells.moving == streamed
            assert cells.computing == set()
        await until(pilot, lambda: not cells.moving | cells.computing)


async def test_a_run_held_in_the_computing_of_a_unit_lights_all_its_cells() -> None:
    async with chatting() as (pilot, backend):
        assert backend._engine is not None
        with gate_at_computing(backend._engine, "layers.1.feed_forward") as gate:
            cells = await lit(pilot, gate, lambda cells: cells.computing and not cells.moving)
            assert cells.computing == {"layers.1.w1", "layers.1.w2", "layers.1.w3"}
            assert cells.moving == set()
        await until(pilot, lambda: not cells.moving | cells.computing)


@pytest.mark.parametrize("shape", ["tiny", "tied"])
def test_the_maps_bytes_are_the_lanes(shape: str) -> None:
    engine = start("sim", shape, offload=True)
    ledger, lane, now = engine.machine.ledger, engine.machine.lane, [0.0]
    meter = TrafficMeter(lambda: ledger, lambda: now[0])
    for choice in (Choice(offload=True), Choice(keep=KEEP), Choice(keep=("attention", "layers.0-1"))):
        engine.placement.apply(chosen(engine, choice))
        placed = engine.placement.placed()
        grid = grid_of(placed.plan, placed.pageable)
        assert sum(cell.nbytes for cell in grid.cells()) == placed.plan.needs.weights
        counted: list[int] = []

        def count(i: int, counted: list[int] = counted) -> None:
            lane.drain()  # copies run ahead of the token
            counted.append(ledger.to_device)

        greedy(engine, before=count)
        streamed = sum(cell.streamed for cell in grid.cells())
        assert {after - before for before, after in pairwise(counted[1:])} == {streamed}
        assert streamed == placed.plan.streamed_per_token
        meter.read()
        now[0] += 1e-6
        before = ledger.to_device
        greedy(engine, 3)
        lane.drain()
        rate = (ledger.to_device - before) / 1e-6
        words = link_words(placed.plan, Snapshot(**meter.read()))
        assert words[1].startswith(f"PCIe {rate / 1e9:.1f} of 10.0 GB/s")
    engine.placement.close()


def test_what_could_not_be_pinned_is_shown_as_pageable(monkeypatch: pytest.MonkeyPatch) -> None:
    accidents(monkeypatch, 1, pinned=300_000)
    engine = start("sim", offload=True)
    placed = engine.placement.placed()
    grid = grid_of(placed.plan, placed.pageable)
    pageable = [cell for cell in grid.cells() if cell.letter == "P" and cell.name != "embeddings"]
    assert placed.ram_unpinned == sum(aligned(cell.nbytes) for cell in pageable) > 0
    assert {cell.letter for row in grid.rows for cell in row} == {"S", "P"}
    engine.placement.close()
