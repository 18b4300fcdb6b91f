"""Sampling where the logits are, against the sampler on the host and against the definitions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from core.engine.samplers import Samplers
from core.engine.sampling_graph import CapturedChoice
from core.options import Sampling
from core.sampling import mirostat
from core.sampling.device_sampler import DeviceSampler
from core.sampling.on_device import Numbers, SamplingBuffers, choose
from core.sampling.sampler import RECENT, Sampler
from tests.sampling_checks import FREE, SETTINGS, SHAPES, Pair, admissible, flat, peaked

CPU = torch.device("cpu")
TOKENS = {5: 30, 512: 30, 32000: 3}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Vectors of 32,000 numbers gain nothing from a second thread, and lose much where another test runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def buffers() -> dict[int, SamplingBuffers]:
    """One each for all settings, as a graph would hold them."""
    return {size: SamplingBuffers(size, CPU) for size in TOKENS}


class Operations(TorchDispatchMode):
    """The names of the operations run within."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        self.names.append(str(operation))
        return operation(*args, **(kwargs or {}))


def pair(buffers: SamplingBuffers, sampling: Sampling, seed: int = 7) -> Pair:
    recent = [3, 1, 3]
    host = Sampler(lambda: sampling, seed, recent)
    return Pair(host, DeviceSampler(buffers, lambda: sampling, seed, recent), seed)


@pytest.mark.parametrize("size", TOKENS)
@pytest.mark.parametrize("name", SETTINGS)
def test_the_tokens_are_those_of_the_host(buffers: dict[int, SamplingBuffers], name: str, size: int) -> None:
    generator = torch.Generator().manual_seed(len(name))
    both = pair(buffers[size], SETTINGS[name])
    for _ in range(TOKENS[size]):
        for shape in SHAPES:
            both.step(shape(size, generator), SETTINGS[name])
    assert both.differing <= 0.02 * both.drawn


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("size", "tau", "eta"), [(512, 2.0, 1.0), (512, 5.0, 0.1), (32000, 3.0, 0.5)])
def test_mirostat_over_200_tokens(
    buffers: dict[int, SamplingBuffers], version: int, size: int, tau: float, eta: float
) -> None:
    generator = torch.Generator().manual_seed(version)
    sampling = Sampling(mirostat=version, mirostat_tau=tau, mirostat_eta=eta)
    both = pair(buffers[size], sampling)
    for _ in range(200):
        both.step(peaked(size, generator), sampling)
    assert both.differing <= 1


def test_settings_change_between_two_tokens(buffers: dict[int, SamplingBuffers]) -> None:
    """One draw for every token that is drawn and none for the others, so the seed goes on alike."""
    generator = torch.Generator().manual_seed(0)
    now = FREE
    both = Pair(Sampler(lambda: now, 5), DeviceSampler(buffers[512], lambda: now, 5), 5)
    for turn in range(3):
        for now in SETTINGS.values():
            both.step((peaked, flat)[turn % 2](512, generator), now)
    assert both.differing <= 1


@given(
    st.lists(st.floats(-20, 20, width=32) | st.just(-math.inf), min_size=2, max_size=300).filter(
        lambda values: max(values) > -math.inf
    ),
    st.builds(
        Sampling,
        temperature=st.just(0.0) | st.floats(0.01, 5),
        top_p=st.floats(0, 1),
        top_k=st.integers(0, 400),
        min_p=st.floats(0, 1),
        repeat_penalty=st.floats(0.1, 10),
        mirostat=st.sampled_from([0, 0, 1, 2]),
        mirostat_tau=st.floats(0.1, 20),
    ),
    st.lists(st.integers(0, 299), max_size=80),
    st.floats(0.1, 16),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=400)
