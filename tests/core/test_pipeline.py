"""The time of a token against a slow and plain simulation of slots, one link and kernels."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.weights.pipeline import deal, token_seconds

TOKENS = 200
TIMES = st.integers(1, 20)


def plain(copies: list[int], computes: list[int], slots: int) -> float:
    """Mean time of the later half of many tokens, from the rules in words."""
    streamed = [i for i, copy in enumerate(copies) if copy]
    rings = [streamed[k::slots] for k in range(slots)]
    arrived: dict[tuple[int, int], float] = {(ring[0], 0): 0 for ring in rings if ring}
    now = link = half = 0.0
    for token in range(TOKENS):
        if token == TOKENS // 2:
            half = now
        for i, compute in enumerate(computes):
            if copies[i]:
                now = max(now, arrived[i, token])
            now += compute
            for ring in rings:
                if i in ring:
                    at = ring.index(i) + 1
                    heir = (ring[at], token) if at < len(ring) else (ring[0], token + 1)
                    if len(ring) > 1:
                        link = max(link, now) + copies[heir[0]]
                        arrived[heir] = link
                    else:
                        arrived[heir] = now
    return (now - half) / (TOKENS - TOKENS // 2)


@given(st.lists(st.tuples(st.one_of(st.just(0), TIMES), TIMES), min_size=1, max_size=9), st.integers(2, 4))
@example([(5, 1), (0, 9), (5, 1), (7, 1), (5, 1)], 2)
def test_it_is_the_plain_simulation(units: list[tuple[int, int]], slots: int) -> None:
    copies, computes = [copy for copy, _ in units], [compute for _, compute in units]
    assert token_seconds(copies, computes, slots) == pytest.approx(plain(copies, computes, slots), rel=0.02)


def test_a_slow_link_is_never_idle_and_a_fast_one_costs_nothing() -> None:
    assert token_seconds([10, 20] * 8, [1, 2] * 8, 2) == pytest.approx(240)
    assert token_seconds([1, 2] * 8, [10, 20] * 8, 4) == pytest.approx(240)


def test_the_first_unit_waits_where_it_shares_a_slot_with_the_last() -> None:
    assert token_seconds([1, 2] * 8, [10, 20] * 8, 3) == pytest.approx(241)


def test_a_ring_of_one_is_not_copied() -> None:
    assert token_seconds([100, 100], [1, 1], 2) == 2
    assert token_seconds([100, 0, 100], [1, 1, 1], 2) == 3
    assert [list(ring) for ring in deal(5, 2)] == [[0, 2, 4], [1, 3]]
    assert [list(ring) for ring in deal(1, 2)] == [[0]]
