"""How fast streaming is, against what the bus or the disk carries by itself, and against its prediction.

    python -m tests.stream_speed link      # a simulated bus of 2 GB/s, weights of 2.1 GB
    python -m tests.stream_speed predict   # predicted and measured, limited by link, compute and both
    python -m tests.stream_speed disk      # 4.4 GB of weights with --ram 2GB, against plain preadv
    python -m tests.stream_speed pageable  # memory that cannot be pinned, against a plain copy
    python -m tests.stream_speed modes --device cuda --synthetic 7b   # the table of the README

Each run is a process of its own. Random weights in real shapes; decode tokens per second are those of the
reply's JSON, so what users get.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

_RUN = """
import json, queue, sys, time
from core.engine.commands import Configure, Load, Submit
from core.engine.events import Done, Failed, Placed
from core.engine.worker import LocalBackend
from core.options import LoadOptions, Sampling
from core.monitor import process_memory

import torch
from core.weights.host import LimitedRegistrar
import core.engine.load, dataclasses

given = json.loads(sys.argv[1])
tokens, pinned, cold = given.pop("tokens"), given.pop("pinned"), given.pop("cold")
plain, passes = [], []
if cold:
    from core.engine.runner import Runner
    from tests.stream_speed import drop, read

    once = Runner.run

    def run(self, ids, cancelled):
        time.sleep(0.3)  # what is read ahead for this pass arrives, and is taken off below
        drop(cold)
        plain.append(read(cold, 2 * 10**9))
        drop(cold)
        started = time.perf_counter()
        result = once(self, ids, cancelled)
        passes.append(time.perf_counter() - started)
        return result

    Runner.run = run
if not pinned:
    real = core.engine.load.machine_of
    core.engine.load.machine_of = lambda o: dataclasses.replace(real(o), registrar=LimitedRegistrar(0))

def anon():
    memory = process_memory()
    return memory.get("RssAnon", 0) + memory.get("RssShmem", 0)

base = anon()
events = queue.SimpleQueue()
backend = LocalBackend()
backend.start(events.put)
backend.submit(Configure(Sampling(temperature=0, max_tokens=tokens)))
backend.submit(Load(LoadOptions("", **given)))
backend.submit(Submit(0, "5 77 250 3 9 1200 17"))
while not isinstance(event := events.get(), (Done, Failed)):
    if isinstance(event, Placed):
        plan = event.plan
if isinstance(event, Failed):
    sys.exit(event.text)
stats = event.reply.stats
print(json.dumps({
    "tok_s": stats.decode_tok_s, "predicted": plan.predicted_tok_s, "limit": plan.limit,
    "planned": plan.streamed_per_token, "counted": stats.streamed_bytes_per_token,
    "vram": plan.vram, "peak_vram": stats.peak_vram_bytes,
    "anon": stats.peak_anon_bytes - base, "link": plan.rates.link.gb_s, "weights": plan.needs.weights,
    "load_s": stats.load_s, "prefill": stats.prefill_tok_s, "plain": plain[1:], "passes": passes[1:],
    "slots": plan.slots, "disk": sum(
        w.nbytes for u in plan.needs.units for w in u.weights
        if plan.places["output" if u.name.startswith("output.") else w.name] == "disk"),
}))
backend.close(5)
"""


def run(tokens: int = 12, *, pinned: bool = True, cold: str = "", **options: Any) -> dict[str, Any]:
    """One load and one reply. Before every pass the file `cold` is read, and the system forgets its pages."""
    given = {"synthetic": "1b", "context": 512, "device": "sim", "tokens": tokens, "pinned": pinned}
    given |= {"cold": cold} | options
    argv = [sys.executable, "-c", _RUN, json.dumps(given)]
    child = subprocess.run(argv, capture_output=True, text=True, check=False)
    if child.returncode:
        sys.exit(child.stderr)
    got = json.loads(child.stdout)
    assert isinstance(got, dict)
    return got


def link(rounds: int) -> None:
    """Steady decode against the rate of the bus over the bytes of a token."""
    for _ in range(rounds):
        got = run(offload=True, sim_link=2.0)
        share = got["tok_s"] / (2e9 / got["planned"])
        counted = "as many counted" if got["planned"] == got["counted"] else f"{got['counted']} COUNTED"
        memory = f"card used {got['peak_vram'] / 1e6:.0f} of {got['vram'] / 1e6:.0f} MB"
        say(
            f"{got['planned']} bytes per token, {counted}; "
            f"{got['tok_s']:.3f} tok/s, {share:.1%} of the link; {memory}"
        )


def predict(rounds: int) -> None:
    """Predicted and measured speed, each in the same process."""
    cases: dict[str, dict[str, Any]] = {
        "link (2 GB/s)": {"offload": True, "sim_link": 2.0},
        "link (2 GB/s), attention kept": {"keep": ["attention"], "sim_link": 2.0},
        "compute (50 GB/s)": {"sim_link": 50.0},
        "compute (50 GB/s), feed-forward kept": {"keep": ["feed_forward"], "sim_link": 50.0},
        "mixed (2 GB/s, feed-forward on the CPU)": {
            "offload": True,
            "cpu_layers": ["feed_forward"],
            "sim_link": 2.0,
        },
    }
    for name, case in cases.items():
        runs = [run(**case) for _ in range(rounds)]
        ratios = [got["tok_s"] / got["predicted"] for got in runs]
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        say(
            f"{name}: measured / predicted {statistics.median(ratios):.2f} ({each}); "
            f"{runs[0]['tok_s']:.2f} tok/s, limit {runs[0]['limit']}"
        )


def disk(rounds: int) -> None:
    """Decode from disk and plain preadv in turn, pass by pass, the page cache dropped before each.

    In turn, since a virtual disk slows down under load. What was read ahead for a pass does not count.
    """
    from core.weights.packed_files import listing

    for device in ("cpu", "sim"):
        case = {"dtype": "float32", "device": device, "ram": 2 * 10**9, "context": 256}
        case |= {"sim_link": 50.0, "sim_vram": 10**9} if device == "sim" else {}
        run(2, **case)  # packs, the first time
        path, _ = max(listing(), key=lambda entry: entry[1])
        for _ in range(rounds):
            got = run(9, cold=str(path), **case)
            rates = [(got["disk"] - got["slots"]) / seconds for seconds in got["passes"]]
            ratio = statistics.median(one / other for one, other in zip(rates, got["plain"], strict=True))
            say(
                f"{device}: {got['disk'] / 1e9:.2f} of {got['weights'] / 1e9:.2f} GB from disk per token at "
                f"{statistics.median(rates) / 1e9:.2f} GB/s; preadv "
                f"{statistics.median(got['plain']) / 1e9:.2f} GB/s; {ratio:.0%}; "
                f"peak_anon {got['anon'] / 1e9:.2f} of 2.00 GB"
            )


def drop(path: Any) -> None:
    """Have the system forget a file's pages."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(path: Any, nbytes: int) -> float:
    """Bytes per second of preadv into one buffer of 1 MiB."""
    buffer, done, started = bytearray(2**20), 0, time.perf_counter()
    with open(path, "rb", buffering=0) as file:
        while done < nbytes:
            done += os.preadv(file.fileno(), [buffer], done)
    return done / (time.perf_counter() - started)


