"""A plan as the contract prints it: groups of weights, and one JSON object. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from core.weights.frame import place_name
from core.weights.kernel_cache import CLASSES
from core.weights.names import MATRICES, layer_count
from core.weights.needs import aligned
from core.weights.plan import Place, Plan


@dataclass(frozen=True, slots=True)
class PlanGroup:
    """Weights of one kind in one place. `layers` are theirs, empty for the ends and the norms; `split`
    where others of the kind are elsewhere. Bytes: their own, and those that move for a token.
    """

    kind: str
    layers: tuple[int, ...]
    split: bool
    place: Place
    format: str
    nbytes: int
    streamed: int

    @property
    def name(self) -> str:
        """The kind, and the layers where it is split: "wq layers 0-9,12"."""
        return f"{self.kind} layers {ranges(self.layers)}" if self.split else self.kind


def groups(plan: Plan) -> list[PlanGroup]:
    """All weights in the order of computation, by kind; the bytes that move are the plan's in sum.

    A tied model's embedding is its output head and appears once.
    """
    needs = plan.needs
    layers = range(layer_count(needs))
    moving = {unit for ring in plan.rings if len(ring.units) > 1 for unit in ring.units}
    sizes: dict[str, int] = {}
    formats: dict[str, str] = {"embeddings": needs.embedding_format}
    moved: dict[str, int] = {}
    for unit in needs.units:
        for weight in unit.weights:
            name = place_name(weight.name)
            sizes[name] = sizes.get(name, 0) + weight.nbytes
            formats[name] = weight.format
            if unit.name in moving and plan.places[name] in (Place.RAM, Place.DISK):
                moved[name] = moved.get(name, 0) + aligned(weight.nbytes)
    by_rows = plan.vram is not None and plan.places["embeddings"] is not Place.GPU
    row = needs.embedding_row if by_rows else 0
    found = []
    if not needs.tied:
        place = plan.places["embeddings"]
        found.append(PlanGroup("embeddings", (), False, place, formats["embeddings"], needs.embeddings, row))
    for kind in MATRICES:
        names = {i: f"layers.{i}.{kind}" for i in layers}
        parts = list(dict.fromkeys((plan.places[name], formats[name]) for name in names.values()))
        for place, form in parts:
            there = tuple(
                i for i, name in names.items() if (plan.places[name], formats[name]) == (place, form)
            )
            nbytes, streamed = (sum(table.get(names[i], 0) for i in there) for table in (sizes, moved))
            found.append(PlanGroup(kind, there, len(parts) > 1, place, form, nbytes, streamed))
    head = moved.get("output", 0) + (row if needs.tied else 0)
    found.append(
        PlanGroup("output", (), False, plan.places["output"], formats["output"], sizes["output"], head)
    )
    home = Place.CPU if plan.vram is None else Place.GPU
    return [*found, PlanGroup("norms", (), False, home, needs.dtype, needs.norms, 0)]


def ranges(numbers: tuple[int, ...]) -> str:
    """Numbers in rising order as people write them: "0-9,12"."""
    runs = (list(run) for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]))
    ends = ((run[0][1], run[-1][1]) for run in runs)
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)


def plan_json(plan: Plan, kernels: Mapping[str, Sequence[str] | None]) -> dict[str, Any]:
    """The contract's object. What is undefined, as all of VRAM is on the CPU, is None.

    `kernels` are those that were measured for the CPU, by format: for each class of rows a name.
    """
    needs, budget, rates = plan.needs, plan.budget, plan.rates
    return {
        "device": budget.device,
        "simulated": budget.simulated,
        "dtype": needs.dtype,
        "quant": needs.quant,
        "kv": needs.kv_type,
        "context": needs.context,
        "slots": len(plan.rings),
        "slot_bytes": max((ring.slot_bytes for ring in plan.rings), default=None),
        "vram": {name: None if plan.vram is None else value for name, value in _vram(plan)},
        "ram": {
            "budget": budget.ram,
            "pinned": plan.ram_streamed,
            "pageable": plan.ram_pageable,
            "cpu": plan.ram_cpu,
            "total": plan.ram,
        },
        "disk_bytes": plan.disk,
        "groups": [
            {
                "name": group.name,
                "place": str(group.place),
                "format": group.format,
                "bytes": group.nbytes,
                "streamed_bytes": group.streamed,
            }
            for group in groups(plan)
        ],
        "streamed_bytes_per_token": plan.streamed_per_token,
        "predicted_tok_s": plan.predicted_tok_s,
        "limit": plan.limit,
        "kernels": {
            format: None if names is None else dict(zip(CLASSES, names, strict=True))
            for format, names in kernels.items()
        },
        "rates": {
            kind: {"gb_s": rate.gb_s, "source": rate.source}
            for kind, rate in (
                ("link", rates.link), ("gpu", rates.gpu), ("cpu", rates.cpu), ("disk", rates.disk),
            )
        },
    }  # fmt: skip


def _vram(plan: Plan) -> Iterator[tuple[str, int | None]]:
    yield "budget", plan.budget.vram
    yield "context", plan.budget.context
    yield "resident", plan.resident
    yield "slots", plan.slots
    yield "kv", plan.needs.kv
    yield "workspace", plan.workspace
    yield "reserve", plan.budget.reserve
    yield "total", plan.vram
