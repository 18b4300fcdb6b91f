"""Where every weight goes: arithmetic on sizes and speeds. No torch.

Device memory holds the driver's context, resident weights and norms, slots, KV cache, workspace and a
reserve. What is not resident is streamed through the slots from host memory or the disk, or computed on the
CPU where it lies.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from core.weights.account import account, limit
from core.weights.frame import Frame, Layout, frame_of, place_name, slot_bytes
from core.weights.needs import Needs
from core.weights.pipeline import deal
from core.weights.plan import Budget, Choice, Place, Plan, Rates, Ring
from core.weights.refusal import refusal
from core.weights.search import best, smallest, tok_s

_STEP = 256 * 10**6  # bytes less on the device when it ran out of memory, at most


def plan(needs: Needs, budget: Budget, choice: Choice, rates: Rates) -> Plan:
    """The fastest placement of a model within `budget` that does what `choice` says.

    What fits whole is never streamed unless the choice says so, and more memory is never slower. Raises
    UserError for a contradiction, and for what cannot fit: by how much, and which flags would help.
    """
    frame = frame_of(needs, budget, choice, rates)
    layout = best(frame)
    if layout is None:
        raise refusal(needs, budget, choice, rates)
    return _plan(frame, layout)


def smaller(plan: Plan) -> Plan | None:
    """The next smaller plan for the same model when the device ran out of memory; None where none is left.

    What the user named to stay on the device does not count any more; that all is streamed still does.
    """
    if plan.vram is None:
        return None
    explicit = plan.choice.offload or plan.choice.keep is not None
    choice = replace(plan.choice, keep=None, offload=explicit and not plan.choice.keep)
    frame = frame_of(plan.needs, plan.budget, choice, plan.rates)
    least = min(account(frame, layout).taken for layout in smallest(frame))
    vram = max(least, plan.vram - min(_STEP, plan.vram // 20))
    if vram >= plan.vram:
        return None
    frame = replace(frame, budget=replace(plan.budget, vram=vram))
    layout = best(frame)
    return None if layout is None else _plan(frame, layout)


def _plan(frame: Frame, layout: Layout) -> Plan:
    memory = account(frame, layout)
    on_device = frame.budget.vram is not None
    return Plan(
        needs=frame.needs,
        budget=frame.budget,
        choice=frame.choice,
        rates=frame.rates,
        places=MappingProxyType(_places(frame, layout)),
        rings=_rings(frame, layout),
        rows=layout.rows,
        resident=memory.resident,
        slots=memory.slots,
        workspace=memory.workspace,
        vram=memory.taken if on_device else None,
        ram_streamed=memory.ram_streamed,
        ram_pageable=memory.ram_pageable,
        ram_cpu=memory.ram_cpu,
        ram=memory.ram,
        disk=memory.disk,
        streamed_per_token=memory.streamed_per_token,
        predicted_tok_s=tok_s(frame, layout),
        limit=limit(frame, layout),
    )


def _places(frame: Frame, layout: Layout) -> dict[str, Place]:
    resident = frame.kept(layout)
    from_disk = set(frame.sources(layout)[1])
    places: dict[str, Place] = {}
    for i, unit in enumerate(frame.needs.units):
        for weight in unit.weights:
            name = place_name(weight.name)
            if name in frame.on_cpu:
                places[name] = Place.CPU
            elif name in resident:
                places[name] = frame.home
            elif layout.hybrid:
                places[name] = Place.CPU
            else:
                places[name] = Place.DISK if i in from_disk else Place.RAM
    places["embeddings"] = frame.embedding_place(layout)
    return places


def _rings(frame: Frame, layout: Layout) -> tuple[Ring, ...]:
    if layout.hybrid:
        return ()
    parts = frame.parts[layout.kept]
    streamed = [(unit.name, part) for unit, part in zip(frame.needs.units, parts, strict=True) if part]
    sizes = slot_bytes([part for _, part in streamed], layout.slots) if streamed else []
    names = [name for name, _ in streamed]
    return tuple(
        Ring(size, tuple(names[ring.start : ring.stop : ring.step]))
        for size, ring in zip(sizes, deal(len(names), layout.slots), strict=False)
    )
