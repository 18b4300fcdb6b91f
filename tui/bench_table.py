"""The table of `--bench` in words and columns: at most 100 of them, rows as they come."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from core.bench.figures import Measured, Row
from core.bench.modes import AS_STORED, Mode
from core.sizes import format_size
from tui.figures import gigabytes, rate

WIDTH = 100
_MOST_NAME, _LONGEST_FORMAT = 31, "bfloat16"
_HEAD = (
    ("load", "s", 5), ("RAM", "GB", 4), ("VRAM", "GB", 4), ("first", "s", 5), ("prefill", "tok/s", 7),
    ("decode", "tok/s", 6), ("reads", "GB", 5), ("moves", "GB", 5), ("of ceiling", "", 10),
)  # fmt: skip
_LIMITS = {"link": "link", "disk": "disk", "gpu": "GPU", "cpu": "RAM"}


class Table:
    """The lines of a table whose rows are known one after the other."""

    def __init__(self, modes: Sequence[Mode]) -> None:
        names = (name for mode in modes for name in (mode.name, mode.partly) if name)
        longest = max(len(name.replace(AS_STORED, _LONGEST_FORMAT)) for name in names)
        self._name = min(_MOST_NAME, longest + 1)  # and the asterisk

    def head(self) -> list[str]:
        """What the columns are, and in which unit."""
        return [
            self._line("mode", [word for word, _, _ in _HEAD]),
            self._line("", [unit for _, unit, _ in _HEAD]),
        ]

    def row(self, row: Row) -> list[str]:
        """One row; several lines where it says why there are no figures."""
        if row.measured is not None:
            return [self._line(row.mode + "*" * row.disturbed, _cells(row.measured))]
        name = _cut(row.mode, self._name).ljust(self._name)
        return textwrap.wrap(
            f"not run: {row.note}",
            WIDTH,
            initial_indent=f"{name}  ",
            subsequent_indent=" " * (self._name + 2),
        )

    def _line(self, name: str, cells: Iterable[str]) -> str:
        columns = (cell.rjust(width) for cell, (_, _, width) in zip(cells, _HEAD, strict=True))
        return "  ".join((_cut(name, self._name).ljust(self._name), *columns)).rstrip()


def foot(rows: Sequence[Row], command: str) -> list[str]:
    """What belongs below: the marks, the notes, the ceilings, how it was measured, and on what."""
    found = [*_notes(rows), "", *_method(rows)]
    if rows:
        found += _machine(rows[0], command)
    return [line for text in found for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ") or [""]]


def _cells(found: Measured) -> list[str]:
    share = "-"
    if found.share_of_ceiling is not None and found.limit is not None:
        share = f"{100 * found.share_of_ceiling:.0f} % {_LIMITS[found.limit]}"
        if found.limit == "gpu" and found.peak_vram_bytes is not None and found.ceilings.device_gb_s is None:
            share = f"{100 * found.share_of_ceiling:.0f} % RAM"  # a simulated device computes from there
    return [
        _short(found.load_s),
        _size(found.peak_anon_bytes),
        _size(found.peak_vram_bytes),
        _short(found.ttft_s),
        rate(found.prefill_tok_s),
        "-" if found.decode_tok_s is None else rate(found.decode_tok_s),
        _size(found.bytes_per_token),
        _size(found.streamed_bytes_per_token),
        share,
    ]


def _notes(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        if row.disturbed and row.others is not None:
            twice = ", in a second try as well" if row.repeated else ""
            yield f"* {row.mode}: other processes took {row.others:.0%} of the processors meanwhile{twice}"
    for row in rows:
        if row.measured is not None and row.note:
            yield f"{row.mode}: {row.note}"


def _method(rows: Sequence[Row]) -> Iterator[str]:
    measured = [row.measured for row in rows if row.measured is not None]
    if not measured:
        return
    kinds = {
        "reading RAM": [found.ceilings.ram_read_gb_s for found in measured],
        "pinned copy to the device": _rates(rows, "link_gb_s", simulated=False),
        "to the simulated device": _rates(rows, "link_gb_s", simulated=True),
        "within the device's memory": [found.ceilings.device_gb_s for found in measured],
        "disk": [found.ceilings.disk_gb_s for found in measured],
    }
    said = [f"{kind} {_range(rates)} GB/s" for kind, values in kinds.items() if (rates := _known(values))]
    yield "first: to the first token; reads, moves: weights for one token; * others were busy"
    yield f"ceilings, measured beside the rows: {' · '.join(said)}"
    first = measured[0]
    yield (
        f"model: {first.model} · context {first.context} · KV cache in {first.kv} · a prompt of "
        f"{first.prompt_tokens} tokens, a reply of up to {max(found.decode_tokens for found in measured)}, "
        "after a short warm-up; "
        "each row a process of its own"
    )
    if any(row.device == "sim" for row in rows):
        yield "simulated: copies at the pace of a bus that is not there, computed on the CPU; no GPU"


def _machine(row: Row, command: str) -> Iterator[str]:
    machine = row.machine
    parts = [f"{machine['cpu'] or 'an unknown processor'}, {machine['cores']} cores"]
    parts.append(f"{format_size(machine['ram_bytes'])} RAM")
    if machine["gpu"] is None:
        parts.append("no NVIDIA GPU")
    else:
        size = "" if machine["vram_bytes"] is None else f" {format_size(machine['vram_bytes'])}"
        driver = "" if machine["driver"] is None else f", driver {machine['driver']}"
        parts.append(f"{machine['gpu']}{size}{driver}")
    yield f"machine: {' · '.join(parts)}"
    yield f"torch {machine['torch']} · llama-tui {machine['version']} · {machine['date']}"
    yield f"command: {command}"


def _rates(rows: Sequence[Row], kind: str, *, simulated: bool) -> list[float | None]:
    return [
        getattr(row.measured.ceilings, kind)
        for row in rows
        if row.measured is not None and (row.device == "sim") is simulated
    ]


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _range(rates: Sequence[float]) -> str:
    low, high = (f"{float(f'{value:.3g}'):g}" for value in (min(rates), max(rates)))
    return low if low == high else f"{low} to {high}"


def _size(nbytes: int | None) -> str:
    return "-" if nbytes is None else gigabytes(nbytes)


def _short(seconds: float) -> str:
    if seconds >= 99.95:
        return f"{seconds:.0f}"
    return f"{seconds:.1f}" if seconds >= 0.995 else f"{seconds:.2f}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
