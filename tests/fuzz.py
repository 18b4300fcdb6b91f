"""Mutated checkpoints of every kind: each must end in one line for the user, or in a load that works.

    python -m tests.fuzz [--cases 2000] [--seed 0] [--kind gguf]

Cases run in child processes that have half a gigabyte more memory than they start with and five seconds
a case. A crash, a hang, memory beyond that, or an error that is no UserError is printed with its number:
`--kind KIND --only NUMBER` runs it alone, in this process, with its traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import select
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz_originals import ORIGINALS, write_originals

SECONDS = 5.0
STARTING_SECONDS = 60.0
MEMORY = 500 * 2**20
HEAD = 4096  # where a change matters most: the first and the last bytes of a file


@dataclass(frozen=True)
class Failure:
    kind: str
    number: int
    what: str


# --- mutations ----------------------------------------------------------------------------------

EXTREMES = (0, 1, 2**7, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**48, 2**63 - 1, 2**63, 2**64 - 1)
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
JSON_VALUES = (
    None, True, 0, -1, 1, 3, 2**31, 2**63, 1e308, float("nan"), "", "x", "9" * 5000, [], [[]], [2, "a"], {},
    {"a": {}}, "../../etc/passwd", LOOP,
)  # fmt: skip


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to four changes at random places, most of them near either end."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = place(len(out), chance)
        length = chance.choice((1, 1, 2, 4, 8, 64, 1000))
        match chance.randrange(8):
            case 0:
                out[at : at + length] = chance.randbytes(length)
            case 1:
                if out:
                    out[min(at, len(out) - 1)] ^= 1 << chance.randrange(8)
            case 2:
                out[at : at + 8] = struct.pack("<Q", chance.choice(EXTREMES))
            case 3:
                out[at : at + 4] = struct.pack("<I", chance.choice(EXTREMES) % 2**32)
            case 4:
                del out[at:]
            case 5:
                del out[at : at + length]
            case 6:
                out[at:at] = out[at : at + length]
            case 7:
                source = place(len(out), chance)
                out[at : at + length] = out[source : source + length]
    return bytes(out)


def place(size: int, chance: random.Random) -> int:
    where = chance.random()
    if where < 0.5:
        return chance.randrange(min(size, HEAD) + 1)
    if where < 0.7:
        return max(0, size - chance.randrange(HEAD + 1))
    return chance.randrange(size + 1)


def mutate_json(data: bytes, chance: random.Random) -> bytes:
    """One value somewhere in the tree becomes another, or goes."""
    table = json.loads(data)
    node = table
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not keys:
            break
        key = chance.choice(keys)
        if isinstance(node[key], (dict, list)) and node[key] and chance.random() < 0.7:
            node = node[key]
            continue
        if chance.random() < 0.2:
            del node[key]
        else:
            node[key] = chance.choice(JSON_VALUES)
        break
    return json.dumps(table).encode()


def damage(folder: Path, chance: random.Random) -> str:
    """Change one file of a checkpoint; says which."""
    path = chance.choice(sorted(folder.iterdir()))
    data = path.read_bytes()
    by_value = path.suffix == ".json" and chance.random() < 0.7
    path.write_bytes(mutate_json(data, chance) if by_value else mutate(data, chance))
    return path.name


# --- one case -----------------------------------------------------------------------------------


def run_case(originals: Path, kind: str, number: int, seed: int, scratch: Path) -> str:
    """ "loaded", "refused", or what went wrong."""
    from core.engine.load import load
    from core.errors import UserError
    from core.options import LoadOptions
    from core.text.dialogue import Turn

    chance = random.Random(f"{seed} {kind} {number}")
    folder = scratch / kind
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(originals / kind, folder)
    damage(folder, chance)
    try:
        engine = load(LoadOptions(str(folder), device="cpu"), lambda event: None, lambda: False)
        ids = engine.tokenizer.encode("Hello <|im_end|></s> wörld 😀\n\n 12")
        b"".join(engine.tokenizer.token_bytes(i) for i in [*ids, *range(engine.tokenizer.vocab_size)])
        assert engine.format is not None
        engine.format.encode([Turn("hi", tuple(ids[:3])), Turn("you")], None)
    except UserError as error:
        text = str(error)
        if "\n" in text or len(text) > 1000 or not text.isprintable():
            return f"an error of more than one line: {text[:200]!r}"
        return "refused"
    return "loaded"


def child(originals: Path, kind: str, seed: int, first: int, last: int) -> None:
    """Run cases and report each on stdout, before and after."""
    import core.engine.load  # noqa: F401, imports do not count as a case's memory

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(first, last):
            print(json.dumps([number, "started"]), flush=True)
            try:
                result = run_case(originals, kind, number, seed, Path(scratch))
            except BaseException as error:
                result = f"{type(error).__name__}: {str(error)[:300]}"
            print(json.dumps([number, result]), flush=True)


def run(originals: Path, kind: str, cases: int, seed: int) -> tuple[Counter[str], list[Failure]]:
    """All cases of a kind; a child that dies or hangs is replaced by another from the next case on."""
    counts: Counter[str] = Counter()
    failures = []
    first = 0
    while first < cases:
        number = first
        for number, result in reports(originals, kind, seed, first, cases):
            if result in ("loaded", "refused"):
                counts[result] += 1
            elif result != "started":
                failures.append(Failure(kind, number, result))
        first = number + 1
    return counts, failures


def reports(originals: Path, kind: str, seed: int, first: int, last: int) -> Iterator[tuple[int, str]]:
    """What a child says, and its end if that is no good one."""
    arguments = [str(originals), kind, str(seed), str(first), str(last)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz", "--child", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    output, number, result = process.stdout.fileno(), first, ""
    rest = b""
    try:
        while True:
            if not select.select([output], [], [], SECONDS if result else STARTING_SECONDS)[0]:
                yield number, f"no end within {SECONDS} s"
                return
            data = os.read(output, 65536)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                number, result = json.loads(line)
                yield number, result
        if process.wait() != 0 or result == "started":
            yield number, f"the process ended with {process.returncode}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=ORIGINALS)
    parser.add_argument("--only", type=int)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        originals, kind, *numbers = given.child
        seed, first, last = map(int, numbers)
        child(Path(originals), kind, seed, first, last)
        return 0
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        write_originals(Path(name))
        for kind in [given.kind] if given.kind else ORIGINALS:
            if given.only is not None:
                print(run_case(Path(name), kind, given.only, given.seed, Path(name) / "scratch"))
                continue
            counts, failures = run(Path(name), kind, given.cases, given.seed)
            print(f"{kind}: {given.cases} cases, {dict(counts)}, {len(failures)} failures", flush=True)
            for failure in failures:
                print(f"  {failure.kind} {failure.number}: {failure.what}", flush=True)
            bad += len(failures)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
