"""Mirostat on distributions whose surprise is known, and on real models."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from core.engine.generate import generate
from core.engine.load import Engine, load
from core.options import LoadOptions, Sampling
from core.sampling import mirostat
from core.sampling.sampler import Sampler
from core.text.dialogue import Turn, raw_prompt

VOCABULARY = 32000


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Vectors of 32,000 numbers gain nothing from a second thread, and lose much where another test runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def zipf(s: float, n: int = VOCABULARY) -> torch.Tensor:
    """Logits of p(rank) ~ rank^-s, ranks shuffled."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    return (-s * torch.arange(1, n + 1).double().log())[order].float()


def entropy(logits: torch.Tensor) -> float:
    log_p = logits.double().log_softmax(-1)
    return float(-(log_p.exp() * log_p).sum()) / math.log(2)


@pytest.mark.parametrize("s", [0.8, 1.0, 1.1, 1.5, 2.5])
def test_the_exponent_of_a_zipf_law_is_found(s: float) -> None:
    assert mirostat.zipf_exponent(zipf(s)) == pytest.approx(s, abs=1e-3)


@pytest.mark.parametrize("s", [0.8, 0.999, 1.0, 1.001, 1.3, 2.0])
@pytest.mark.parametrize("mu", [0.1, 2.0, 5.0, 9.0])
def test_the_cutoff_is_where_a_zipf_law_has_mu_bits(s: float, mu: float) -> None:
    """The formula replaces the sum of rank^-s by its integral; the true rank is found by search."""
    n = VOCABULARY
    eps = s - 1
    total = math.log(n) if abs(eps) < 1e-9 else (1 - n**-eps) / eps
    bits = [math.log2(total) + s * math.log2(rank) for rank in range(1, n + 1)]
    want = min(range(1, n + 1), key=lambda rank: abs(bits[rank - 1] - mu))
    got = mirostat.zipf_cutoff(s, mu, n)
    assert abs(got - want) <= max(1, 0.01 * want)


def test_odd_exponents_and_mu_give_a_rank() -> None:
    for s in (-3.0, 0.0, 1e-9, 1e-3, 1.0, 50.0, 1e6, math.inf):
        for mu in (0.1, 15.0, 1e3, 1e6):
            assert 1 <= mirostat.zipf_cutoff(s, mu, VOCABULARY) <= VOCABULARY


def test_version_2_cuts_at_mu_bits() -> None:
    logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
    for mu, want in ((0.5, 1), (1.0, 1), (1.01, 1), (2.01, 2), (3.01, 4)):
        assert int(mirostat.truncate_v2(logits, mu).isfinite().sum()) == want


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("share", "s"), [(0.5, 1.2), (0.8, 1.0)])
def test_the_mean_surprise_on_a_zipf_law_is_tau(version: int, share: float, s: float) -> None:
    logits = zipf(s)
    tau = share * entropy(logits)
    sampler = Sampler(lambda: Sampling(mirostat=version, mirostat_tau=tau), seed=1)
    bits = [sampler(logits).surprise for _ in range(2000)]
    assert sum(bits[20:]) / len(bits[20:]) == pytest.approx(tau, rel=0.03)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tau", [0.1, 5.0, 20.0])
def test_nothing_overflows_with_tau_out_of_reach(version: int, tau: float) -> None:
    """A distribution of 1.5 bits can never average 5; mu must stay where it can come back from."""
    logits = torch.full((500,), -12.0)
    logits[:3] = torch.tensor([0.0, -0.5, -0.7])
    sampler = Sampler(lambda: Sampling(mirostat=version, mirostat_tau=tau, mirostat_eta=1.0), seed=1)
    for _ in range(4000):
        choice = sampler(logits)
        assert math.isfinite(choice.surprise)
        assert sampler.mu is not None
        assert mirostat.MU_MIN <= sampler.mu <= 2 * math.log2(500)


