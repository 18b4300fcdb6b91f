"""Nearly all on the card: graphs of what stays between the few units that are streamed."""

from __future__ import annotations

from tests.gpu.prove_decode import slower
from tests.gpu.prove_parts import (
    Bound,
    Clock,
    Table,
    decoded,
    eagerly,
    engine_of,
    median_of,
    pinned_copy_rate,
)

_KEPT = ("layers.0-27", "output", "embeddings")
_TOKENS = 33


def mixed_rows(clock: Clock) -> list[Bound]:
    """The table of 7B with four of its layers streamed; what was missed."""
    pinned = pinned_copy_rate()
    table = Table(
        "Decode with four of 32 layers streamed",
        ("weights", "GB/token over the bus", "tok/s", "of what the bus allows", "without graphs"),
        f"Plain copies from pinned memory bring {pinned / 1e9:.1f} GB/s.",
    )
    for quant in ("none", "int4-128"):
        if clock.late():
            table.bounds.append(Bound(f"{quant} in time", 0.0, 1.0))
            continue
        with engine_of("7b", quant=quant, offload=True, keep=_KEPT) as (engine, told):
            moved = engine.placement.plan.streamed_per_token
            tokens, _ = decoded(engine, _TOKENS)
            second = median_of(3, lambda engine=engine: decoded(engine, _TOKENS)[1])
            eager, eager_s = eagerly(engine, _TOKENS)
        name = "float16" if quant == "none" else quant
        share = moved / second / pinned
        table.add(name, f"{moved / 1e9:.2f}", f"{1 / second:.1f}", f"{share:.2f}", f"{1 / eager_s:.1f}")
        table.bounds += [
            Bound(f"{name}: graph and eager agree", float(tokens == eager), 1.0),
            Bound(f"{name}: graphs without a warning", float(not slower(told)), 1.0),
            # Where the bus takes longer than all launches, both are as fast as it.
            Bound(f"{name}: times as fast as without graphs", eager_s / second, 0.97),
        ]
    return table.end()
