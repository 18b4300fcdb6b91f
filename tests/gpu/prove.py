"""What a card proves: every figure of the README's table for GPUs, on models of random weights.

    python -m tests.gpu.prove [decode] [streamed] [mixed] [nf4] [poison] [tests] [7b] [13b] [--minutes 8]

Needs nothing but torch with CUDA and its Triton (and pytest for the part "tests"; bitsandbytes to be compared
with). Prints tables in Markdown; each figure is the median of three runs, and the ceilings beside it are
measured in the same process. What would begin after so many minutes is left out and counts as missed. The
status is 1 where a bound of the list at the end of a table is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date

import torch

from tests.gpu.prove_decode import decode_rows
from tests.gpu.prove_mixed import mixed_rows
from tests.gpu.prove_nf4 import nf4_rows
from tests.gpu.prove_parts import Bound, Clock
from tests.gpu.prove_poison import poison_rows
from tests.gpu.prove_streamed import streamed_rows

PARTS = ("tests", "poison", "nf4", "decode", "streamed", "mixed")
MODELS = ("7b", "13b")


def main() -> int:
    """Run the parts that are asked for, and say what was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", choices=[*PARTS, *MODELS, []], help="parts and models; else all")
    parser.add_argument("--minutes", type=float, default=8)
    given = parser.parse_args()
    words = given.words
    clock = Clock(60 * given.minutes)
    parts = [word for word in words if word in PARTS] or PARTS
    models = tuple(word for word in words if word in MODELS) or MODELS
    print(f"## {torch.cuda.get_device_name()}, {_driver()}, torch {torch.__version__}, {date.today()}\n")
    started, missed = time.perf_counter(), list[Bound]()
    ways: dict[str, Callable[[], list[Bound]]] = {
        "decode": lambda: decode_rows(models, clock),
        "streamed": lambda: streamed_rows(models, clock),
        "mixed": lambda: mixed_rows(clock),
        "nf4": nf4_rows,
        "poison": lambda: poison_rows(10_000),
        "tests": _tests,
    }
    for part in parts:
        missed += [Bound(f"{part} in time", 0.0, 1.0)] if clock.late() else ways[part]()
    print(f"{time.perf_counter() - started:.0f} s; missed: {', '.join(b.words for b in missed) or 'nothing'}")
    return 1 if missed else 0


def _tests() -> list[Bound]:
    """The tests of this folder, in a process of their own."""
    status = subprocess.run([sys.executable, "-m", "pytest", "-q", "tests/gpu"]).returncode
    return [Bound("tests/gpu green", float(status == 0), 1.0)]


def _driver() -> str:
    from core.monitor import open_gpu

    gpu = open_gpu()
    return "driver unknown" if gpu is None else f"driver {_version()}"


def _version() -> str:
    import pynvml

    version = pynvml.nvmlSystemGetDriverVersion()
    return version if isinstance(version, str) else version.decode()


if __name__ == "__main__":
    sys.exit(main())
