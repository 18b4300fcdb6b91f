"""Filters against tables worked out by hand and definitions written out naively."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.options import Sampling
from core.sampling import filters
from core.sampling.sampler import Sampler, draw, surprise

P = torch.tensor([0.4, 0.1, 0.3, 0.2])
LOGITS = P.log()
numbers = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=600)


def kept(logits: torch.Tensor) -> list[int]:
    return [i for i, x in enumerate(logits.tolist()) if x > -math.inf]


@pytest.mark.parametrize(
    ("k", "want"), [(0, [0, 1, 2, 3]), (1, [0]), (2, [0, 2]), (3, [0, 2, 3]), (9, [0, 1, 2, 3])]
)
def test_top_k(k: int, want: list[int]) -> None:
    assert kept(filters.top_k(LOGITS, k)) == want


@pytest.mark.parametrize(
    ("p", "want"),
    [(0.0, [0]), (0.39, [0]), (0.41, [0, 2]), (0.69, [0, 2]), (0.71, [0, 2, 3]), (1.0, [0, 1, 2, 3])],
)
def test_top_p(p: float, want: list[int]) -> None:
    assert kept(filters.top_p(LOGITS, p)) == want


@pytest.mark.parametrize(
    ("p", "want"), [(0, [0, 1, 2, 3]), (0.3, [0, 2, 3]), (0.6, [0, 2]), (0.8, [0]), (1, [0])]
)
def test_min_p(p: float, want: list[int]) -> None:
    assert kept(filters.min_p(LOGITS, p)) == want


@given(numbers, st.floats(0, 0.999))
@settings(deadline=None)
def test_top_p_is_the_smallest_set_that_reaches_p(values: list[float], p: float) -> None:
    logits = torch.tensor(values)
    probabilities = logits.double().softmax(-1)
    chosen = kept(filters.top_p(logits, p))
    mass = float(probabilities[chosen].sum())
    smallest = float(probabilities[chosen].min())
    assert mass >= p - 1e-4
    assert mass - smallest < p + 1e-4 or len(chosen) == 1
    assert all(float(probabilities[i]) <= smallest + 1e-6 for i in range(len(values)) if i not in chosen)


def test_top_p_beyond_the_partial_sort() -> None:
    logits = torch.zeros(5000)  # uniform: the nucleus of 0.9 is 4,500 tokens
    assert len(kept(filters.top_p(logits, 0.9))) in range(4499, 4502)


def test_repetition_penalty_moves_both_signs_down() -> None:
    logits = torch.tensor([2.0, -2.0, 1.0, 0.0])
    got = filters.repetition_penalty(logits, [0, 1, 0], 2.0)
    assert got.tolist() == [1.0, -4.0, 1.0, 0.0]  # a repeated token is penalised once
    assert filters.repetition_penalty(logits, [0], 1.0) is logits


def test_temperature_scales_log_odds() -> None:
    got = filters.temperature(LOGITS, 0.5).softmax(-1)
    assert torch.allclose(got, P**2 / (P**2).sum())
    assert filters.temperature(LOGITS, 1e-30).softmax(-1).tolist() == [1, 0, 0, 0]


def test_draw_follows_the_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    n = 20000
    counts = torch.zeros(4)
    for _ in range(n):
        counts[draw(LOGITS, generator)] += 1
    sigma = (P * (1 - P) / n).sqrt()
    assert ((counts / n - P).abs() < 4 * sigma).all()


def test_draw_never_takes_a_rejected_token() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([-math.inf, 0.0, -math.inf, 0.0, -math.inf])
    assert {draw(logits, generator) for _ in range(500)} == {1, 3}


def test_surprise_is_of_the_untouched_distribution() -> None:
    sampler = Sampler(lambda: Sampling(temperature=0.1, top_k=1), seed=0)
    choice = sampler(LOGITS + 7)
    assert choice.token == 0
    assert choice.surprise == pytest.approx(-math.log2(0.4), abs=1e-5)
    assert surprise(LOGITS, 1) == pytest.approx(-math.log2(0.1), abs=1e-5)


def test_order_is_penalty_temperature_top_k_top_p_min_p() -> None:
    """At temperature 2 the probabilities flatten to .32 .16 .28 .23, so top-p 0.5 keeps two tokens;
    before temperature it would keep two others under the penalty, which must come first of all."""
    sampling = Sampling(temperature=2.0, top_p=0.5, repeat_penalty=5.0)
    logits = torch.tensor([3.0, 2.9, 2.8, 0.0])
    drawn = {Sampler(lambda: sampling, seed, recent=[0])(logits).token for seed in range(60)}
    assert drawn == {1, 2}


def test_same_seed_same_tokens_other_seed_others() -> None:
    logits = torch.randn(100, 50, generator=torch.Generator().manual_seed(3))

    def run(seed: int) -> list[int]:
        sampler = Sampler(lambda: Sampling(temperature=1.0, top_p=1.0), seed)
        return [sampler(row).token for row in logits]

    assert run(5) == run(5) != run(6)


def test_the_penalty_looks_at_the_last_64_only() -> None:
    logits = torch.tensor([1.0, 0.9])
    sampler = Sampler(lambda: Sampling(temperature=0, repeat_penalty=2.0), 0, recent=[0, *[5] * 63])
    assert sampler(logits := torch.cat([logits, torch.full((8,), -9.0)])).token == 1
    sampler = Sampler(lambda: Sampling(temperature=0, repeat_penalty=2.0), 0, recent=[0, *[5] * 64])
    assert sampler(logits).token == 0
