"""What cannot be placed is refused in one line, and each way out that it names is one."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from core.errors import UserError
from core.model.config import ModelConfig
from core.model.shapes import SHAPES
from core.sizes import parse_size
from core.weights.needs import Needs, needs_of
from core.weights.placement import plan
from core.weights.plan import Budget, Choice, Rates
from core.weights.refusal import with_context
from tests.core.plans import CUDA, MEASURED, SIM, check, cpu, cuda, sim, tiny

SEVEN = SHAPES["7b"]
CASES: dict[str, tuple[ModelConfig, Budget, Choice, Rates, list[str]]] = {
    "a small card": (SEVEN, replace(cuda(1.5e9), card=4 * 10**9), Choice(), CUDA,
                     ["--context", "--vram", "--device cpu"]),
    "a card that is too small": (SEVEN, replace(cuda(1e9), card=10**9), Choice(), CUDA, ["--device cpu"]),
    "exclusions": (SEVEN, cuda(6e9), Choice(keep=("feed_forward",)), CUDA,
                   ["--vram", "--offload without", "--device cpu without"]),
    "a bit too many exclusions": (SEVEN, cuda(7e9), Choice(keep=("attention",)), CUDA,
                                  ["--context", "--vram"]),
    "host memory for the CPU": (SEVEN, cuda(6e9, 5e9), Choice(cpu=("feed_forward",)), CUDA,
                                ["--ram", "no --cpu-layers", "--device cpu"]),
    "both memories": (SEVEN, cuda(1e9, 1e9), Choice(cpu=("w1",)), CUDA, ["--vram 3.1GB with --ram 3GB"]),
    "a simulated card beyond host memory": (SEVEN, sim(8e9, 2e9), Choice(), SIM, ["--context", "--ram"]),
    "no card": (SEVEN, cpu(2e9), Choice(), CUDA, ["--context", "--ram"]),
    "nothing helps": (SEVEN, Budget("cuda:0", 10**8, 10**7, card=10**8), Choice(), CUDA, ["smaller model"]),
    "measured rates": (SHAPES["70b"], cuda(1.2e9, 200e9), Choice(), MEASURED, ["--vram"]),
}  # fmt: skip


def followed(way: str, needs: Needs, config: ModelConfig, budget: Budget, choice: Choice) -> tuple:
    """The question after one way out was taken, as the flags would put it."""
    if match := re.search(r"--context (\d+)", way):
        needs = needs_of(config, needs.dtype, int(match[1]), needs.max_rows)
    if match := re.search(r"--vram (\S+)", way):
        budget = replace(budget, vram=parse_size(match[1]))
        assert budget.card is None or budget.vram <= budget.card
    if match := re.search(r"--ram (\S+)", way):
        budget = replace(budget, ram=parse_size(match[1]))
    if way.startswith("--offload without"):
        choice = replace(choice, keep=None, offload=True)
    if way.startswith("no --cpu-layers"):
        choice = replace(choice, cpu=())
    if way.startswith("--device cpu"):
        budget, choice = Budget("cpu", None, budget.ram), Choice()
    return needs, budget, choice


@pytest.mark.parametrize("case", CASES)
def test_every_way_out_is_one(case: str) -> None:
    config, budget, choice, rates, wanted = CASES[case]
    needs = needs_of(config, "float16", 4096, 2048)
    with pytest.raises(UserError) as refused:
        plan(needs, budget, choice, rates)
    line = str(refused.value)
    assert "\n" not in line
    assert re.match(
        r"the model does not fit: it needs [\d.]+ [GM]B of (simulated )?(VRAM|RAM) and has ", line
    )
    for way in wanted:
        assert way in line
    _, _, listed = line.partition("what helps: ")
    for way in listed.split(", or ") if listed else ():
        check(plan(*followed(way, needs, config, budget, choice), rates))


@pytest.mark.parametrize("vram", [10**5, 3 * 10**6])
def test_a_small_model_needs_little(vram: int) -> None:
    needs = tiny(max_rows=64)
    with pytest.raises(UserError, match=r"needs 8\.\d+ MB of simulated VRAM and has [\d.]+ MB, ") as refused:
        plan(needs, sim(vram), Choice(), SIM)
    match = re.search(r"--vram ([\w.]+)", str(refused.value))
    assert match is not None
    check(plan(needs, sim(parse_size(match[1])), Choice(), SIM))


def test_what_is_said_to_be_missing_is() -> None:
    needs = needs_of(SEVEN, "float16", 4096, 2048)
    budget = cuda(2e9)
    with pytest.raises(UserError) as refused:
        plan(needs, budget, Choice(), CUDA)
    match = re.search(r"needs (\S+ \S+) of VRAM and has 2 GB, (\S+ \S+) too little", str(refused.value))
    assert match is not None
    needed, missing = parse_size(match[1]), parse_size(match[2])
    assert needed == pytest.approx(2_000_000_000 + missing, abs=10_000_001)
    assert plan(needs, replace(budget, vram=2_000_000_000 + missing), Choice(), CUDA).rows <= 64
    with pytest.raises(UserError):
        plan(needs, replace(budget, vram=2_000_000_000 + missing - 10_000_000), Choice(), CUDA)


def test_a_context_is_the_largest_in_steps_that_fits() -> None:
    needs = needs_of(SEVEN, "float16", 4096, 2048)
    with pytest.raises(UserError, match=r"what helps: --context (\d+)") as refused:
        plan(needs, cuda(2.5e9), Choice(), CUDA)
    context = int(str(refused.value).partition("--context ")[2].partition(",")[0])
    assert context % 256 == 0
    with pytest.raises(UserError):
        plan(with_context(needs, context + 256), cuda(2.5e9), Choice(), CUDA)
    real = needs_of(SEVEN, "float16", context, 2048)
    bound = with_context(needs, context)
    assert real.kv == bound.kv
    assert real.workspace <= bound.workspace
    assert real.workspace_row <= bound.workspace_row
