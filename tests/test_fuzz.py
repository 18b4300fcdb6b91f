"""A short run of `tests.fuzz`, and proof that it would tell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import fuzz
from tests.fuzz_originals import ORIGINALS, write_originals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")

CASES = 24


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("originals")
    write_originals(folder)
    return folder


@pytest.mark.parametrize("kind", ORIGINALS)
def test_damage_is_refused_or_harmless(originals: Path, kind: str) -> None:
    counts, failures = fuzz.run(originals, kind, CASES, seed=1)
    assert failures == []
    assert counts["refused"] + counts["loaded"] == CASES
    assert min(counts["refused"], counts["loaded"]) > 0  # else it damages nothing, or everything


@pytest.mark.alone
@pytest.mark.parametrize(
    ("sabotage", "what"),
    [
        ("import os; os.abort()", "the process ended with -6"),
        ("import time; time.sleep(60)", "no end within"),
        ("bytearray(2 * 10**9)", "MemoryError"),
    ],
)
def test_what_goes_wrong_is_told(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sabotage: str, what: str
) -> None:
    """Case 1 of 3 does what no reader may do; the other two are run all the same."""
    (tmp_path / "sitecustomize.py").write_text(
        "import core.engine.load as module, itertools\n"
        "real, count = module.load, itertools.count()\n"
        "def load(*arguments):\n"
        "    if next(count) == 1:\n"
        f"        {sabotage}\n"
        "    return real(*arguments)\n"
        "module.load = load\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(fuzz, "SECONDS", 2.0)
    counts, failures = fuzz.run(originals, "llama2", 3, seed=1)
    assert [failure.number for failure in failures] == [1]
    assert what in failures[0].what
    assert sum(counts.values()) == 2
