"""What streaming promises, as a suite for any device: it takes only another machine under it.

A model of random weights in the shape "tiny", its bits computed with every weight resident, and then
under placements, tiers and accidents of all kinds: the same bits each time.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import core.checkpoint.synthetic
import core.engine.load
import core.weights.needs
from core.engine.generate import generate
from core.engine.load import Engine, load
from core.engine.placing import Machine
from core.errors import Cancelled
from core.model.config import ModelConfig
from core.options import LoadOptions, Sampling
from core.sampling.sampler import Sampler
from core.weights.host import LimitedRegistrar
from core.weights.lane import Source
from core.weights.needs import format_of
from core.weights.placement import plan as make_plan
from core.weights.placement import smaller
from core.weights.plan import Choice, Place, Plan, Rate, Rates, Ring

TINY = ModelConfig(
    dim=64, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=16, hidden_dim=160, vocab_size=301, norm_eps=1e-5,
    max_context=256,
)  # fmt: skip
RATES = Rates(Rate(10), Rate(100), Rate(10), Rate(1))
PROMPT = [5, 77, 250, 3, 9, 9, 120]
NAMES = ("wq", "wk", "wv", "wo", "w1", "w2", "w3", "output", "embeddings", "layers.0", "layers.1-2.w2")


_started: list[Engine] = []


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """See `shrink`. What a test starts is closed behind it."""
    shrink(monkeypatch, tmp_path)
    before = len(_started)
    yield
    while len(_started) > before:
        _started.pop().placement.close()


def shrink(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """The shapes "tiny", "tied" and "wide", an output head in four tiles, and a cache of its own."""
    monkeypatch.setitem(core.checkpoint.synthetic.SHAPES, "tiny", TINY)
    monkeypatch.setitem(core.checkpoint.synthetic.SHAPES, "tied", replace(TINY, tied=True))
    wide = replace(TINY, dim=128, head_dim=32, hidden_dim=256)
    monkeypatch.setitem(core.checkpoint.synthetic.SHAPES, "wide", wide)
    monkeypatch.setattr(core.weights.needs, "_LEAST_TILE", 100 * TINY.dim * 2)
    monkeypatch.setenv("LLAMA_TUI_CACHE", str(folder))
    # Measuring takes longer than all the rest, and no bit may depend on it.
    monkeypatch.setattr(core.engine.load, "rates_of", lambda *given: RATES)


def start(device: str, shape: str = "tiny", **options: Any) -> Engine:
    """A loaded engine; everything is resident unless `options` say otherwise."""
    settings = {"dtype": "float32", "raw": True, "context": 128} | options
    given = LoadOptions("", device=device, synthetic=shape, **settings)
    engine = load(given, lambda event: None, lambda: False)
    _started.append(engine)
    return engine


def greedy(engine: Engine, count: int = 8, before: Callable[[int], None] = lambda i: None) -> list[int]:
    """Greedy tokens after PROMPT, in passes of 4; `before` is called before each token."""
    engine.cache.tokens.clear()
    engine.runner.rows = 4
    tokens = generate(
        engine.runner,
        PROMPT,
        Sampler(lambda: Sampling(temperature=0), 0),
        cancelled=lambda: False,
        on_prefill=lambda done: None,
    )
    got = []
    with closing(tokens):
        for i in range(count):
            before(i)
            got.append(next(tokens).token)
    return got


@torch.inference_mode()
def bits(engine: Engine) -> Tensor:
    """Logits of PROMPT in two passes, and of one more token."""
    engine.cache.tokens.clear()
    rows = []
    for chunk in (PROMPT[:4], PROMPT[4:], [42]):
        rows.append(engine.model(torch.tensor(chunk), engine.cache, keep=len(chunk)).cpu())
        engine.cache.commit(chunk)
    return torch.cat(rows)


def dealt(plan: Plan, slots: int) -> Plan:
    """The same places with another number of slots."""
    streamed = [name for ring in plan.rings for name in ring.units]
    order = [unit.name for unit in plan.needs.units if unit.name in streamed]
    largest = max((ring.slot_bytes for ring in plan.rings), default=0)
    rings = tuple(Ring(largest, tuple(order[k::slots])) for k in range(min(slots, len(order))))
    return replace(plan, rings=rings)


def chosen(engine: Engine, choice: Choice, ram: int = 10**9) -> Plan:
    """A plan for `choice` with all the memory there is, so that only the choice decides."""
    now = engine.placement.plan
    budget = replace(now.budget, vram=10**9, card=10**9, ram=ram if now.budget.simulated else now.budget.ram)
    return make_plan(now.needs, budget, choice, now.rates)


def on_disk(plan: Plan) -> Plan:
    """The same with everything that is streamed from RAM streamed from disk."""
    places = {name: Place.DISK if place is Place.RAM else place for name, place in plan.places.items()}
    return replace(plan, places=places, disk=1)


def accidents(monkeypatch: pytest.MonkeyPatch, seed: int, pinned: int | None = None) -> None:
    """Poison every slot before it is filled, delay copies at random, and pin only so many bytes."""
    dice = random.Random(seed)
    real = core.engine.load.machine_of

    def machine_of(options: LoadOptions) -> Machine:
        machine = real(options)
        lane: Any = machine.lane
        send = lane.send

        def poisoned(name: str, source: Source, home: Tensor) -> Any:
            home.fill_(0xFF)
            return send(name, source, home)

        lane.send = poisoned
        if hasattr(lane, "_link"):
            lane._link._delay = lambda: dice.choice((0, 0, 0, 0.002))
        registrar = LimitedRegistrar(pinned) if pinned is not None else machine.registrar
        return replace(machine, registrar=registrar)

    monkeypatch.setattr(core.engine.load, "machine_of", machine_of)


def draw_choice(dice: random.Random, device: str) -> Choice:
    """Any exclusions; and some names for the CPU, where that is what computes for the device too.

    On a real one, what the CPU computes has other bits.
    """
    names = [name for name in NAMES if dice.random() < 0.3]
    cpu = [name for name in NAMES if name not in names and dice.random() < 0.1]
    if device != "sim" or any("layers." in name for name in (*names, *cpu)):
        cpu = []  # a range and a kind may name the same weight, which is refused
    return Choice(keep=tuple(names), cpu=tuple(cpu))


class StreamedSuite:
    """Subclasses say on which device."""

    device: str

    @pytest.fixture
    def resident(self) -> Iterator[tuple[Tensor, list[int]]]:
        """Bits and tokens with every weight on the device."""
        engine = start(self.device)
        assert not engine.placement.plan.rings
        yield bits(engine), greedy(engine)
        engine.placement.close()

    @pytest.mark.parametrize("slots", [2, 3, 5])
    @pytest.mark.parametrize("tier", ["pinned", "pageable", "disk"])
    def test_streamed_equals_resident(
        self,
        resident: tuple[Tensor, list[int]],
        monkeypatch: pytest.MonkeyPatch,
        tier: str,
        slots: int,
    ) -> None:
        """Every kind of exclusions, for all numbers of slots and tiers, with poison and delays."""
        dice = random.Random(slots)
        accidents(monkeypatch, slots, pinned=0 if tier == "pageable" else None)
        engine = start(self.device, offload=True)
        choices = [Choice(offload=True), Choice(keep=("w1", "w2", "w3")), Choice(keep=("attention",))]
        for choice in [*choices, *(draw_choice(dice, self.device) for _ in range(5))]:
            plan = dealt(chosen(engine, choice), slots)
            engine.placement.apply(on_disk(plan) if tier == "disk" else plan)
            assert (engine.placement.unpinned > 0) == (tier == "pageable" and plan.ram_streamed > 0)
            assert torch.equal(bits(engine), resident[0]), choice
            assert greedy(engine) == resident[1]
        engine.placement.close()

    def test_exclusions_change_at_random_tokens(
        self, resident: tuple[Tensor, list[int]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The reply goes on: no token is another, and what is in the cache is not run again."""
        accidents(monkeypatch, 7, pinned=60_000)
        engine, dice = start(self.device, offload=True), random.Random(3)
        runs: list[int] = []
        forward = engine.model.forward
        engine.model.forward = lambda tokens, *rest, **named: (  # type: ignore[method-assign]
            runs.append(len(tokens)) or forward(tokens, *rest, **named)
        )

        def change(i: int) -> None:
            if dice.random() < 0.5:
                plan = dealt(chosen(engine, draw_choice(dice, self.device)), dice.randint(2, 4))
                engine.placement.apply(on_disk(plan) if dice.random() < 0.3 else plan)
                engine.runner.rows = 4

        for _ in range(4):
            assert greedy(engine, before=change) == resident[1]
            assert runs == [4, 3, *[1] * 7]
            runs.clear()
        engine.placement.close()

    def test_aborted_passes_leave_no_trace(
        self, resident: tuple[Tensor, list[int]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        accidents(monkeypatch, 11)
        engine, dice = start(self.device, keep=("wq", "w2")), random.Random(5)
        for _ in range(12):
            looks = dice.randint(0, 14)

            def cancelled(count: list[int] = [0], looks: int = looks) -> bool:  # noqa: B006
                count[0] += 1
                return count[0] > looks

            engine.cache.tokens.clear()
            with contextlib.suppress(Cancelled), torch.inference_mode():
                engine.model(torch.tensor(PROMPT), engine.cache, cancelled=cancelled)
            if dice.random() < 0.4:
                assert torch.equal(bits(engine), resident[0])
        assert greedy(engine) == resident[1]
        engine.placement.close()

    def test_a_tied_head_streams_and_the_embedding_reads_its_rows(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        want = bits(start(self.device, "tied"))
        accidents(monkeypatch, 2)
        engine = start(self.device, "tied", offload=True)
        on_cpu = ("output",) if self.device == "sim" else ()
        for choice in (Choice(offload=True), Choice(keep=("output",)), Choice(keep=("w1",), cpu=on_cpu)):
            engine.placement.apply(chosen(engine, choice))
            assert torch.equal(bits(engine), want)
        engine.placement.apply(on_disk(chosen(engine, Choice(offload=True))))
        assert torch.equal(bits(engine), want)

    @pytest.mark.parametrize(
        ("quant", "shape"),
        [
            ("none", "tied"),
            ("int8", "wide"),
            ("int8", "tied"),
            ("int8-mixed", "wide"),
            ("nf4", "wide"),
            ("int4", "tied"),
            ("int4-128", "wide"),
        ],
    )
    def test_every_format_streams_as_it_lies(
        self, monkeypatch: pytest.MonkeyPatch, quant: str, shape: str
    ) -> None:
        """What crosses the bus are the packed bytes: slots, tiers and mixtures, the same bits each time."""
        resident = start(self.device, shape, dtype="float16", quant=quant)
        formats = {weight.format for unit in resident.placement.plan.needs.units for weight in unit.weights}
        format = "float16" if quant == "none" else format_of(quant)
        assert format in formats or (quant, shape) == ("int4-128", "tied")
        want, tokens = bits(resident), greedy(resident)
        resident.placement.close()
        accidents(monkeypatch, 13)
        engine = start(self.device, shape, dtype="float16", quant=quant, offload=True)
        dice = random.Random(quant)
        choices = [Choice(offload=True), Choice(keep=("w1", "w2", "w3")), Choice(keep=("output",))]
        for i, choice in enumerate([*choices, *(draw_choice(dice, self.device) for _ in range(4))]):
            plan = dealt(chosen(engine, choice), 2 + i % 3)
            engine.placement.apply(plan)
            assert torch.equal(bits(engine), want), choice
            engine.placement.apply(on_disk(plan))
            assert torch.equal(bits(engine), want), choice
        assert greedy(engine) == tokens
        engine.placement.close()
        fresh = start(self.device, shape, dtype="float16", quant=quant, offload=True)  # from the packed file
        fresh.placement.apply(on_disk(chosen(fresh, Choice(offload=True))))
        assert torch.equal(bits(fresh), want)
        fresh.placement.close()

    def test_streamed_bytes_are_exactly_those_of_the_plan(self) -> None:
        engine = start(self.device, offload=True)
        for choice in (Choice(offload=True), Choice(keep=("w1",)), Choice(keep=("attention", "layers.0-1"))):
            engine.placement.apply(chosen(engine, choice))
            arrived: list[int] = []
            greedy(engine, before=lambda i: arrived.append(engine.placement.arrived))  # noqa: B023
            steps = {after - before for before, after in pairwise(arrived[1:])}
            assert steps == {engine.placement.plan.streamed_per_token}

    def test_out_of_memory_drops_to_a_smaller_plan(self, resident: tuple[Tensor, list[int]]) -> None:
        """A pass finds no memory: weights leave the device, the cache stays, the tokens are the same."""
        engine = start(self.device)
        before = less = engine.placement.plan
        steps = 0
        while (smallest := smaller(less)) is not None and steps < 3:
            less, steps = smallest, steps + 1
        assert steps
        run, failures = engine.runner._pass, [steps]

        def scarce(*given: Any) -> Tensor:
            if engine.cache.length > 8 and failures[0]:
                failures[0] -= 1
                raise torch.OutOfMemoryError("another process took it")
            return run(*given)

        engine.runner._pass = scarce  # type: ignore[method-assign]
        assert greedy(engine) == resident[1]
        assert failures == [0]
        after = engine.placement.plan
        assert before.vram is not None
        assert after.vram is not None
        assert after.vram < before.vram


__all__ = ["StreamedSuite", "accidents", "bits", "chosen", "greedy", "small", "start"]