def pageable(rounds: int) -> None:
    """What streams through staging buffers, against a plain copy of as many bytes by the same machine."""
    import ctypes

    one, two = bytearray(512 * 10**6), bytearray(512 * 10**6)
    to, source = ((ctypes.c_char * len(b)).from_buffer(b) for b in (one, two))
    for _ in range(rounds):
        got = {
            kind: run(offload=True, sim_link=100.0, pinned=kind == "pinned")
            for kind in ("pinned", "pageable")
        }
        started = time.perf_counter()
        for at in range(0, len(one), 2**20):
            ctypes.memmove(
                ctypes.addressof(to) + at, ctypes.addressof(source) + at, min(2**20, len(one) - at)
            )
        plain = len(one) / (time.perf_counter() - started)
        rates = {kind: g["tok_s"] * g["planned"] / 1e9 for kind, g in got.items()}
        say(
            f"pageable {rates['pageable']:.2f} GB/s, pinned {rates['pinned']:.2f} GB/s, "
            f"plain copy {plain / 1e9:.2f} GB/s"
        )


def modes(device: str, shape: str, rounds: int) -> None:
    """The modes of placement in one run, against the copies of pinned memory measured in the same process."""
    cases: dict[str, dict[str, Any]] = {
        "all on the GPU": {},
        "everything streamed": {"offload": True},
        "feed-forward kept": {"keep": ["feed_forward"]},
        "attention kept": {"keep": ["attention"]},
    }
    say("| mode | tok/s | GB per token | of the memcpy rate | VRAM GB | bytes as planned |")
    say("|---|---|---|---|---|---|")
    for name, case in cases.items():
        runs = [run(48, device=device, synthetic=shape, context=2048, **case) for _ in range(rounds)]
        got = sorted(runs, key=lambda g: g["tok_s"])[len(runs) // 2]
        moved, rate = got["planned"] / 1e9, got["link"]
        share = f"{got['tok_s'] * moved / rate:.0%} of {rate:.1f} GB/s" if moved > 0.001 else "-"
        exact = "yes" if got["planned"] == got["counted"] else "NO"
        say(f"| {name} | {got['tok_s']:.2f} | {moved:.2f} | {share} | {got['vram'] / 1e9:.1f} | {exact} |")


def say(line: str) -> None:
    """One line at once, since the next may take minutes."""
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("link", "predict", "disk", "pageable", "modes"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="sim")
    parser.add_argument("--synthetic", default="1b")
    given = parser.parse_args()
    if given.what == "modes":
        modes(given.device, given.synthetic, given.rounds)
    else:
        {"link": link, "predict": predict, "disk": disk, "pageable": pageable}[given.what](given.rounds)


if __name__ == "__main__":
    main()
