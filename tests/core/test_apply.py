"""Weights that move while the engine's thread runs: between two tokens of a reply, and when it is idle."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NoReturn

import pytest

import core.engine.load
from core.engine.commands import Apply, Configure, Load, Stop, Submit
from core.engine.events import Delta, Done, Event, Failed, Notice, Placed, Placing, Ready, Reason
from core.engine.placing import Machine
from core.engine.worker import LocalBackend
from core.errors import Cancelled, UserError
from core.options import LoadOptions, Sampling
from core.weights.lanes import SimulatedLane
from core.weights.placement import plan as make_plan
from core.weights.plan import Choice, Plan
from tests.streamed import small

__all__ = ["small"]

GREEDY = Sampling(temperature=0, max_tokens=40)


class Engine:
    """A backend on the simulated device, and its events."""

    def __init__(self, **options: object) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.backend = LocalBackend()
        self.backend.start(self.events.put)
        self.backend.submit(Configure(GREEDY))
        chosen = {"device": "sim", "dtype": "float32", "raw": True, "context": 128} | options
        self.backend.submit(Load(LoadOptions("", synthetic="tiny", **chosen)))  # type: ignore[arg-type]
        self.run = -1

    def until(self, kind: type[Event], seen: Callable[[Event], None] = lambda event: None) -> Event:
        while True:
            event = self.events.get(timeout=60)
            seen(event)
            if isinstance(event, kind):
                return event
            assert not (isinstance(event, Failed) and kind is not Failed), event

    def placed(self) -> Placed:
        event = self.until(Placed)
        assert isinstance(event, Placed)
        return event

    def ask(self, seen: Callable[[Event], None] = lambda event: None) -> Done:
        self.run += 1
        self.backend.submit(Submit(self.run, "5 77 250 3 9"))
        done = self.until(Done, seen)
        assert isinstance(done, Done)
        return done


@pytest.fixture
def start() -> Iterator[Callable[..., Engine]]:
    started: list[Engine] = []

    def begin(**options: object) -> Engine:
        started.append(Engine(**options))
        return started[-1]

    yield begin
    assert all(engine.backend.close(5) for engine in started)


def other(plan: Plan, **choice: object) -> Plan:
    return make_plan(plan.needs, plan.budget, Choice(**choice), plan.rates)  # type: ignore[arg-type]


def test_placed_comes_before_ready(start: Callable[..., Engine]) -> None:
    engine, order = start(), []
    engine.until(Ready, lambda event: order.append(type(event)))
    assert order.index(Placed) < order.index(Ready)


def test_a_reply_goes_on_while_weights_move(start: Callable[..., Engine]) -> None:
    """Applied after some tokens of a reply: the tokens are those of a reply without, and so are the bytes."""
    still = start(offload=True)
    plan = still.placed().plan
    want = still.ask().reply
    assert want is not None
    moving = start(offload=True, sim_link=0.02)  # 30 ms a token, so that there are many deltas
    moving.until(Ready)
    events: list[Event] = []
    plans = [other(plan, keep=("w1", "wq")), other(plan), other(plan, keep=("output",))]

    def change(event: Event) -> None:
        events.append(event)
        if isinstance(event, Delta) and plans:
            moving.backend.submit(Apply(plans.pop()))

    got = moving.ask(change).reply
    assert got is not None
    assert got.tokens == want.tokens
    assert any(isinstance(event, Placed) for event in events)
    placing = [event for event in events if isinstance(event, Placing)]
    assert placing[0].done_bytes == 0
    assert any(event.done_bytes == event.total_bytes for event in placing)
    assert not plans
    again = moving.ask().reply
    assert again is not None
    assert again.tokens == want.tokens
    assert again.cached_tokens == again.prompt_tokens - 1  # the cache was kept


def test_idle_weights_move_at_once_and_only_the_difference(start: Callable[..., Engine]) -> None:
    engine = start(offload=True)
    plan = engine.placed().plan
    sizes = {w.name: w.nbytes for unit in plan.needs.units for w in unit.weights}
    engine.until(Ready)
    engine.backend.submit(Apply(other(plan, keep=("w2",))))
    placing = engine.until(Placing)
    assert isinstance(placing, Placing)
    # w2 comes to the device, and what stays streamed of its unit is laid out anew.
    units = [f"layers.{i}.{w}" for i in range(3) for w in ("w1", "w2", "w3")]
    assert placing.total_bytes == sum(sizes[name] for name in units)
    now = engine.placed()
    assert now.plan.places["layers.1.w2"].value == "gpu"
    assert now.reason is None
    reply = engine.ask().reply
    assert reply is not None
    assert reply.stats.streamed_bytes_per_token == now.plan.streamed_per_token


@pytest.mark.alone
def test_the_stop_flag_ends_a_wait_for_the_bus(start: Callable[..., Engine]) -> None:
    """A bus so slow that a unit takes seconds: a stop does not wait for it."""
    engine = start(offload=True, sim_link=2e-5)
    engine.until(Ready)
    engine.run += 1
    engine.backend.submit(Submit(engine.run, "5 77"))
    engine.backend.submit(Stop(engine.run))
    started = time.monotonic()
    done = engine.until(Done)
    assert isinstance(done, Done)
    assert done.reason is Reason.CANCELLED
    assert time.monotonic() - started < 1.0


def no_room(nbytes: int) -> NoReturn:
    raise UserError("no room in memory")


def test_a_plan_that_cannot_be_carried_out_leaves_the_one_before(
    start: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start(keep=("w1",))
    before = engine.placed().plan
    want = engine.ask().reply
    with monkeypatch.context() as scarce:
        scarce.setattr("core.weights.store.HostBlock", no_room)
        engine.backend.submit(Apply(other(before, offload=True)))
        failed = engine.until(Failed)
        now = engine.placed().plan
    assert isinstance(failed, Failed)
    assert "no room in memory" in failed.text
    assert not failed.fatal
    assert now == before
    again = engine.ask().reply
    assert want is not None
    assert again is not None
    assert again.tokens == want.tokens


def test_a_cancelled_load_gives_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes: list[SimulatedLane] = []
    real = core.engine.load.machine_of

    def machine_of(options: LoadOptions) -> object:
        machine = real(options)
        lanes.append(machine.lane)  # type: ignore[arg-type]
        return machine

    monkeypatch.setattr(core.engine.load, "machine_of", machine_of)
    for after in range(0, 20, 3):
        looks = 0

        def cancelled(after: int = after) -> bool:
            nonlocal looks
            looks += 1
            return looks > after

        options = LoadOptions("", synthetic="tiny", device="sim", dtype="float32", raw=True, keep=("w1",))
        with pytest.raises(Cancelled):
            core.engine.load.load(replace(options, context=64), lambda event: None, cancelled)
        assert lanes[-1].used == 0


def test_a_card_with_less_than_it_said_gets_a_smaller_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that went to somebody else between plan and load: loaded again with less, and said."""
    real = core.engine.load.machine_of

    def machine_of(options: LoadOptions) -> Machine:
        machine = real(options)
        assert isinstance(machine.lane, SimulatedLane)
        machine.lane._card_bytes = 600_000  # of 800,000
        return machine

    monkeypatch.setattr(core.engine.load, "machine_of", machine_of)
    options = LoadOptions("", synthetic="tiny", device="sim", dtype="float32", raw=True, sim_vram=800_000)
    events: list[Event] = []
    engine = core.engine.load.load(replace(options, context=64), events.append, lambda: False)
    assert engine.placement.plan.vram is not None
    assert engine.placement.plan.vram <= 600_000
    assert any(isinstance(event, Notice) and "ran out of memory" in event.text for event in events)
    small_machine = engine.machine.lane
    assert isinstance(small_machine, SimulatedLane)
    assert small_machine.peak <= 600_000
    engine.placement.close()