def test_rejected_and_flat_logits() -> None:
    only_one = torch.full((100,), -math.inf)
    only_one[42] = 0.0
    for version in (1, 2):
        sampler = Sampler(lambda v=version: Sampling(mirostat=v), seed=1)
        assert [sampler(only_one).token for _ in range(5)] == [42] * 5
        assert 0 <= sampler(torch.zeros(100)).token < 100


def test_mu_starts_at_twice_tau_and_goes_on_from_a_given_one() -> None:
    logits = zipf(1.0)
    fresh = Sampler(lambda: Sampling(mirostat=2, mirostat_tau=3.0, mirostat_eta=0.5), seed=1)
    choice = fresh(logits)
    assert fresh.mu == pytest.approx(6.0 - 0.5 * (choice.surprise - 3.0))
    later = Sampler(lambda: Sampling(mirostat=2, mirostat_tau=3.0, mirostat_eta=0.5), seed=1, mu=1.25)
    choice = later(logits)
    assert later.mu == pytest.approx(1.25 - 0.5 * (choice.surprise - 3.0))


def test_other_settings_are_ignored_and_temperature_0_loses() -> None:
    logits = zipf(1.0)

    def run(sampling: Sampling) -> list[int]:
        sampler = Sampler(lambda: sampling, seed=9, recent=[1, 2, 3])
        return [sampler(logits).token for _ in range(40)]

    want = run(Sampling(mirostat=2))
    got = run(Sampling(mirostat=2, temperature=0, top_k=1, top_p=0.1, min_p=0.9, repeat_penalty=9.0))
    assert got == want
    assert len(set(want)) > 5


@dataclass
class Subject:
    """A model, what it continues, and H: its mean surprise at temperature 1, over two texts."""

    engine: Engine
    prompt: list[int]
    mean: float = 0.0

    def __post_init__(self) -> None:
        free = Sampling(temperature=1.0, top_p=1.0)
        self.mean = statistics.mean(bits for seed in range(2) for bits in self.surprises(free, seed))

    def surprises(self, sampling: Sampling, seed: int) -> list[float]:
        """Of 400 tokens, an end of turn among them or not."""
        sampler = Sampler(lambda: sampling, seed)
        self.engine.cache.tokens.clear()
        tokens = generate(
            self.engine.runner,
            self.prompt,
            sampler,
            cancelled=lambda: False,
            on_prefill=lambda done: None,
        )
        with closing(tokens):
            return [choice.surprise for choice, _ in zip(tokens, range(400), strict=False)]

    def check(self, version: int, share: float) -> None:
        """Tokens 20 to 400 average within 10 % of tau, in two texts of three.

        Not in all: a small model can fall into a loop that it is certain of, and where nothing is
        surprising, no sampler can raise the surprise.
        """
        tau = share * self.mean
        sampling = Sampling(mirostat=version, mirostat_tau=tau)
        means: list[float] = []
        while len(means) < 3:
            means.append(statistics.mean(self.surprises(sampling, len(means))[20:]))
            good = sum(abs(mean - tau) <= 0.1 * tau for mean in means)
            if good == 2:
                return
        pytest.fail(f"tau {tau:.3f}, means {means}")


@pytest.fixture(scope="module")
def on_stories(stories: Path) -> Subject:
    engine = load(LoadOptions(str(stories), device="cpu", raw=True), lambda event: None, lambda: False)
    return Subject(engine, raw_prompt(engine.tokenizer, ""))


@pytest.fixture(scope="module")
def on_demo(demo_path: Path) -> Subject:
    engine = load(LoadOptions(str(demo_path), device="cpu"), lambda event: None, lambda: False)
    assert engine.format is not None
    turn = Turn("Write a long story about a lighthouse keeper and the sea.")
    return Subject(engine, engine.format.encode([turn], None))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_stories(on_stories: Subject, version: int, share: float) -> None:
    on_stories.check(version, share)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("version", "share"), [(2, 0.5)])
def test_demo(on_demo: Subject, version: int, share: float) -> None:
    on_demo.check(version, share)
