"""Plans without a model: what a Llama 2 7B is placed like, and what the meters read of it."""

from __future__ import annotations

from core.engine.events import Snapshot, Traffic
from core.model.shapes import SHAPES
from core.weights import placement
from core.weights.needs import Needs, needs_of
from core.weights.plan import Budget, Choice, Place, Plan, Rate, Rates

GB = 10**9
RATES = Rates(Rate(25.2, "measured"), Rate(800), Rate(40), Rate(2))
CARD = Budget("cuda:0", 9 * GB, 32 * GB, context=300 * 10**6, reserve=200 * 10**6, card=12 * GB)
SIMULATED = Budget("sim", 9 * GB, 64 * GB, card=12 * GB)
ON_CPU = Budget("cpu", None, 32 * GB)


def plan_7b(choice: Choice | None = None, budget: Budget = CARD, *, needs: Needs | None = None) -> Plan:
    """A plan for a Llama 2 7B in float16; unless told, attention stays on the GPU."""
    needs = needs or needs_of(SHAPES["7b"], "float16", 2048, 512)
    return placement.plan(needs, budget, choice or Choice(True, ("attention",)), RATES)


def readings(plan: Plan, *, speed: float = 0.85, others: int = 700_000_000) -> Snapshot:
    """What the meters read while `plan` is in force and the link carries `speed` of what it can."""
    budget = plan.budget
    vram = (
        ("context", budget.context),
        ("resident", plan.resident),
        ("slots", plan.slots),
        ("kv", plan.needs.kv),
        ("workspace", plan.workspace),
    )
    ram = (("pinned", plan.ram_streamed), ("pageable", plan.ram_pageable), ("cpu", plan.ram_cpu))
    ours = sum(amount for _, amount in vram)
    anon = sum(amount for _, amount in ram) + ours * budget.simulated + 400_000_000
    link = 1e9 * plan.rates.link.gb_s
    traffic = Traffic(
        budget.simulated,
        budget.vram,
        vram,
        ram,
        speed * link,
        0.1e9,
        1.9e9 * bool(plan.disk),
        link,
        None,
        None,
    )
    card = budget.card
    return Snapshot(
        ram_total=32 * GB,
        ram_used=anon + 3 * GB,
        process_anon=anon,
        process_file=2 * GB,
        gpu_name=None if budget.simulated else "Card",
        vram_total=card,
        vram_used=ours + others * (not budget.simulated),
        pcie_to_gpu=None if budget.simulated else speed * link + 0.5e9,
        pcie_from_gpu=None if budget.simulated else 0.2e9,
        pcie_link=None if budget.simulated else 31.5e9,
        engine=traffic,
    )


def moved_bytes(before: Plan, after: Plan) -> int:
    """Bytes of the weights that are in other places."""
    sizes = {weight.name: weight.nbytes for unit in before.needs.units for weight in unit.weights}
    kept = [{name for name, place in plan.places.items() if place is Place.GPU} for plan in (before, after)]
    return sum(sizes.get(name, 0) for name in kept[0] ^ kept[1])
