"""The engine's counters as readings: rates over the time between two of them, memory by kind."""

from __future__ import annotations

from core.traffic import TrafficMeter
from core.weights.ledger import Ledger


def test_rates_are_over_the_time_since_the_last_reading() -> None:
    ledger, now = Ledger(), [10.0]
    meter = TrafficMeter(lambda: ledger, lambda: now[0])
    first = meter.read()["engine"]
    assert (first.to_gpu, first.from_gpu, first.from_disk) == (None, None, None)
    ledger.to_device, ledger.from_device, ledger.from_disk = 3_000, 500, 100
    now[0] = 10.5
    second = meter.read()["engine"]
    assert (second.to_gpu, second.from_gpu, second.from_disk) == (6_000, 1_000, 200)
    now[0] = 11.5
    third = meter.read()["engine"]
    assert (third.to_gpu, third.from_gpu, third.from_disk) == (0, 0, 0)


def test_another_model_begins_anew() -> None:
    ledgers, now = [Ledger(), Ledger()], [0.0]
    meter = TrafficMeter(lambda: ledgers[0], lambda: now[0])
    ledgers[0].to_device = 9_000
    meter.read()
    ledgers.pop(0)
    now[0] = 1.0
    assert meter.read()["engine"].to_gpu is None  # not minus nine thousand


def test_kinds_are_told_in_a_fixed_order_and_a_simulated_card_has_its_size() -> None:
    ledger = Ledger()
    ledger.device |= {"slots": 2, "resident": 5, "kv": 1}
    ledger.host |= {"pinned": 7}
    assert "vram_total" not in TrafficMeter(lambda: ledger).read()
    ledger.simulated, ledger.card = True, 100
    got = TrafficMeter(lambda: ledger).read()
    assert got["engine"].vram == (("context", 0), ("resident", 5), ("slots", 2), ("kv", 1), ("workspace", 0))
    assert got["engine"].ram == (("pinned", 7), ("pageable", 0), ("cpu", 0))
    assert (got["vram_total"], got["vram_used"]) == (100, 8)


def test_without_a_model_there_is_nothing_to_read() -> None:
    assert TrafficMeter(lambda: None).read() == {}
