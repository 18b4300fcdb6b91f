"""What a row says, and how far from the possible it is: arithmetic without torch.

The ceiling of a mode is the speed at which the bytes of a token pass the resource that takes longest for
them, at the rate that resource was measured to reach in the same process.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from core.weights.frame import place_name
from core.weights.needs import aligned
from core.weights.plan import Limit, Place, Plan

BUSY = 0.05
"""The share of the machine's processors that others may take before a row is measured again."""


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """Weights that one token needs, in bytes: read by the device and by the CPU, and of these moved to the
    device, and read from the disk.
    """

    device: int
    cpu: int
    link: int
    disk: int

    @property
    def read(self) -> int:
        """All that is read by what computes."""
        return self.device + self.cpu


def token_bytes(plan: Plan) -> TokenBytes:
    """What a plan reads and moves for a token: every matrix and norm, and a row of the embedding."""
    needs = plan.needs
    moving = {unit for ring in plan.rings if len(ring.units) > 1 for unit in ring.units}
    on_cpu = disk = 0
    for unit in needs.units:
        for weight in unit.weights:
            place = plan.places[place_name(weight.name)]
            if place is Place.CPU:
                on_cpu += weight.nbytes
            elif place is Place.DISK and unit.name in moving:
                disk += aligned(weight.nbytes)
    total = needs.weights - needs.embeddings + needs.embedding_row
    if plan.vram is None:
        return TokenBytes(0, total, 0, disk)
    return TokenBytes(total - on_cpu, on_cpu, plan.streamed_per_token, disk)


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Measured rates in GB/s (10^9 bytes); None where there is no such thing, or it was not measured.

    Plain reading of RAM by all threads; copies of pinned memory to the device; bytes read and written by
    copies within the device's memory; reads of the packed file.
    """

    ram_read_gb_s: float | None = None
    link_gb_s: float | None = None
    device_gb_s: float | None = None
    disk_gb_s: float | None = None


def ceiling(
    needed: TokenBytes, rates: Ceilings, *, simulated: bool
) -> tuple[float, Limit] | tuple[None, None]:
    """Tokens per second that nothing can exceed, and what sets them; None where a rate is not known.

    Copies go on beside the computing. CPU and device take turns, so their times add. A simulated device
    reads its weights from the machine's RAM.
    """
    device = rates.ram_read_gb_s if simulated else rates.device_gb_s
    wanted: dict[Limit, tuple[int, float | None]] = {
        "link": (needed.link, rates.link_gb_s),
        "disk": (needed.disk, rates.disk_gb_s),
        "gpu": (needed.device, device),
        "cpu": (needed.cpu, rates.ram_read_gb_s),
    }
    seconds: dict[Limit, float] = {}
    for limit, (nbytes, gb_s) in wanted.items():
        if nbytes and gb_s is None:
            return None, None
        seconds[limit] = nbytes / (1e9 * gb_s) if gb_s else 0.0
    computing = seconds["gpu"] + seconds["cpu"]
    slowest = max(seconds["link"], seconds["disk"], computing)
    if slowest <= 0:
        return None, None
    if slowest == computing:
        return 1 / slowest, "cpu" if seconds["cpu"] >= seconds["gpu"] else "gpu"
    return 1 / slowest, "disk" if slowest == seconds["disk"] else "link"


@dataclass(frozen=True, slots=True)
class Measured:
    """What the process of a row finds out. Seconds, bytes, tokens per second; None where undefined."""

    mode: str
    model: str
    dtype: str
    quant: str
    kv: str
    context: int
    load_s: float
    peak_anon_bytes: int | None
    peak_vram_bytes: int | None
    prompt_tokens: int
    ttft_s: float
    prefill_tok_s: float
    decode_tokens: int
    decode_tok_s: float | None
    bytes_per_token: int
    streamed_bytes_per_token: int | None
    ceilings: Ceilings
    ceiling_tok_s: float | None
    limit: Limit | None
    share_of_ceiling: float | None
    kernels: dict[str, str] | None
    note: str | None

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Measured:
        """What `asdict` and JSON made of one."""
        return cls(**given | {"ceilings": Ceilings(**given["ceilings"])})


@dataclass(frozen=True, slots=True)
class Row:
    """One finished row. `measured` is None where the mode did not run; `note` then says why.

    `others` is the share of the machine's processors that other processes took meanwhile (None where it
    cannot be read); `repeated` says that a first try was thrown away for it. `fault` marks a fault of ours.
    `kv` is the type of the KV cache, None where the mode did not run and none was asked for.
    """

    mode: str
    device: str
    dtype: str | None
    quant: str
    measured: Measured | None = None
    others: float | None = None
    repeated: bool = False
    note: str | None = None
    fault: bool = False
    kv: str | None = None
    machine: dict[str, Any] = field(default_factory=dict)

    @property
    def disturbed(self) -> bool:
        """Whether others took too much of the machine for the figures to be trusted."""
        return self.measured is not None and self.others is not None and self.others > BUSY

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints: every key always there, null where undefined."""
        found = {} if self.measured is None else asdict(self.measured)
        row: dict[str, Any] = {"mode": self.mode, "device": self.device, "simulated": self.device == "sim"}
        row |= {"model": None, "dtype": self.dtype, "quant": self.quant, "kv": self.kv}
        row |= {key: found.get(key, row.get(key)) for key in Measured.__slots__}
        row["ceilings"] = row["ceilings"] or asdict(Ceilings())
        row |= {"others_cpu_share": self.others, "repeated": self.repeated, "note": self.note}
        return row | {"machine": self.machine}
