"""What the meters say is copied and computed, against an engine that is held in the middle of it."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Iterator

import pytest

from core.engine.commands import Watch
from core.engine.events import Activity, Event, InSlot, Ready
from core.engine.load import Engine
from core.errors import Cancelled
from core.monitor import Watcher
from core.traffic import activity
from core.weights.ledger import Ledger, Passage, SlotCount
from core.weights.plan import Choice, Place
from tests.core.engine import Engine as Talk
from tests.held import gate_at_computing, gate_at_copy, held, until
from tests.streamed import bits, chosen, shrink, small, start

__all__ = ["small"]  # a fixture

UNITS = [f"layers.{i}.{part}" for i in range(3) for part in ("attention", "feed_forward")]
TILES = ["output.0", "output.1"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """All is streamed, through two slots."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, tmp_path_factory.mktemp("cache"))
        engine = start("sim", offload=True)
        assert len(engine.placement.plan.rings) == 2
        assert [unit.name for unit in engine.placement.plan.needs.units] == [*UNITS, *TILES]
        yield engine
        engine.placement.close()


def look(engine: Engine) -> Activity:
    return activity(engine.machine.ledger)


def in_state(engine: Engine, state: str) -> list[str]:
    return [slot.unit for slot in look(engine).slots if slot is not None and slot.state == state]


@pytest.mark.parametrize("unit", [*UNITS, *TILES])
def test_held_in_a_copy_it_alone_is_copied_and_nothing_computed(engine: Engine, unit: str) -> None:
    units = {unit.name: unit for unit in engine.placement.plan.needs.units}
    with gate_at_copy(engine.machine.lane, unit) as gate, held(gate, lambda: bits(engine)):
        # The one before is done, and this is waited for.
        until(lambda: look(engine).computing is None and in_state(engine, "copying"))
        assert in_state(engine, "copying") == [unit]
        nbytes = sum(weight.nbytes for weight in units[unit].weights)
        assert InSlot(unit, 0, nbytes, "copying") in look(engine).slots


@pytest.mark.parametrize("unit", [*UNITS, *TILES])
def test_held_in_a_computation_it_alone_is_computed_and_copies_end(engine: Engine, unit: str) -> None:
    with gate_at_computing(engine, unit) as gate, held(gate, lambda: bits(engine)):
        until(lambda: not in_state(engine, "copying"))
        assert look(engine).computing == unit
        assert len(look(engine).slots) == 2
        assert unit in in_state(engine, "there")
        assert in_state(engine, "waiting") == []


def test_nothing_is_computed_after_a_pass_nor_after_one_that_was_cut_short(engine: Engine) -> None:
    bits(engine)
    assert look(engine).computing is None
    walk = engine.model.units.walk(lambda: True)
    with contextlib.suppress(Cancelled):
        next(iter(walk))
    assert look(engine).computing is None
    walk = engine.model.units.walk(lambda: False)
    assert next(walk).name == look(engine).computing == UNITS[0]
    walk.close()  # type: ignore[attr-defined]
    assert look(engine).computing is None


def test_what_moves_to_another_place_is_named_while_it_does(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []
    monkeypatch.setattr(engine.placement, "_emit", lambda event: seen.append(look(engine).placing))
    plan = chosen(engine, Choice(keep=("layers.1.w2", "output")))
    engine.placement.apply(plan)
    kept = {name for name, place in plan.places.items() if place is Place.GPU}
    assert kept == {"layers.1.w2", "output"}
    assert kept < set(seen)
    assert seen[0] is seen[-1] is None
    engine.placement.apply(chosen(engine, Choice(offload=True)))


# --- without an engine ---------------------------------------------------------------------------


def test_copies_wait_for_the_one_that_was_begun_first() -> None:
    ledger = Ledger()
    assert activity(None) == activity(ledger) == Activity()
    passages = [Passage("d", 100, 9, 100, True), Passage("f", 100, 11), Passage("e", 100, 10, 62), None]
    ledger.slots = [SlotCount(passage) for passage in passages]
    ledger.computed = "d"
    waiting = InSlot("f", 0, 100, "waiting")
    slots = (InSlot("d", 100, 100, "there"), waiting, InSlot("e", 62, 100, "copying"), None)
    assert activity(ledger) == Activity(None, slots)
    ledger.computing, ledger.placing = True, "layers.0.w1"
    assert activity(ledger) == Activity("d", slots, "layers.0.w1")


def test_a_watcher_tells_what_is_new_and_stops() -> None:
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    now = [Activity("a")]
    watcher = Watcher(events.put, lambda: now[0], interval=0.001)
    watcher.start()
    assert events.get(timeout=5) == Activity("a")
    now[0] = Activity("b")
    assert events.get(timeout=5) == Activity("b")
    time.sleep(0.05)
    assert events.empty()
    watcher.stop()
    watcher._thread.join(5)
    assert not watcher._thread.is_alive()


def test_the_engine_tells_what_it_does_while_somebody_watches(start: Callable[..., Talk]) -> None:
    talk = start()
    talk.until(Ready)
    talk.ask("Once")
    assert not any(isinstance(event, Activity) for event in talk.seen)
    talk.send(Watch(True))
    began = time.perf_counter()
    assert talk.until(Activity) == Activity()
    busy: list[Activity] = []
    while not busy:
        talk.ask("Once upon a time")
        busy += [event for event in talk.seen if isinstance(event, Activity) and event != Activity()]
    assert {str(event.computing).partition(".")[0] for event in busy} <= {"layers", "output"}
    count = sum(isinstance(event, Activity) for event in talk.seen)
    assert count <= 10 * (time.perf_counter() - began) + 2
    talk.send(Watch(False))
    time.sleep(0.15)
    talk.ask("Once more")
    talk.seen.clear()
    talk.ask("Once more")
    assert not any(isinstance(event, Activity) for event in talk.seen)
