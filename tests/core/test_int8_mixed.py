"""--quant int8-mixed: the weights of int8, multiplied by bitsandbytes, wherever that is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import core.engine.compute
import core.engine.load
from core.engine.bind import Compute
from core.engine.compute import compute_of
from core.engine.events import Notice
from core.engine.load import Engine, load
from core.model.ops import Ops
from core.options import LoadOptions
from core.weights import kernel_choice
from core.weights.bnb_kernel import MixedKernel, mixed_kernel
from core.weights.kernel_cache import known_kernels, policy_of
from core.weights.layouts import FORMATS
from core.weights.needs import needs_of
from core.weights.packed_files import listing
from core.weights.survey import needs_asked
from tests.streamed import TINY, bits, chosen, greedy, on_disk, small, start

__all__ = ["small"]

ALL = ("bitsandbytes",) * 4
TEXT = [1, 403, 407, 261, 378, 372, 270, 411, 400, 267, 286, 417, 364, 261, 300, 337]


def logits(stories: Path, **options: Any) -> tuple[Tensor, Engine]:
    """Those of TEXT, in a pass of many rows and then one by one."""
    given = LoadOptions(str(stories), device="cpu", dtype="float32", context=64, raw=True, **options)
    engine = load(given, lambda event: None, lambda: False)
    rows = []
    with torch.inference_mode():
        for chunk in (TEXT[:9], *([token] for token in TEXT[9:])):
            rows.append(engine.model(torch.tensor(chunk), engine.cache, keep=len(chunk)))
            engine.cache.commit(chunk)
    engine.placement.close()
    return torch.cat(rows), engine


def test_a_trained_model_answers_as_with_int8(stories: Path) -> None:
    """Within twice the error of the format, and not by the same kernels."""
    floats, _ = logits(stories)
    int8, plain = logits(stories, quant="int8")
    mixed, engine = logits(stories, quant="int8-mixed")
    assert engine.info.kernels == (("int8", "bitsandbytes"),)
    assert engine.info.weights == "int8-mixed"
    assert "bitsandbytes" not in str(plain.info.kernels)
    assert mixed.isfinite().all()
    assert not torch.equal(mixed, int8)
    assert (mixed - floats).norm() <= 2 * (int8 - floats).norm()
    assert (mixed.argmax(1) == int8.argmax(1)).float().mean() > 0.9


@pytest.mark.parametrize("tied", [False, True])
def test_the_weights_are_int8s(tied: bool) -> None:
    """Sizes, places and rows of a pass: all but the name."""
    config = replace(TINY, tied=tied)
    for device in ("cpu", "sim", "cuda:0"):
        asked = [
            needs_asked(config, "float16", LoadOptions("", quant=quant), device)
            for quant in ("int8", "int8-mixed")
        ]
        assert replace(asked[1], quant="int8") == asked[0]
        assert {weight.format for unit in asked[1].units for weight in unit.weights} == {"int8"}
        assert (asked[0].product, asked[1].product) == ("int8", "int8-mixed")


def test_choices_of_int8_and_int8_mixed_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is measured for the one, and what was measured for the other stays its own."""
    monkeypatch.setattr(kernel_choice, "SMALLEST", 0)
    monkeypatch.setattr(kernel_choice, "_SECONDS", 0.001)
    monkeypatch.setattr(kernel_choice, "_POOL", 2**16)
    threads = torch.get_num_threads()
    plain, mixed = (
        LoadOptions("", device="cpu", quant=quant, kernels=kernels)
        for quant, kernels in (("int8", "auto"), ("int8-mixed", "float32"))
    )
    needs = [needs_asked(TINY, "float16", options, "cpu") for options in (plain, mixed)]
    assert known_kernels(TINY, needs[0], plain, threads) == {"int8": None}
    assert known_kernels(TINY, needs[1], mixed, threads) == {"int8": ALL}
    own = compute_of(plain, TINY, needs[0], lambda event: None).kernels.names()["int8"]
    assert "bitsandbytes" not in own

    def measured(*given: Any) -> Any:
        raise AssertionError("measured")

    monkeypatch.setattr(kernel_choice, "_measured", measured)
    assert compute_of(mixed, TINY, needs[1], lambda event: None).kernels.names()["int8"] == ALL
    assert compute_of(plain, TINY, needs[0], lambda event: None).kernels.names()["int8"] == own
    assert known_kernels(TINY, needs[0], plain, threads) == {"int8": own}
    assert policy_of(plain) != policy_of(mixed) != policy_of(replace(mixed, quant="int8"))


