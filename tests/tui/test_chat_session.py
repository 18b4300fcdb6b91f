from __future__ import annotations

import pytest

from core.engine.commands import Apply, Command, Configure, Load, Stop, Submit, Unload
from core.engine.events import (
    Begun,
    Delta,
    Done,
    Loading,
    ModelInfo,
    Placed,
    Placing,
    Prefill,
    Ready,
    Reason,
    Reply,
    Stats,
)
from core.options import LoadOptions, default_values
from tests.fake_backend import MODEL, FakeBackend
from tests.fake_plans import plan_7b
from tui.chat_session import ChatSession
from tui.settings import Settings


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def session(clock: Clock) -> ChatSession:
    session = ChatSession(FakeBackend(), LoadOptions("x"), Settings(default_values()), clock=clock)
    session.start(lambda event: None)
    return session


def commands(session: ChatSession) -> list[Command]:
    assert isinstance(session.backend, FakeBackend)
    return session.backend.commands


def load(session: ChatSession, model: ModelInfo = MODEL) -> None:
    session.loaded(Ready(model))


def delta(run: int, count: int = 1) -> Delta:
    return Delta(run, "word", tuple(range(count)), (1.5,) * count)


def test_speed_is_the_mean_of_the_last_three_seconds(session: ChatSession, clock: Clock) -> None:
    load(session)
    session.send("go")
    for _ in range(10):  # a slow start that must be forgotten
        clock.now += 2
        session.grew(delta(1))
    assert session.speed == pytest.approx(0.5)
    for _ in range(40):
        clock.now += 0.2
        session.grew(delta(1))
    assert session.speed == pytest.approx(5)
    assert session.state() == "replying 5.0 tok/s · token 50/512 · Esc stop"


def test_speed_needs_two_readings(session: ChatSession) -> None:
    load(session)
    session.send("go")
    session.grew(delta(1, 4))
    assert session.speed is None
    assert session.state() == "replying · token 4/512 · Esc stop"


def test_load_shows_share_and_speed(session: ChatSession) -> None:
    assert session.state() == "starting"
    session.load_progressed(Loading("starting torch"))
    assert session.state() == "starting torch"
    session.load_progressed(Loading("reading weights", 0, 10**9))
    assert session.state() == "reading weights 0 % · 0.00 of 1.0 GB"
    session.load_progressed(Loading("reading weights", 430_000_000, 10**9, 0.2e9, 2.85))
    assert session.state() == "reading weights 43 % · 0.43 of 1.0 GB · 0.20 GB/s · 2.9 s left"


def test_what_weights_do_is_told_while_a_reply_runs(session: ChatSession) -> None:
    load(session)
    session.placement.placed(Placed(plan_7b()))
    session.send("go")
    session.placement.moved(Placing(1_200_000_000, 2_900_000_000))
    assert session.state() == "waiting for the engine · moving weights 1.2 of 2.9 GB · Esc stop"
    session.prefilled(Prefill(1, 64, 118, 0))
    assert session.state() == "prefill 54 % · 64/118 tok · moving weights 1.2 of 2.9 GB · Esc stop"
    session.grew(delta(1, 4))
    assert session.state() == "replying · token 4/512 · moving weights 1.2 of 2.9 GB · Esc stop"
    session.placement.placed(Placed(plan_7b()))
    assert session.state() == "replying · token 4/512 · limited by PCIe · Esc stop"
    session.send("more")
    assert session.state() == "replying · token 4/512 · limited by PCIe · 1 queued · Esc stop · next: more"


def test_idle_says_that_weights_move(session: ChatSession) -> None:
    load(session)
    placed = Placed(plan_7b())
    session.placement.placed(placed)
    assert isinstance(session.backend, FakeBackend)
    session.backend.plan = placed.plan
    assert session.state() == "idle"
    session.placement.step_vram(1)
    session.apply()
    assert isinstance(commands(session)[-1], Apply)
    assert session.state() == "moving weights"
    session.placement.moved(Placing(0, 10**9))
    assert session.state() == "moving weights 0.00 of 1.0 GB"


def test_prefill_and_queue_are_counted(session: ChatSession) -> None:
    load(session)
    session.send("a")
    session.send("b")
    assert session.state() == "waiting for the engine · 1 queued · Esc stop · next: b"
    session.prefilled(Prefill(1, 64, 118, 0))
    assert session.state() == "prefill 54 % · 64/118 tok · 1 queued · Esc stop · next: b"


