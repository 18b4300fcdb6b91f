"""The words of placement: what may be chosen, what there is, and where every weight goes. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from core.weights.needs import Needs

Limit = Literal["link", "gpu", "cpu", "disk"]


class Place(StrEnum):
    """Where a weight lives between two tokens."""

    GPU = "gpu"  # resident on the device
    RAM = "ram"  # streamed from host memory
    DISK = "disk"  # streamed from the packed file
    CPU = "cpu"  # computed on the CPU where it lies


@dataclass(frozen=True, slots=True)
class Choice:
    """What the user pinned where, by the names of `core.weights.names`.

    `keep` (None: not said) stays on the device and everything else is streamed; `offload` streams every
    unit; neither leaves the choice to the planner. `cpu` is computed on the CPU in any case.
    """

    offload: bool = False
    keep: tuple[str, ...] | None = None
    cpu: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Budget:
    """What the machine gives. Bytes.

    `vram` caps device memory, the CUDA `context` (the driver's own share) included; None where the model
    is computed on the CPU, out of `ram` alone. `ram` caps our anonymous and pinned host memory; the memory
    of a simulated device is host memory too and counts there as well. `card` is the size of the card.
    """

    device: str  # "cuda:0", "sim", "cpu"
    vram: int | None
    ram: int
    context: int = 0
    reserve: int = 0
    card: int | None = None

    @property
    def simulated(self) -> bool:
        """True on the simulated device, whose figures must be called so."""
        return self.device == "sim"


@dataclass(frozen=True, slots=True)
class Rate:
    """A speed in GB/s (10^9 bytes), and where it comes from."""

    gb_s: float
    source: Literal["measured", "cached", "assumed"] = "assumed"


@dataclass(frozen=True, slots=True)
class Rates:
    """What carries bytes past the arithmetic: the bus, the device's memory, the CPU's, the disk.

    `unit_s` is what a unit costs besides its bytes, in seconds: kernels are launched, threads meet.
    `link_share` and `gpu_share` are what is left of these rates while the other one is busy too.
    """

    link: Rate
    gpu: Rate
    cpu: Rate
    disk: Rate
    unit_s: float = 0.0
    link_share: float = 1.0
    gpu_share: float = 1.0


@dataclass(frozen=True, slots=True)
class Ring:
    """Units that take turns in one slot of the device, in the order of computation."""

    slot_bytes: int
    units: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where every weight lives, what moves, what that takes, and the speed it should give.

    `places` has every weight of `needs` by its short name, and "output" and "embeddings"; the head is
    kept or streamed as a whole (its tiles have no entries of their own). Made by `placement.plan`.
    """

    needs: Needs
    budget: Budget
    choice: Choice
    rates: Rates
    places: Mapping[str, Place]
    rings: tuple[Ring, ...]
    rows: int  # of one pass, at most
    resident: int  # bytes on the device that never move, norms included
    slots: int
    workspace: int
    vram: int | None  # all of the device's, context and reserve included; None on the CPU
    ram_streamed: int  # host memory that is streamed from, pinned where the system allows
    ram_pageable: int  # host memory read by rows: the embedding; staging buffers
    ram_cpu: int  # host memory that is computed from
    ram: int  # all host memory; on a simulated device its memory as well
    disk: int  # bytes of weights that are read from disk
    streamed_per_token: int
    predicted_tok_s: float
    limit: Limit
