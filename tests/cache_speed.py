"""Decode behind a long prompt against behind a short one, with each KV cache, on the CPU.

    python -m tests.cache_speed                                the demo model
    python -m tests.cache_speed --synthetic 1b --quant int8    a shape, with random weights

Both caches and both places in turn, twelve tokens each, for 40 seconds; medians of each turn's best token.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import torch

from core import demo
from core.engine.load import Engine, load
from core.options import LoadOptions

PLACES = (10, 1490)
SECONDS = 40


def main() -> None:
    """Measure, and print the share that is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--synthetic")
    parser.add_argument("--quant", default="none")
    given = parser.parse_args()
    path = "" if given.synthetic else str(demo.locate() or demo.fetch(lambda done, total: None))
    options = LoadOptions(path, device="cpu", context=2048, synthetic=given.synthetic, quant=given.quant)
    engines = {kv: start(replace(options, kv=kv)) for kv in ("float", "int8")}
    times: dict[tuple[str, int], list[float]] = {(kv, place): [] for kv in engines for place in PLACES}
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        for kv, place in times:
            times[kv, place].append(best_token(engines[kv], place))
    for kv in engines:
        short, long = (statistics.median(times[kv, place]) for place in PLACES)
        print(f"{kv:6} {short * 1e3:.2f} ms behind 10, {long * 1e3:.2f} ms behind 1490: {short / long:.3f}")


def start(options: LoadOptions) -> Engine:
    """An engine whose cache is filled to the last place."""
    engine = load(options, lambda event: None, lambda: False)
    ids = [(7 + i * 16_411) % 31_000 for i in range(PLACES[-1])]
    with torch.inference_mode():
        for at in range(0, len(ids), 250):
            some = ids[at : at + 250]
            engine.model(torch.tensor(some), engine.cache)
            engine.cache.commit(some)
    return engine


@torch.inference_mode()
def best_token(engine: Engine, place: int) -> float:
    """Seconds of the fastest of twelve tokens from `place` on; the cache is as before afterwards."""
    before, seconds = list(engine.cache.tokens), []
    engine.cache.tokens[:] = before[:place]
    for i in range(12):
        started = time.perf_counter()
        engine.model(torch.tensor([5 + i]), engine.cache).argmax().item()
        engine.cache.commit([5 + i])
        seconds.append(time.perf_counter() - started)
    engine.cache.tokens[:] = before
    return min(seconds)


if __name__ == "__main__":
    main()
