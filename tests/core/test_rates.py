"""The cache of rates: what was kept comes back, and what is damaged does no harm."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from core.weights.plan import Rate, Rates
from core.weights.rates import FILE_NAME, load_rates, save_rates

MEASURED = Rates(Rate(24.5, "measured"), Rate(800, "measured"), Rate(21, "measured"), Rate(1), unit_s=3e-5)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMA_TUI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_without_a_measurement_they_are_assumed() -> None:
    assert load_rates("A card", "float16") == Rates(Rate(12), Rate(300), Rate(15), Rate(1))
    assert load_rates("sim", "float16") == Rates(Rate(12), Rate(15), Rate(15), Rate(1))


def test_int8_mixed_is_as_fast_as_int8_until_it_was_measured() -> None:
    """And what it measures is not taken for int8's."""
    save_rates("A card", "int8", MEASURED)
    save_rates("cpu", "int8", Rates(Rate(1), Rate(1), Rate(1), Rate(2.5, "measured")))
    known = load_rates("A card", "int8")
    assert load_rates("A card", "int8-mixed") == known
    assert known.disk == Rate(2.5, "cached")
    save_rates("A card", "int8-mixed", Rates(Rate(24), Rate(90, "measured"), Rate(3, "measured"), Rate(1)))
    assert load_rates("A card", "int8-mixed").gpu == Rate(90, "cached")
    assert load_rates("A card", "int8") == known
    assert load_rates("A card", "int4").gpu == Rate(300)


def test_what_was_measured_is_cached_and_what_was_not_stays_assumed(cache: Path) -> None:
    save_rates("A card", "float16", MEASURED)
    assert load_rates("A card", "float16") == Rates(
        Rate(24.5, "cached"), Rate(800, "cached"), Rate(21, "cached"), Rate(1), unit_s=3e-5
    )
    assert load_rates("A card", "bfloat16").gpu == Rate(300)
    assert load_rates("Another", "float16").link == Rate(12)
    assert [path.name for path in cache.iterdir()] == [FILE_NAME]
    disk = Rates(Rate(12), Rate(300), Rate(15), Rate(3.5, "measured"))
    save_rates("A card", "float16", disk)  # adds to what is there
    both = load_rates("A card", "float16")
    assert (both.link, both.disk) == (Rate(24.5, "cached"), Rate(3.5, "cached"))
    save_rates("A card", "float32", MEASURED)
    assert load_rates("A card", "float16") == both


def test_the_simulated_device_computes_as_the_cpu_does() -> None:
    save_rates("cpu", "float32", Rates(Rate(1), Rate(1), Rate(18, "measured"), Rate(2, "measured")))
    rates = load_rates("sim", "float32")
    assert (rates.gpu, rates.cpu, rates.disk) == (Rate(18, "cached"), Rate(18, "cached"), Rate(2, "cached"))
    assert load_rates("A card", "float32").gpu == Rate(300)
    save_rates("sim", "float32", Rates(Rate(1), Rate(9, "measured"), Rate(9, "measured"), Rate(1)))
    assert load_rates("sim", "float32").gpu == Rate(9, "cached")


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "7", "\ud800", '{"A card": 3}', '{"A card": {"float16": []}}', "[" * 100_000,
        '{"A card": {"float16": {"link": "fast", "gpu": -1, "cpu": true, "disk": NaN, "unit_s": 7}}}',
        '{"A card": {"float16": {"link": 0, "gpu": 1e99, "cpu": null, "disk": Infinity, "unit_s": -1}}}',
    ],
)  # fmt: skip
def test_a_damaged_cache_is_ignored_and_written_anew(cache: Path, text: str) -> None:
    cache.mkdir()
    (cache / FILE_NAME).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert load_rates("A card", "float16") == Rates(Rate(12), Rate(300), Rate(15), Rate(1))
    save_rates("A card", "float16", MEASURED)
    assert load_rates("A card", "float16").link == Rate(24.5, "cached")
    json.loads((cache / FILE_NAME).read_text())


def test_a_cache_that_cannot_be_written_ends_nothing(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    save_rates("A card", "float16", MEASURED)
    assert load_rates("A card", "float16").link == Rate(12)


def test_without_a_known_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMA_TUI_CACHE")
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    save_rates("A card", "float16", MEASURED)
    assert load_rates("A card", "float16").link == Rate(12)
