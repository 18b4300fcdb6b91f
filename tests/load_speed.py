"""Loads a checkpoint and prints speed and memory, against a plain read of the same files.

    python -m tests.load_speed FOLDER [--dtype bfloat16] [--rounds 3] [--cold]

Each run has a process of its own. The plain read goes through the files from end to end with one buffer of
1 MiB; another one reads them into memory as new to its process as the weights' is. Files come from the page
cache where it holds them, which a first pass sees to.

A virtual machine may have to ask its host for every page that has been free for some seconds, which is
slower than a disk and no property of a loader. So each run first takes as much memory as it will need and
gives it back; `--cold` leaves that out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from core.checkpoint import find

_WARM = """
import ctypes, json, mmap, os, sys, threading, time
if json.loads(sys.argv[1]).get("fresh"):
    os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # large pages, as the weights have
import torch
import core.engine.load
from core.engine.commands import Load
from core.engine.events import Failed, Loading, Ready
from core.engine.worker import LocalBackend
from core.monitor import process_memory
from core.options import LoadOptions

def anon():
    memory = process_memory()
    return memory["RssAnon"] + memory.get("RssShmem", 0)

def warm(count):
    with mmap.mmap(-1, count, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for at in range(0, count, 4096):
            memory[at] = 1

given = json.loads(sys.argv[1])
if given["warm"]:
    warm(given["warm"])
"""

_PLAIN = """
count, homes, started = 0, [], time.perf_counter()
buffer = memoryview(bytearray(2**20))
for path in given["files"]:
    with open(path, "rb", buffering=0) as file:
        if given["fresh"]:
            homes.append(torch.empty(os.stat(path).st_size, dtype=torch.uint8))
            array = ctypes.c_ubyte * homes[-1].nbytes
            buffer, at = memoryview(array.from_address(homes[-1].data_ptr())).cast("B"), 0
            while size := file.readinto(buffer[at : at + 2**20]):
                at += size
            count += at
            continue
        while size := file.readinto(buffer):
            count += size
print(json.dumps(count / (time.perf_counter() - started)))
"""

_LOAD = """
peak, times, ended = 0, [], threading.Event()

def sink(event):
    global peak
    peak = max(peak, anon())
    if isinstance(event, Loading) and event.total_bytes:
        times.append((time.perf_counter(), event.done_bytes))
    if isinstance(event, (Ready, Failed)):
        ended.event = event
        ended.set()

before = anon()
backend = LocalBackend()
backend.start(sink)
backend.submit(Load(LoadOptions(given["folder"], device="cpu", dtype=given["dtype"], context=64)))
ended.wait()
info = ended.event.model
print(json.dumps({
    "load_s": info.load_s, "weights": info.weight_bytes, "peak": peak - before, "read": times[-1][1],
    "speed": (times[-1][1] - times[0][1]) / (times[-1][0] - times[0][0]),
}))
backend.close(2)
"""


def run(program: str, **given: object) -> object:
    """What a program in a process of its own prints."""
    argv = [sys.executable, "-c", _WARM + program, json.dumps(given)]
    return json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=("auto", "float32", "float16", "bfloat16"), default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true")
    given = parser.parse_args()
    files = [str(path) for path in find(str(given.folder)).shards]
    size = sum(Path(path).stat().st_size for path in files)
    largest = 2 * size if given.dtype == "float32" else size  # of a file in 16 bits
    warm = 0 if given.cold else int(1.1 * largest) // 4096 * 4096
    run(_PLAIN, files=files, fresh=False, warm=0)
    ratios: dict[str, list[float]] = {"one buffer": [], "new memory": []}
    for _ in range(given.rounds):
        bases = {
            "one buffer": run(_PLAIN, files=files, fresh=False, warm=0),
            "new memory": run(_PLAIN, files=files, fresh=True, warm=warm),
        }
        got = run(_LOAD, folder=str(given.folder), dtype=given.dtype, warm=warm)
        assert isinstance(got, dict)
        for name, base in bases.items():
            ratios[name].append(got["speed"] / base)
        plain = ", ".join(f"{name} {base / 1e9:.2f}" for name, base in bases.items())
        bound = 1.1 * got["weights"] + 0.5e9
        print(
            f"{got['read'] / 1e9:.2f} GB at {got['speed'] / 1e9:.2f} GB/s, in all {got['load_s']:.1f} s; "
            f"plain read: {plain} GB/s; weights {got['weights'] / 1e9:.2f} GB, "
            f"peak_anon {got['peak'] / 1e9:.2f} of {bound / 1e9:.2f} GB",
            flush=True,
        )
    for name, values in ratios.items():
        print(f"of a plain read into {name}: {statistics.median(values):.0%} (median of {given.rounds})")


if __name__ == "__main__":
    main()
