"""The best layout within a budget. No torch.

Every layout that fits a budget fits a larger one, and the fastest is taken: so more memory is never slower.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate

from core.weights.account import fits, least_seconds, seconds
from core.weights.frame import STAGING, Frame, Layout, slot_bytes

_LEAST_ROWS = 8


def best(frame: Frame) -> Layout | None:
    """The fastest layout within the budget, or None where nothing fits.

    What fits whole is never streamed.
    """
    layout = _whole(frame) or _fastest(frame) or _least(frame)
    return None if layout is None else _with_more_rows(frame, layout)


def tok_s(frame: Frame, layout: Layout) -> float:
    """The speed that a layout should give, rounded so that layouts alike in speed compare equal."""
    return _rounded(seconds(frame, layout))


def smallest(frame: Frame) -> list[Layout]:
    """The layouts that take the least memory of the device, with the fewest rows: one of them fits where
    anything does.
    """
    rows = min(_LEAST_ROWS, frame.most_rows)
    layouts = []
    if frame.hybrid:
        layouts.append(Layout(frame.nothing, 0, 0, rows, hybrid=True))
    if any(frame.parts[frame.nothing]):
        usual = Layout(frame.nothing, frame.slot_counts[0], 0, frame.usual_rows)
        count = _disk_count(frame, usual)
        count = _cheapest(frame, usual) if count is None else count
        layouts.append(replace(usual, rows=rows, from_disk=count))
    return [*layouts, *_whole_layouts(frame, rows)]


def _whole(frame: Frame) -> Layout | None:
    """The layout that streams nothing, if there is one that fits."""
    tries = (_whole_layouts(frame, rows) for rows in _rows_down(frame, frame.usual_rows))
    return next((layout for layouts in tries for layout in layouts if fits(frame, layout)), None)


def _whole_layouts(frame: Frame, rows: int) -> list[Layout]:
    """The layouts that stream nothing: with the embedding on the device, in RAM, and on the disk."""
    if any(frame.parts[-1]):
        return []
    layout = Layout(len(frame.parts) - 1, 0, 0, rows)
    planned = bool(frame.orders[0]) and bool(frame.by_rows)
    return [replace(layout, embedded=True)] * planned + [layout, replace(layout, from_disk=1)]


def _fastest(frame: Frame) -> Layout | None:
    """The fastest among all that leave room for a pass of the usual length; with the least that moves,
    and the fewest slots, among those alike.
    """
    bounds = []
    for layout in _fitting(frame):
        least, moved = least_seconds(frame, layout)
        bounds.append((-_rounded(least), moved, layout.slots, layout.kept, layout))
    bounds.sort(key=lambda bound: bound[:4])
    found: tuple[tuple[float, int, int, int], Layout] | None = None
    for bound, moved, slots, kept, layout in bounds:
        if found is not None and found[0] <= (bound, moved, slots, kept):
            break  # the rest cannot be better, since their speed is at most their bound
        key = (-tok_s(frame, layout), moved, slots, kept)
        if found is None or key < found[0]:
            found = key, layout
    return None if found is None else found[1]


def _fitting(frame: Frame) -> Iterator[Layout]:
    budget, rows = frame.budget, frame.usual_rows
    most = budget.ram if budget.vram is None else budget.vram
    for kept, slots, taken in _streaming(frame):
        if taken <= most:
            layout = Layout(kept, slots, 0, rows)
            count = _disk_count(frame, layout)
            if count is not None:
                yield replace(layout, from_disk=count)
    for kept in range(len(frame.parts) - 1) if frame.hybrid else ():
        for count in (0, 1):
            layout = Layout(kept, 0, count, rows, hybrid=True)
            if fits(frame, layout):
                yield layout
                break


def _least(frame: Frame) -> Layout | None:
    """Shorter passes, where the usual ones have no room: with the smallest layouts only, so that a
    little more memory, which brings the usual rows back, is not slower.
    """
    rows = frame.usual_rows
    tries = [replace(layout, rows=r) for r in _rows_down(frame, rows) for layout in smallest(frame)]
    return next((layout for layout in tries if fits(frame, layout)), None)


def _with_more_rows(frame: Frame, layout: Layout) -> Layout:
    """The rows that are left room for."""
    while 2 * layout.rows <= frame.most_rows and fits(frame, replace(layout, rows=2 * layout.rows)):
        layout = replace(layout, rows=2 * layout.rows)
    return layout


def _rows_down(frame: Frame, rows: int) -> list[int]:
    least = min(_LEAST_ROWS, frame.most_rows)
    return [rows >> i for i in range(rows.bit_length()) if rows >> i >= least]


def _streaming(frame: Frame) -> Iterator[tuple[int, int, int]]:
    """All layouts that stream: items kept, slots, and device memory with passes of the usual length."""
    for kept, parts in enumerate(frame.parts):
        sizes = [part for part in parts if part]
        for slots in frame.slot_counts if sizes else ():
            total = sum(slot_bytes(sizes, slots))
            yield kept, slots, frame.taken(frame.resident[kept], total, frame.usual_rows)


def _disk_count(frame: Frame, layout: Layout) -> int | None:
    """How many groups of a layout must come from the disk; None where host memory is too small even so."""
    sizes = _host_sizes(frame, layout)
    room = _host_room(frame, layout)
    if frame.budget.vram is None:
        return 0 if room >= STAGING else None
    total = sum(sizes)
    if total <= room:
        return 0
    moved = list(accumulate(sizes))  # by the first group, by two, …
    count = bisect_left(moved, max(1, total + STAGING - room)) + 1
    return count if count <= len(sizes) else None


def _cheapest(frame: Frame, layout: Layout) -> int:
    """All from RAM or all from the disk, whichever takes less host memory."""
    return 0 if sum(_host_sizes(frame, layout)) <= STAGING else len(frame.disk_order)


def _host_sizes(frame: Frame, layout: Layout) -> list[int]:
    """What each group takes of host memory if it does not come from the disk."""
    parts = frame.parts[layout.kept]
    first, *groups = frame.disk_order
    assert not first
    return [frame.by_rows, *(sum([parts[i] for i in group]) for group in groups)]


def _host_room(frame: Frame, layout: Layout) -> int:
    """Host memory that is left for what is streamed."""
    sizes = [part for part in frame.parts[layout.kept] if part]
    taken = frame.taken(frame.resident[layout.kept], sum(slot_bytes(sizes, layout.slots)), layout.rows)
    on_host = frame.budget.simulated or frame.budget.vram is None
    return frame.budget.ram - frame.cpu_bytes - (taken if on_host else 0)


def _rounded(seconds: float) -> float:
    return float(f"{1 / seconds:.4g}")