def test_the_packed_file_of_int8_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = start("sim", "wide", quant="int8", offload=True)
    engine.placement.apply(on_disk(chosen(engine, replace(engine.placement.plan.choice, offload=True))))
    files = listing()
    assert len(files) == 1
    engine.placement.close()
    resident = bits(start("sim", "wide", quant="int8-mixed"))

    def pack(*given: Any) -> Any:
        raise AssertionError("packed anew")

    monkeypatch.setattr("core.engine.packing.pack", pack)
    engine = start("sim", "wide", quant="int8-mixed", offload=True)
    engine.placement.apply(on_disk(chosen(engine, replace(engine.placement.plan.choice, offload=True))))
    assert torch.equal(bits(engine), resident)
    assert listing() == files


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> list[Compute]:
    """What is chosen for a card computes on the simulated one; all that was chosen."""
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(core.engine.compute, "mixed_kernel", lambda device: mixed_kernel(torch.device("cpu")))
    made: list[Compute] = []

    def on_card(options: LoadOptions, *rest: Any) -> Compute:
        made.append(compute_of(replace(options, device="cuda:0"), *rest))
        return made[-1]

    monkeypatch.setattr(core.engine.load, "compute_of", on_card)
    return made


def test_on_a_card_there_are_no_units_of_our_own_and_no_graph(card: list[Compute]) -> None:
    engine = start("sim", "wide", quant="int8-mixed", dtype="float16")
    assert engine.placement.fast is None  # of which a graph would be made
    assert type(engine.model.ops) is Ops
    assert card[0].kernels.names() == dict.fromkeys(FORMATS, ("torch",) * 4) | {"int8": ALL}
    assert card[0].host_kernels.names() == {"int8": ALL}
    want, tokens = bits(engine), greedy(engine)
    streamed = start("sim", "wide", quant="int8-mixed", dtype="float16", offload=True)
    assert torch.equal(bits(streamed), want)
    assert greedy(streamed) == tokens
    assert start("sim", "wide", quant="int8", dtype="float16").placement.fast is not None


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("capability", [(6, 1), (9, 0)])
def test_on_a_card_nothing_is_said_to_have_failed(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]
) -> None:
    """Our own kernels are not missed where they were not asked for."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    told: list[Any] = []
    options = LoadOptions("", device="cuda:0", quant="int8-mixed")
    needs = needs_of(TINY, "float16", 64, 8, quant="int8-mixed")
    compute_of(options, TINY, needs, told.append)
    assert not [event for event in told if isinstance(event, Notice)]
    compute_of(replace(options, quant="int8"), TINY, needs, told.append)
    assert len([event for event in told if isinstance(event, Notice)]) == (capability == (6, 1))


def test_what_is_on_the_cpu_beside_a_card_is_multiplied_so_too(card: list[Compute]) -> None:
    engine = start("sim", "wide", quant="int8-mixed", dtype="float16")
    want = bits(engine)
    beside = start("sim", "wide", quant="int8-mixed", dtype="float16", cpu_layers=("feed_forward",))
    assert torch.equal(bits(beside), want)
    kernels = {
        type(kernel) for table in (card[1].kernels, card[1].host_kernels) for kernel in table.table["int8"]
    }
    assert kernels == {MixedKernel}