def test_any_settings_follow_the_definitions(
    values: list[float], sampling: Sampling, recent: list[int], mu: float, seed: int
) -> None:
    logits = torch.tensor(values)
    recent = [token % len(values) for token in recent]
    got = DeviceSampler(SamplingBuffers(len(values), CPU), lambda: sampling, seed, recent, mu)(logits)
    point = float(torch.rand((), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
    assert got.token in admissible(logits, sampling, point, recent[-RECENT:], mu)
    want = -float(logits.double().log_softmax(-1)[got.token]) / math.log(2)
    assert got.surprise == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize("sampling", [FREE, Sampling(1.0, 0.6, 3), Sampling(0.5, 1.0, 4, 0.9)])
def test_of_equal_tokens_the_first_are_kept(sampling: Sampling) -> None:
    logits = torch.tensor([1.0, 2.0, 2.0, 1.0, 2.0, 1.0, 2.0])
    device = DeviceSampler(SamplingBuffers(7, CPU), lambda: sampling, 0)
    points = torch.Generator().manual_seed(0)
    for _ in range(100):
        point = float(torch.rand((), dtype=torch.float64, generator=points))
        assert device(logits).token in admissible(logits, sampling, point)
    greedy = DeviceSampler(device.buffers, lambda: Sampling(temperature=0), 0)
    assert greedy(logits).token == 1


def drawn_at(point: float, logits: Tensor, sampling: Sampling, mu: float | None = None) -> int:
    buffers = SamplingBuffers(logits.numel(), CPU)
    buffers.stage(Numbers.of(sampling, point, mu), [])
    choose(buffers, logits)
    return buffers.read()[0]


def test_what_is_off_drops_not_even_the_least_likely() -> None:
    """At the very beginning of the cumulative sum lies a token of 1e-26, far below what a sum would show."""
    logits = torch.tensor([-60.0, 0.0, 0.0])
    assert drawn_at(0.0, logits, FREE) == 0
    assert drawn_at(0.0, logits, Sampling(1.0, 1.0, top_k=3)) == 0
    assert drawn_at(0.0, logits, Sampling(mirostat=2), mu=100.0) == 0
    assert drawn_at(0.0, logits, Sampling(1.0, 1 - 1e-12)) == 1


def test_tokens_exactly_at_a_limit_are_treated_as_on_the_host() -> None:
    """Drawn at the end of the cumulative sum, so the last token that is kept."""
    equal, two = torch.zeros(4), torch.tensor([1.0, 2.0, 2.0, 1.0])
    assert drawn_at(0.999, equal, Sampling(1.0, 0.5)) == 1
    assert drawn_at(0.999, two, Sampling(1.0, 1.0, min_p=1.0)) == 2
    assert drawn_at(0.999, two, Sampling(mirostat=2), mu=0.1) == 2


@pytest.mark.parametrize("finite", [1, 2, 3, 20, 100, 101, 300])
@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.3, 4.0])
def test_where_mirostat_1_cuts(finite: int, exponent: float) -> None:
    generator = torch.Generator().manual_seed(finite)
    logits = -exponent * torch.arange(1, 301).log() + 0.01 * torch.rand(300, generator=generator)
    logits = (logits if exponent else torch.zeros(300)).sort(descending=True).values
    logits[finite:] = -math.inf
    for mu in (0.1, 1.0, 2.0, 4.0, 6.0, 9.0):
        kept = min(finite, mirostat.zipf_cutoff(mirostat.zipf_exponent(logits), mu, 300))
        assert drawn_at(1 - 2**-53, logits, Sampling(mirostat=1), mu) == kept - 1


def test_a_product_that_rounds_up_to_the_end_takes_the_likeliest() -> None:
    assert drawn_at(1.0, torch.tensor([0.0, 1.0, 0.0]), FREE) == 1


def test_logits_that_are_no_numbers_still_give_a_token() -> None:
    for wrong in (math.inf, math.nan):
        logits = torch.tensor([0.0, wrong, 1.0])
        for sampling in (FREE, Sampling(temperature=0), Sampling(1e-320, 1.0), Sampling(top_k=2)):
            assert drawn_at(0.5, logits, sampling) == 1


def test_a_temperature_below_float32_takes_the_likeliest() -> None:
    assert drawn_at(0.9, torch.tensor([0.0, 1.0, 0.9, -9.0]), Sampling(1e-320, 1.0)) == 1


def test_the_penalty_sees_the_last_64_and_what_was_chosen() -> None:
    logits = torch.cat([torch.tensor([1.0, 0.9]), torch.full((8,), -9.0)])
    buffers, sampling = SamplingBuffers(10, CPU), Sampling(temperature=0, repeat_penalty=2.0)
    assert DeviceSampler(buffers, lambda: sampling, 0, [0, *[5] * 63])(logits).token == 1
    assert DeviceSampler(buffers, lambda: sampling, 0, [0, *[5] * 64])(logits).token == 0
    fresh = DeviceSampler(buffers, lambda: sampling, 0)
    assert [fresh(logits).token for _ in range(3)] == [0, 1, 0]


def test_nothing_depends_on_values() -> None:
    """A fake tensor has none: asking for one, or for a shape that follows from one, raises."""
    with FakeTensorMode():
        buffers = SamplingBuffers(32000, CPU)
        choose(buffers, torch.empty(32000))
        with pytest.raises(DataDependentOutputException):
            int(buffers.token)  # as a step that waits would


