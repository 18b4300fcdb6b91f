from __future__ import annotations

import pytest

from core.engine.events import Loading
from core.engine.load_meter import LoadMeter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_rate_and_time_left(clock: Clock) -> None:
    events: list[Loading] = []
    meter = LoadMeter(1000, events.append, clock)
    clock.now += 0.1
    meter.add(50)
    assert events == [Loading("reading weights", 50, 1000, None, None)]  # too early for a rate
    clock.now += 0.4
    meter.add(200)
    assert events[-1] == Loading("reading weights", 250, 1000, 500.0, 1.5)


def test_at_most_twenty_a_second_and_the_end(clock: Clock) -> None:
    events: list[Loading] = []
    meter = LoadMeter(1000, events.append, clock)
    for _ in range(1000):
        clock.now += 0.001
        meter.add(1)
    assert 18 <= len(events) <= 22
    assert events[-1].done_bytes == 1000
    assert events[-1].seconds_left == 0


def test_the_rate_is_that_of_the_last_seconds(clock: Clock) -> None:
    events: list[Loading] = []
    meter = LoadMeter(10_000, events.append, clock)
    for speed in [100] * 50 + [10] * 50:  # bytes in a tenth of a second: the page cache has run out
        clock.now += 0.1
        meter.add(speed)
    assert events[-1].bytes_per_s == pytest.approx(100)
    assert events[-1].seconds_left == pytest.approx((10_000 - 5500) / 100)
