"""Bars of disjoint kinds: a letter a cell, so that they can be read without colour."""

from __future__ import annotations

from collections.abc import Sequence


def shares(amounts: Sequence[float], total: float, width: int, *, all_seen: bool = True) -> list[int]:
    """How many of `width` cells each amount gets, of a whole of `total`.

    Cumulative rounding, so that the cells add up as the amounts do; with `all_seen` an amount above
    nothing gets at least one cell while there is room, since a kind that exists should be seen.
    """
    cells, used, before = [], 0, 0.0
    for amount in amounts:
        before += max(0.0, amount)
        least = min(width, used + 1) if all_seen and amount > 0 else used
        end = max(least, min(width, round(width * before / total) if total > 0 else 0))
        cells.append(end - used)
        used = end
    return cells


def level(fraction: float, width: int) -> str:
    """A plain bar of `width` cells, filled to `fraction`."""
    filled = round(max(0.0, min(1.0, fraction)) * width)
    return "▓" * filled + "░" * (width - filled)
