"""Which rows the table has: modes of one model on the devices of one machine. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from core.options import LoadOptions
from core.weights.survey import device_of

AS_STORED = "{format}"
"""Stands in a mode's name for the format in which its weights were found to be."""

_QUANTS = ("int8", "int4", "nf4")


@dataclass(frozen=True, slots=True)
class Mode:
    """One row to be: its name, and what is loaded. `options.device` is "cpu", "sim" or "cuda:N".

    `partly` is the name where a device turns out not to hold every weight (None: the name says already
    where weights are). `own` marks what the user spelled out, which may read weights from the disk.
    """

    name: str
    options: LoadOptions
    partly: str | None = None
    own: bool = False

    def label(self, form: str | None, *, whole: bool = True) -> str:
        """The name once the weights' format is known (None: it never was)."""
        name = self.name if whole or self.partly is None else self.partly
        given = "as stored" if self.options.dtype == "auto" else self.options.dtype
        return name.replace(AS_STORED, form or given)


def devices_of(device: str) -> tuple[str, ...]:
    """The devices whose rows `--device` asks for: with "auto" the CPU and a usable CUDA device."""
    if device != "auto":
        return (device_of(device),)
    best = device_of("auto")
    return ("cpu",) if best == "cpu" else ("cpu", best)


def modes_of(options: LoadOptions, devices: tuple[str, ...]) -> tuple[Mode, ...]:
    """The rows for `options` on `devices`, in the order of the table.

    A type, a quantisation or a placement that was spelled out is the only row, on the last device.
    """
    if _spelled_out(options):
        return (_own(replace(options, device=devices[-1])),)
    return tuple(mode for device in devices for mode in _modes_on(replace(options, device=device)))


def _spelled_out(options: LoadOptions) -> bool:
    return (
        options.dtype != "auto"
        or options.quant != "none"
        or options.offload
        or options.keep is not None
        or bool(options.cpu_layers)
    )


def _modes_on(options: LoadOptions) -> list[Mode]:
    if options.device == "cpu":
        # A cap on device memory is for the other rows.
        plain = replace(options, vram=None)
        quantised = [Mode(f"CPU {quant}", replace(plain, quant=quant)) for quant in _QUANTS]
        return [Mode(f"CPU {AS_STORED}", plain), *quantised]
    word = "simulated:" if options.device == "sim" else "GPU"
    streamed: dict[str, dict[str, Any]] = {
        "everything streamed": {"offload": True},
        "feed-forward kept": {"offload": True, "keep": ("feed_forward",)},
        "attention kept": {"offload": True, "keep": ("attention",)},
        "int8 streamed": {"offload": True, "quant": "int8"},
        "feed-forward on CPU": {"cpu_layers": ("feed_forward",)},
    }
    rows = [Mode(f"{word} {name}", replace(options, **changes)) for name, changes in streamed.items()]
    return rows if options.device == "sim" else [*_resident(options), *rows]


def _resident(options: LoadOptions) -> list[Mode]:
    rest = "best placement"
    plain = Mode(f"GPU {AS_STORED}, resident", options, f"GPU {AS_STORED}, {rest}")
    return [plain, *(Mode(f"GPU {q}", replace(options, quant=q), f"GPU {q}, {rest}") for q in _QUANTS)]


def _own(options: LoadOptions) -> Mode:
    """The one row of who spelled out a mode, named by what was said."""
    form = AS_STORED if options.quant == "none" else options.quant
    parts = [f"{ {'cpu': 'CPU', 'sim': 'simulated:'}.get(options.device, 'GPU') } {form}"]
    if options.keep:
        parts.append(f"{','.join(options.keep)} kept")
    elif options.offload:
        parts.append("streamed")
    if options.cpu_layers:
        parts.append(f"{','.join(options.cpu_layers)} on CPU")
    return Mode(", ".join(parts), options, own=True)
