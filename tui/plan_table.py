"""A plan in words and columns, as `--plan` prints it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from core.context_sizes import kv_choices
from core.gpu.present import missing_here, words
from core.sizes import format_size
from core.weights.kernel_cache import MIXED_KERNEL, KnownKernels, kernel_words
from core.weights.needs import MIXED, Needs
from core.weights.plan import Place, Plan
from core.weights.plan_json import PlanGroup, groups
from tui.figures import rate

_PLACES = {Place.GPU: "GPU", Place.RAM: "RAM", Place.DISK: "disk", Place.CPU: "CPU"}
_SPLIT = 24  # characters; longer lists of layers are counted instead


def lines(plan: Plan, name: str, limit: int, kernels: KnownKernels) -> list[str]:
    """The table of groups, the sums of both memories, what other contexts would take, up to the model's
    `limit`, the slots, the speed, and what it rests on.
    """
    needs = plan.needs
    head = [name, needs.dtype, f"KV cache {needs.kv_type}", f"context {needs.context}", _device(plan)]
    found = groups(plan)
    rows = [("weights", "place", "format", "bytes", "moved per token")]
    rows += [
        (
            _label(group),
            _PLACES[group.place],
            group.format,
            format_size(group.nbytes),
            format_size(group.streamed) if group.streamed else "-",
        )
        for group in found
    ]
    total = sum(group.nbytes for group in found)
    rows.append(("all", "", "", format_size(total), format_size(plan.streamed_per_token)))
    sums = [*_sums(plan), _contexts(plan, limit)]
    on_card = [f"card kernels: {_on_card(needs)}"] if plan.budget.device.startswith("cuda") else []
    return [" · ".join(head), "", *_columns(rows), "", *sums, *_speed(plan), *on_card, *_kernels(kernels)]


def short_lines(plan: Plan) -> list[str]:
    """The same without the table: the sums of both memories, the slots, the speed, and what it rests on."""
    return [*_sums(plan), *_speed(plan)]


def _contexts(plan: Plan, limit: int) -> str:
    needs = plan.needs
    return f"KV cache by context: {kv_choices(limit, needs.context, needs.kv // needs.context)}"


def _on_card(needs: Needs) -> str:
    return MIXED_KERNEL if needs.quant == MIXED else words(missing_here())


def _kernels(kernels: KnownKernels) -> Iterator[str]:
    for format, names in kernels.items():
        words = "chosen at the first load" if names is None else kernel_words(names)
        yield f"CPU kernels, {format}: {words}"


def _device(plan: Plan) -> str:
    return "simulated device" if plan.budget.simulated else plan.budget.device


def _label(group: PlanGroup) -> str:
    if group.split and len(group.name) > _SPLIT:
        return f"{group.kind} {len(group.layers)} layers"
    return group.name


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _sums(plan: Plan) -> Iterator[str]:
    budget, needs = plan.budget, plan.needs
    if plan.vram is not None and budget.vram is not None:
        device = [
            ("context", budget.context),
            ("resident", plan.resident),
            ("slots", plan.slots),
            ("KV cache", needs.kv),
            ("workspace", plan.workspace),
            ("reserve", budget.reserve),
        ]
        word = "VRAM, simulated" if budget.simulated else "VRAM"
        yield _sum(word, plan.vram, budget.vram, device)
    host = [("streamed from", plan.ram_streamed), ("read by rows and staging", plan.ram_pageable)]
    host.append(("computed from", plan.ram_cpu))
    if plan.vram is None:
        host += [("slots", plan.slots), ("KV cache", needs.kv), ("workspace", plan.workspace)]
    elif budget.simulated:
        host.append(("simulated VRAM", plan.vram))
    yield _sum("RAM", plan.ram, budget.ram, host)
    if plan.disk:
        yield f"disk: {format_size(plan.disk)} of weights, from a packed file"


def _sum(name: str, total: int, budget: int, parts: list[tuple[str, int]]) -> str:
    terms = " + ".join(f"{word} {format_size(nbytes)}" for word, nbytes in parts if nbytes)
    return f"{name}: {format_size(total)} of {format_size(budget)}{f' = {terms}' if terms else ''}"


def _speed(plan: Plan) -> Iterator[str]:
    simulated = "simulated " if plan.budget.simulated else ""
    if plan.rings:
        sizes = " + ".join(format_size(ring.slot_bytes) for ring in plan.rings)
        yield f"slots: {len(plan.rings)} ({sizes}), passes of up to {plan.rows} tokens"
    else:
        yield f"slots: none, passes of up to {plan.rows} tokens"
    limits = {
        "link": f"the {simulated}link", "gpu": f"the {simulated}GPU", "cpu": "the CPU", "disk": "the disk",
    }  # fmt: skip
    yield f"{simulated}speed, predicted: {rate(plan.predicted_tok_s)} tok/s, limited by {limits[plan.limit]}"
    named = [("CPU", plan.rates.cpu), ("disk", plan.rates.disk)]
    if plan.vram is not None:
        named = [(f"{simulated}link", plan.rates.link), (f"{simulated}GPU", plan.rates.gpu), *named]
    yield "rates: " + " · ".join(f"{word} {r.gb_s:.3g} GB/s ({r.source})" for word, r in named)
