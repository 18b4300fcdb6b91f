"""What a run without a screen says of where the weights are."""

from __future__ import annotations

from dataclasses import replace

from core.engine.events import Placed
from tests.fake_plans import plan_7b
from tui.console import placed_lines


def test_what_was_asked_for_needs_no_word() -> None:
    assert placed_lines(Placed(plan_7b())) == []


def test_a_change_nobody_asked_for_and_unpinned_memory_are_said() -> None:
    plan = replace(plan_7b(), streamed_per_token=5_800_000_000, predicted_tok_s=3.71)
    lines = placed_lines(Placed(plan, 3_200_000_000, "the device ran out of memory"))
    assert lines[0] == "the device ran out of memory: now 5.8 GB per token, 3.7 tok/s predicted"
    assert "did not let us pin 3.2 GB" in lines[1]