def test_no_operation_brings_a_number_from_the_host() -> None:
    """Such a copy waits and cannot be captured in a graph; torch.where makes one of a plain number."""
    buffers = SamplingBuffers(1000, torch.device("meta"))
    with Operations() as run:
        choose(buffers, torch.empty(1000, device="meta"))
    copies = ("_to_copy", "copy_", "_local_scalar_dense", "scalar_tensor", "lift", "where.Scalar", "nonzero")
    assert [name for name in run.names if any(part in name for part in copies)] == []
    assert sum("sort" in name and "search" not in name for name in run.names) == 1
    assert len(run.names) < 70


def test_only_changes_are_copied() -> None:
    device = DeviceSampler(SamplingBuffers(10, CPU), lambda: Sampling(temperature=0), 0)
    for copies in (1, 0, 0):
        with Operations() as run:
            device.stage()
        assert run.names.count("aten.copy_.default") == copies
        choose(device.buffers, torch.zeros(10))
        device.read()


def test_buffers_made_where_no_gradients_are_serve_outside() -> None:
    with torch.inference_mode():
        buffers = SamplingBuffers(10, CPU)
    device = DeviceSampler(buffers, lambda: FREE, 0)
    assert 0 <= device(torch.zeros(10)).token < 10
    with torch.inference_mode():
        assert 0 <= device(torch.zeros(10)).token < 10


def test_which_sampler_for_which_device() -> None:
    assert isinstance(Samplers(10, CPU)(lambda: FREE, 0, mu=3.0), Sampler)


def test_logits_that_come_from_one_place_are_chosen_from_by_what_was_captured() -> None:
    """As a graph does: the work is taken down once, and repeated on whatever lies in that place then."""
    taken: list[torch.device] = []

    def capture(work: Callable[[], None], device: torch.device, pool: object) -> Callable[[], None]:
        taken.append(device)
        return work

    buffers, choice = SamplingBuffers(10, CPU), CapturedChoice(capture)
    sampler = DeviceSampler(buffers, lambda: Sampling(temperature=0), 0, run=choice)
    logits = torch.zeros(10)
    for token in (3, 4, 5):
        logits.zero_()[token] = 1
        assert sampler(logits).token == token
    assert taken == [CPU]
    other = torch.zeros(10)
    other[7] = 1
    assert sampler(other).token == 7
    assert sampler(logits).token == 5
    assert taken == [CPU]


def test_logits_that_wander_cost_few_graphs() -> None:
    taken = []

    def capture(work: Callable[[], None], device: torch.device, pool: object) -> Callable[[], None]:
        taken.append(device)
        return work

    choice = CapturedChoice(capture)
    sampler = DeviceSampler(SamplingBuffers(3, CPU), lambda: Sampling(temperature=0), 0, run=choice)
    places = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    chosen = [sampler(places[turn // 3 % 2]).token for turn in range(300)]
    assert chosen == [[2, 1][turn // 3 % 2] for turn in range(300)]
    assert len(taken) == 2  # three times in a row are no longer enough for a third one
    for _ in range(4):
        sampler(places[0])
    assert len(taken) == 3


def test_a_prompts_first_token_costs_no_graph() -> None:
    """Reply after reply begins with logits that lie elsewhere than those of the graph that makes the rest."""
    taken, repeated = [], [0]

    def capture(work: Callable[[], None], device: torch.device, pool: object) -> Callable[[], None]:
        taken.append(device)

        def replay() -> None:
            repeated[0] += 1
            work()

        return replay

    choice = CapturedChoice(capture)
    sampler = DeviceSampler(SamplingBuffers(3, CPU), lambda: Sampling(temperature=0), 0, run=choice)
    first, others = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    for _ in range(20):
        assert sampler(first).token == 2
        assert [sampler(others).token for _ in range(30)] == [1] * 30
    assert len(taken) == 1
    assert repeated[0] == 20 * 30 - 1


def test_what_cannot_be_captured_is_chosen_all_the_same() -> None:
    def refuse(work: Callable[[], None], device: torch.device, pool: object) -> Callable[[], None]:
        raise RuntimeError("not while others work")

    sampler = DeviceSampler(
        SamplingBuffers(3, CPU), lambda: Sampling(temperature=0), 0, run=CapturedChoice(refuse)
    )
    logits = torch.tensor([0.0, 0.0, 1.0])
    assert [sampler(logits).token for _ in range(3)] == [2, 2, 2]
