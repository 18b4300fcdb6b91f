"""From the timings of all rounds to medians, ratios and a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.peers.child import Timing

BUSY = 0.05
"""More than this share of the CPUs for others, and a timing is marked."""

OURS = "ours"


@dataclass(frozen=True, slots=True)
class Cell:
    """One engine at one measurement. `ratio` is ours over it, None for ours and without ours."""

    rate: float  # tokens per second, median of the rounds
    ratio: float | None
    others: float  # the most that others took of the CPUs in any round
    busy: int  # rounds in which that was too much
    rates: tuple[float, ...]

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f" x{self.ratio:.2f}"
        return f"{self.rate:.1f}{ratio}" + (f" !{self.busy}" if self.busy else "")


Timings = Mapping[str, Mapping[str, Sequence[Timing]]]
"""By engine, then by measurement: one of each round."""


def rotated(names: Sequence[str], round_: int) -> list[str]:
    """Each engine is first in its turn."""
    at = round_ % len(names) if names else 0
    return [*names[at:], *names[:at]]


def cells(timings: Timings) -> dict[str, dict[str, Cell]]:
    """The table of one format; several types of `transformers` are followed by the best of them in each."""
    medians = {
        engine: {what: statistics.median(timing.rate for timing in rounds) for what, rounds in row.items()}
        for engine, row in timings.items()
    }
    ours = medians.get(OURS, {})
    table = {
        engine: {
            what: _cell(rounds, None if engine == OURS or what not in ours else ours[what])
            for what, rounds in row.items()
        }
        for engine, row in timings.items()
    }
    types = [row for engine, row in table.items() if engine.startswith("transformers ")]
    if len(types) > 1:
        table["transformers, best type"] = {
            what: max((row[what] for row in types), key=lambda cell: cell.rate) for what in types[0]
        }
    return table


def _cell(rounds: Sequence[Timing], ours: float | None) -> Cell:
    rates = tuple(timing.rate for timing in rounds)
    rate = statistics.median(rates)
    return Cell(
        rate,
        None if ours is None else ours / rate,
        max(timing.others for timing in rounds),
        sum(timing.others > BUSY for timing in rounds),
        rates,
    )


def render(table: Mapping[str, Mapping[str, Cell]]) -> list[str]:
    """Lines: an engine a row, tokens per second and "x" with ours over theirs, "!" with busy rounds."""
    heads = list(next(iter(table.values()))) if table else []
    rows = [["tokens/s", *heads, "others"]]
    for engine, row in table.items():
        most = max(cell.others for cell in row.values())
        rows.append([engine, *(str(row[head]) for head in heads), f"{most:.0%}"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def as_json(table: Mapping[str, Mapping[str, Cell]]) -> dict[str, dict[str, Any]]:
    """The same with every round's figures."""
    return {
        engine: {
            what: {
                "tok_s": cell.rate,
                "ours_over_it": cell.ratio,
                "rounds_tok_s": list(cell.rates),
                "others_cpu_share": cell.others,
                "busy_rounds": cell.busy,
            }
            for what, cell in row.items()
        }
        for engine, row in table.items()
    }