def test_prefill_tells_share_speed_and_time_left_of_what_is_not_cached(
    session: ChatSession, clock: Clock
) -> None:
    load(session)
    session.send("a")
    session.begun(Begun(1, 1, 2, None, "a"))
    session.prefilled(Prefill(1, 1000, 1200, 1000))
    assert session.state() == "prefill 0 % · 0/200 tok · cached 1000 · Esc stop"
    clock.now += 2
    session.prefilled(Prefill(1, 1060, 1200, 1000))
    assert session.state() == "prefill 30 % · 30.0 tok/s · 4.7 s left · 60/200 tok · cached 1000 · Esc stop"
    clock.now += 10  # a long pass: the speed is that over it
    session.prefilled(Prefill(1, 1080, 1200, 1000))
    assert "prefill 40 % · 2.0 tok/s · 60 s left" in session.state()
    session.grew(delta(1, 1))
    session.finished(Done(1, Reason.STOP, Stats()))
    session.send("b")
    session.begun(Begun(2, 3, 4, None, "b"))
    session.prefilled(Prefill(2, 1100, 1300, 1100))
    assert session.state() == "prefill 0 % · 0/200 tok · cached 1100 · Esc stop"


def test_moving_weights_tells_speed_and_time_left(session: ChatSession, clock: Clock) -> None:
    load(session)
    session.placement.placed(Placed(plan_7b()))
    for done in (0, 10**9, 2 * 10**9):
        session.moved(Placing(done, 4 * 10**9))
        clock.now += 0.5
    assert session.state() == "moving weights 2.0 of 4.0 GB · 2.0 GB/s · 1.0 s left"
    session.moved(Placing(0, 10**9))  # another change
    assert session.state() == "moving weights 0.00 of 1.0 GB"


def test_a_run_takes_as_long_as_from_its_beginning_to_its_end(session: ChatSession, clock: Clock) -> None:
    load(session)
    session.send("a")
    clock.now += 50  # it waits for its turn
    session.begun(Begun(1, 1, 2, None, "a"))
    clock.now += 7
    session.grew(delta(1))
    clock.now += 5
    session.finished(Done(1, Reason.STOP, Stats()))
    assert session.took == 12


def test_slow_tokens_have_a_speed_too(session: ChatSession, clock: Clock) -> None:
    load(session)
    session.send("a")
    for _ in range(3):
        clock.now += 8
        session.grew(delta(1))
    assert session.speed == pytest.approx(1 / 8)


def test_a_load_can_be_given_up(session: ChatSession) -> None:
    session.load_progressed(Loading("reading weights", 430_000_000, 10**9))
    session.unload()
    assert commands(session)[-1] == Unload()
    assert session.state() == "giving up the load"
    session.load_progressed(Loading("reading weights", 440_000_000, 10**9))
    assert session.state() == "giving up the load"
    session.unloaded()
    assert session.state() == "the model is unloaded · the next message loads it again"
    assert not session.is_loading
    assert not session.at_work


def test_what_was_cached_is_told_of_the_last_reply(session: ChatSession) -> None:
    load(session)
    session.send("a")
    session.grew(delta(1, 3))
    reply = Reply("a b c", (1, 2, 3), (1.0,) * 3, Reason.STOP, 7, None, 60, 41, Stats())
    session.finished(Done(1, Reason.STOP, Stats(), reply))
    assert session.state() == "idle · 3 tok · cached 41"


def test_events_of_a_dropped_run_change_nothing_on_screen(session: ChatSession) -> None:
    load(session)
    session.send("a")
    session.new_chat()
    assert session.grew(delta(1)) is None
    assert session.prefilled(Prefill(1, 1, 2, 0)) is None
    assert session.state() == "stopping"


def test_stop_is_aimed_at_the_running_reply(session: ChatSession) -> None:
    load(session)
    assert not session.stop()
    session.send("a")
    session.send("b")
    assert session.stop()
    assert commands(session)[-3:] == [Submit(1, "a"), Submit(2, "b"), Stop(1)]


def test_what_comes_before_the_start_is_sent_after_the_load() -> None:
    session = ChatSession(FakeBackend(), LoadOptions("x"), Settings(default_values()))
    session.send("early")
    session.configure()
    session.stop()
    assert commands(session) == []
    session.start(lambda event: None)
    kinds = [type(command) for command in commands(session)]
    assert kinds == [Load, Configure, Submit, Configure, Stop]


def test_context_is_what_the_last_exchange_left(session: ChatSession) -> None:
    load(session)
    assert session.conversation.context_used == 0
    session.send("a")
    session.prefilled(Prefill(1, 10, 30, 0))
    session.grew(delta(1, 4))
    assert session.conversation.context_used == 34
    session.send("b")  # nothing known of it yet
    assert session.conversation.context_used == 34
