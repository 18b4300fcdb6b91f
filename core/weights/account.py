"""What a layout takes in memory, and how long a token takes with it. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from core.weights.frame import STAGING, Frame, Layout, slot_bytes
from core.weights.needs import aligned
from core.weights.pipeline import crowded_seconds
from core.weights.plan import Limit, Place


@dataclass(frozen=True, slots=True)
class Account:
    """Bytes by kind, as a Plan has them. `taken` is the memory of the device, or of a CPU that computes."""

    resident: int
    slots: int
    workspace: int
    taken: int
    ram_streamed: int
    ram_pageable: int
    ram_cpu: int
    ram: int
    disk: int
    streamed_per_token: int


def account(frame: Frame, layout: Layout) -> Account:
    """The memory of a layout."""
    needs, budget = frame.needs, frame.budget
    parts = frame.parts[layout.kept]
    sizes = [] if layout.hybrid else [part for part in parts if part]
    slots = sum(slot_bytes(sizes, layout.slots)) if sizes else 0
    embedding = aligned(needs.embeddings) if layout.embedded else 0
    resident = frame.resident[layout.kept] + embedding
    taken = frame.taken(resident, slots, layout.rows)

    from_ram, from_disk = frame.sources(layout)
    place = frame.embedding_place(layout)
    rows_of = 0 if layout.embedded else frame.by_rows
    disk = sum(parts[i] for i in from_disk) + (rows_of if place is Place.DISK else 0)
    streamed = sum(parts[i] for i in from_ram)
    pageable = (rows_of if place is Place.RAM else 0) + (STAGING if disk else 0)
    cpu = frame.cpu_bytes + (sum(parts) if layout.hybrid else 0)
    if budget.vram is None:
        cpu, resident = resident, 0
        ram = taken + pageable
    else:
        ram = streamed + pageable + cpu + (taken if budget.simulated else 0)
    per_token = sum(sum(sizes[ring :: layout.slots]) for ring in looping(len(sizes), layout.slots))
    if budget.vram is not None and place is not Place.GPU:
        per_token += needs.embedding_row
    return Account(
        resident=resident,
        slots=slots,
        workspace=needs.workspace + layout.rows * needs.workspace_row,
        taken=taken,
        ram_streamed=streamed,
        ram_pageable=pageable,
        ram_cpu=cpu,
        ram=ram,
        disk=disk,
        streamed_per_token=per_token,
    )


def fits(frame: Frame, layout: Layout) -> bool:
    """Whether a layout stays within the budget."""
    memory = account(frame, layout)
    return (frame.budget.vram is None or memory.taken <= frame.budget.vram) and memory.ram <= frame.budget.ram


def looping(count: int, slots: int) -> range:
    """The rings that have more than one of `count` streamed units: only these copy for every token."""
    return range(max(0, min(slots, count - slots)))


def copy_seconds(frame: Frame, layout: Layout) -> list[float]:
    """How long the copy of each unit takes; 0 where nothing of it is streamed."""
    parts = frame.parts[layout.kept]
    if layout.hybrid:
        return [0.0] * len(parts)
    link, disk = frame.link, frame.disk
    seconds = [part / link for part in parts]
    for i in frame.sources(layout)[1] if layout.from_disk else ():
        seconds[i] = parts[i] / disk
    return seconds


def seconds(frame: Frame, layout: Layout) -> float:
    """The time of a token in the steady state."""
    if layout.hybrid:
        # Computed at the CPU's rate instead of the device's.
        slower = 1e-9 / frame.rates.cpu.gb_s - 1e-9 / frame.rates.gpu.gb_s
        return sum(frame.computes) + sum(frame.parts[layout.kept]) * slower
    rates = frame.rates
    return crowded_seconds(
        copy_seconds(frame, layout), frame.computes, layout.slots, rates.link_share, rates.gpu_share
    )


def least_seconds(frame: Frame, layout: Layout) -> tuple[float, int]:
    """Less than what `seconds` gives, or that itself, but soon found; and the bytes copied for a token.

    No token is faster than all copies, than all kernels, or than copy and kernels of one slot's units.
    """
    if layout.hybrid:
        return seconds(frame, layout), 0
    parts, slots = frame.parts[layout.kept], layout.slots
    sizes = [part for part in parts if part]
    copies = [copy for copy in copy_seconds(frame, layout) if copy]
    computes = [compute for compute, part in zip(frame.computes, parts, strict=True) if part]
    rings = looping(len(sizes), slots)
    per_ring = [sum(copies[ring::slots]) for ring in rings]
    serial = (copy + sum(computes[ring::slots]) for ring, copy in zip(rings, per_ring, strict=True))
    least = max(sum(frame.computes), sum(per_ring), *serial, 0.0)
    return least, sum(sum(sizes[ring::slots]) for ring in rings)


def limit(frame: Frame, layout: Layout) -> Limit:
    """What is busy longest for a token: the link (or the disk, where most of its time is the disk's), the
    device's kernels, or the CPU's.
    """
    parts, slots = frame.parts[layout.kept], layout.slots
    copies = copy_seconds(frame, layout)
    streamed = [i for i, copy in enumerate(copies) if copy]
    moving = [i for ring in looping(len(streamed), slots) for i in streamed[ring::slots]]
    from_disk = set(frame.sources(layout)[1])
    disk = sum(copies[i] for i in moving if i in from_disk)
    link = sum(copies[i] for i in moving)
    rest = 1e-9 * sum(parts) if layout.hybrid else 0.0  # on the CPU instead of on the device
    gpu = sum(frame.computes) - frame.cpu_seconds - rest / frame.rates.gpu.gb_s
    cpu = frame.cpu_seconds + rest / frame.rates.cpu.gb_s
    busy: dict[Limit, float] = {"link": link, "gpu": gpu, "cpu": cpu}
    longest = max(busy, key=busy.__getitem__)
    return "disk" if longest == "link" and 2 * disk > link else longest
