"""What the tests of planning share: small models, rates, and a plan's figures counted anew."""

from __future__ import annotations

from core.model.config import ModelConfig
from core.weights.needs import Needs, needs_of
from core.weights.plan import Budget, Place, Plan, Rate, Rates

STAGING = 64 * 10**6
CUDA = Rates(Rate(12), Rate(300), Rate(15), Rate(1))
MEASURED = Rates(Rate(12, "measured"), Rate(300, "measured"), Rate(40, "measured"), Rate(2, "measured"), 2e-5)
SIM = Rates(Rate(16), Rate(15), Rate(15), Rate(1))


def tiny(layers: int = 2, *, tied: bool = False, max_rows: int = 8, context: int = 64) -> Needs:
    """A model of some megabytes."""
    config = ModelConfig(
        dim=512, n_layers=layers, n_heads=8, n_kv_heads=4, head_dim=64, hidden_dim=1408, vocab_size=4000,
        norm_eps=1e-5, tied=tied,
    )  # fmt: skip
    return needs_of(config, "float16", context, max_rows)


def cuda(vram: float, ram: float = 1e12) -> Budget:
    """A card with a context and a reserve."""
    return Budget("cuda:0", int(vram), int(ram), context=500_000_000, reserve=100_000_000)


def sim(vram: float, ram: float = 1e12) -> Budget:
    """The simulated card."""
    return Budget("sim", int(vram), int(ram))


def cpu(ram: float) -> Budget:
    """No card."""
    return Budget("cpu", None, int(ram))


def up(nbytes: int) -> int:
    """To the next multiple of 256."""
    return (nbytes + 255) // 256 * 256


def check(plan: Plan) -> None:
    """Every figure of a plan is what its places and rings say, and within its budget."""
    needs, budget, places = plan.needs, plan.budget, plan.places
    names = {w.name for unit in needs.units for w in unit.weights if not unit.name.startswith("output.")}
    assert set(places) == names | {"output", "embeddings"}
    if needs.tied:
        assert places["embeddings"] is places["output"]

    resident, on_cpu, disk, in_ram, parts = needs.norms, 0, 0, 0, {}
    for unit in needs.units:
        for weight in unit.weights:
            size = up(weight.nbytes)
            match places["output" if unit.name.startswith("output.") else weight.name]:
                case Place.GPU:
                    resident += size
                case Place.CPU:
                    on_cpu += size
                case Place.RAM:
                    in_ram += size
                    parts[unit.name] = parts.get(unit.name, 0) + size
                case Place.DISK:
                    disk += size
                    parts[unit.name] = parts.get(unit.name, 0) + size
        kinds = {places[w.name] for w in unit.weights if w.name in places} & {Place.RAM, Place.DISK}
        assert len(kinds) <= 1, unit.name
    embedding = 0 if needs.tied else needs.embeddings
    pageable = 0
    match places["embeddings"]:
        case Place.GPU:
            resident += up(embedding)
        case Place.CPU:
            on_cpu += up(embedding)
        case Place.RAM:
            pageable = embedding
        case Place.DISK:
            disk += embedding

    order = [unit.name for unit in needs.units if unit.name in parts]
    count = len(plan.rings)
    assert [ring.units for ring in plan.rings] == [tuple(order[k::count]) for k in range(count)]
    assert [ring.slot_bytes for ring in plan.rings] == [
        max(parts[u] for u in ring.units) for ring in plan.rings
    ]
    moved = sum(parts[unit] for ring in plan.rings if len(ring.units) > 1 for unit in ring.units)

    slots, workspace = (
        sum(ring.slot_bytes for ring in plan.rings),
        needs.workspace + plan.rows * needs.workspace_row,
    )
    staging = STAGING if disk else 0
    assert (plan.slots, plan.workspace, plan.disk) == (slots, workspace, disk)
    assert plan.rows & (plan.rows - 1) == 0
    assert min(8, needs.max_rows) <= plan.rows <= needs.max_rows
    if budget.vram is None:
        assert Place.GPU not in places.values()
        assert Place.RAM not in places.values()
        assert plan.vram is None
        on_cpu, resident = on_cpu + needs.norms, 0
        assert plan.ram == on_cpu + slots + needs.kv + workspace + staging
    else:
        if places["embeddings"] is not Place.GPU:
            moved += needs.embedding_row
        vram = budget.context + budget.reserve + resident + slots + needs.kv + workspace
        assert plan.vram == vram <= budget.vram
        own = vram if budget.simulated else 0
        assert plan.ram == in_ram + pageable + staging + on_cpu + own
    assert plan.ram <= budget.ram
    assert (plan.resident, plan.ram_cpu, plan.ram_streamed) == (resident, on_cpu, in_ram)
    assert plan.ram_pageable == pageable + staging
    assert plan.streamed_per_token == moved
    assert plan.predicted_tok_s > 0
