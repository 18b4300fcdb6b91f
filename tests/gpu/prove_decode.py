"""Resident decode: bytes of weights each second against the card's own copies, and formats compared."""

from __future__ import annotations

from core.engine.load import Engine
from core.errors import UserError
from core.weights.bnb_kernel import mixed_kernel
from tests.gpu.prove_parts import (
    DEVICE,
    Bound,
    Clock,
    Table,
    decoded,
    device_copy_rate,
    eagerly,
    engine_of,
    median_of,
)

FORMATS = ("none", "int8", "int4", "int4-128", "nf4", "int8-mixed")
_LEAST = {"int8": 1.6, "int4-128": 2.3}  # times float16
_TOKENS = 65


def decode_rows(models: tuple[str, ...], clock: Clock) -> list[Bound]:
    """The table of resident decode; what was missed."""
    copy = device_copy_rate()
    table = Table(
        "Decode with every weight on the card",
        (
            "model",
            "weights",
            "GB",
            "tok/s",
            "GB/s of weights",
            "of a device copy",
            "x float16",
            "eager tok/s",
        ),
        f"A device copy reads and writes {copy / 1e9:.0f} GB/s.",
    )
    for model in models:
        plain = 0.0
        for quant in FORMATS if model == "7b" else ("none", "int4-128"):
            if clock.late():
                table.bounds.append(Bound(f"{model} {quant} in time", 0.0, 1.0))
                continue
            if quant == "int8-mixed" and not _has_bitsandbytes():
                continue
            with engine_of(model, quant=quant) as (engine, told):
                nbytes = multiplied(engine)
                tokens, _ = decoded(engine, _TOKENS)
                second = median_of(3, lambda engine=engine: decoded(engine, _TOKENS)[1])
                eager, eager_s = eagerly(engine, _TOKENS)
            plain = plain or second
            name = "float16" if quant == "none" else quant
            rate = nbytes / second
            table.add(model, name, f"{nbytes / 1e9:.2f}", f"{1 / second:.1f}", f"{rate / 1e9:.0f}",
                 f"{rate / copy:.2f}", f"{plain / second:.2f}", f"{1 / eager_s:.1f}")  # fmt: skip
            table.bounds.append(Bound(f"{model} {name}: graph and eager agree", float(tokens == eager), 1.0))
            table.bounds.append(Bound(f"{model} {name}: no warning", float(not slower(told)), 1.0))
            if quant == "none":
                table.bounds.append(Bound(f"{model} float16 of a device copy", rate / copy, 0.85))
            elif quant in _LEAST and model == "7b":
                table.bounds.append(Bound(f"7b {name} times float16", plain / second, _LEAST[quant]))
    return table.end()


def _has_bitsandbytes() -> bool:
    """Whether it computes on this card; why not is printed, between two rows."""
    try:
        mixed_kernel(DEVICE)
    except UserError as error:
        print(f"{error}\n", flush=True)
        return False
    return True


def multiplied(engine: Engine) -> int:
    """Bytes of weights that a token is multiplied with."""
    return sum(weight.nbytes for unit in engine.placement.plan.needs.units for weight in unit.weights)


def slower(told: list[str]) -> list[str]:
    """What says that kernels of another kind computed."""
    return [text for text in told if "slower" in text]
