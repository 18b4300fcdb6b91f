"""Everything streamed: bytes over the bus each second against plain pinned copies, within the budget."""

from __future__ import annotations

import threading
import time

import torch

from core.monitor import open_gpu
from tests.gpu.prove_decode import multiplied
from tests.gpu.prove_parts import Bound, Clock, Table, decoded, engine_of, median_of, pinned_copy_rate

FORMATS = ("none", "int8", "int4-128", "nf4")
_LEAST = {"int8": 1.9, "int4-128": 3.5}  # times float16
_MOST_SMALL = 800_000_000  # bytes besides KV cache and the driver's context


def streamed_rows(models: tuple[str, ...], clock: Clock) -> list[Bound]:
    """The table of streamed decode; what was missed."""
    pinned = pinned_copy_rate()
    table = Table(
        "Decode with every weight streamed from pinned memory",
        ("model", "weights", "GB/token", "tok/s", "GB/s over the bus", "of a pinned copy", "x float16",
         "GB of the card besides KV and context"),
        f"Plain copies from pinned memory bring {pinned / 1e9:.1f} GB/s.",
    )  # fmt: skip
    for model in models:
        plain = 0.0
        for quant in FORMATS if model == "7b" else ("none",):
            if clock.late():
                table.bounds.append(Bound(f"{model} {quant} in time", 0.0, 1.0))
                continue
            count = 9 if quant == "none" else 17
            torch.cuda.reset_peak_memory_stats()
            with watched() as most, engine_of(model, quant=quant, offload=True) as (engine, _):
                before = engine.placement.arrived
                decoded(engine, count)
                second = median_of(3, lambda engine=engine, count=count: decoded(engine, count)[1])
                assert engine.placement.arrived - before > 3 * (count - 1) * 0.9 * multiplied(engine)
                plan, nbytes = engine.placement.plan, multiplied(engine)
                taken = torch.cuda.max_memory_reserved() - plan.needs.kv
                assert plan.vram is not None
                assert plan.budget.vram is not None
                # What others have on the card, and what the driver takes, stood there before.
                over = max(most) - most[0] - (plan.vram - plan.budget.context)
            plain = plain or second
            name = "float16" if quant == "none" else quant
            rate = nbytes / second
            table.add(model, name, f"{nbytes / 1e9:.2f}", f"{1 / second:.2f}", f"{rate / 1e9:.1f}",
                 f"{rate / pinned:.3f}", f"{plain / second:.2f}", f"{taken / 1e9:.2f}")  # fmt: skip
            table.bounds.append(Bound(f"{model} {name}: GB left of the plan, by NVML", -over / 1e9, 0.0))
            if quant == "none":
                table.bounds.append(Bound(f"{model} float16 of a pinned copy", rate / pinned, 0.92))
            elif quant in _LEAST:
                table.bounds.append(Bound(f"{model} {name} times float16", plain / second, _LEAST[quant]))
            if model == "7b" and quant == "none":
                table.bounds.append(Bound("7b float16: GB under 0.8 besides KV and context",
                                          (_MOST_SMALL - taken) / 1e9, 0.0))  # fmt: skip
    return table.end()


class watched:
    """The card's used memory by NVML, many times a second; the first figure is that before."""

    def __enter__(self) -> list[int]:
        self._gpu, self._seen, self._end = open_gpu(), list[int](), threading.Event()
        self._look()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self._seen

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            self._look()
            time.sleep(0.02)

    def _look(self) -> None:
        used = self._gpu.read()["vram_used"] if self._gpu else None
        self._seen.append(used or 0)