def test_a_plan_that_fits_is_carried_out_as_it_is() -> None:
    """Nothing of the plan before is still on the device when the next one takes its place."""
    options = LoadOptions("", synthetic="tiny", device="sim", dtype="float32", raw=True, context=64)
    events: list[Event] = []
    engine = core.engine.load.load(replace(options, offload=True), events.append, lambda: False)
    lane, needs, rates = engine.machine.lane, engine.placement.plan.needs, engine.placement.plan.rates
    assert isinstance(lane, SimulatedLane)
    least = engine.placement.plan.vram
    whole = make_plan(needs, replace(engine.placement.plan.budget, vram=10**9), Choice(), rates).vram
    assert least is not None
    assert whole is not None
    for vram in (whole, least, *range(least, least + 600_000, 40_000), whole, least):
        budget = replace(engine.placement.plan.budget, vram=vram)
        plan = make_plan(needs, budget, Choice(), rates)
        engine.placement.apply(plan)
        assert engine.placement.plan == plan
        assert lane.used == plan.vram
    assert not any(isinstance(event, Placed) and event.reason for event in events)
    engine.placement.close()


def test_slots_are_given_back_before_weights_move() -> None:
    options = LoadOptions(
        "", synthetic="tiny", device="sim", dtype="float32", raw=True, context=64, offload=True
    )
    engine = core.engine.load.load(options, lambda event: None, lambda: False)
    placement, lane = engine.placement, engine.machine.lane
    assert isinstance(lane, SimulatedLane)
    lane.drain()
    placement._stream = placement._workspace = None
    placement._binder.release()
    assert lane.used == placement.plan.needs.kv + placement.plan.needs.norms
