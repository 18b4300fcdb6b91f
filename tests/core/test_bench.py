"""The bench without a model: which rows there are, what they say, and how their processes end."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from core.bench import modes, rows
from core.bench.figures import Ceilings, Measured, Row, TokenBytes, ceiling, token_bytes
from core.bench.job import Job
from core.bench.machine import describe_machine
from core.bench.modes import devices_of, modes_of
from core.bench.rows import Outcome, job_of, run_child, run_rows
from core.bench.usage import Usage, others_share, read_usage
from core.options import LoadOptions
from core.weights.placement import plan
from core.weights.plan import Choice, Place
from tests.core.plans import CUDA, MEASURED, SIM, STAGING, cpu, cuda, sim, tiny, up

PLAIN = LoadOptions("model")
MEASURED_ROW = Measured(
    mode="CPU float16", model="m", dtype="float16", quant="none", kv="float16", context=1024, load_s=1.0,
    peak_anon_bytes=10**9, peak_vram_bytes=None, prompt_tokens=512, ttft_s=2.0, prefill_tok_s=256.0,
    decode_tokens=128, decode_tok_s=40.0, bytes_per_token=270_000_000, streamed_bytes_per_token=None,
    ceilings=Ceilings(20.0), ceiling_tok_s=74.0, limit="cpu", share_of_ceiling=0.54, kernels=None, note=None,
)  # fmt: skip


# --- which rows ---------------------------------------------------------------------------------

CPU_ROWS = ["CPU as stored", "CPU int8", "CPU int4", "CPU nf4"]
STREAMED = [
    "everything streamed", "feed-forward kept", "attention kept", "int8 streamed", "feed-forward on CPU",
]  # fmt: skip
GPU_ROWS = ["GPU as stored, resident", "GPU int8", "GPU int4", "GPU nf4", *(f"GPU {s}" for s in STREAMED)]


@pytest.mark.parametrize(
    ("options", "devices", "names"),
    [
        (PLAIN, ("cpu",), CPU_ROWS),
        (PLAIN, ("cpu", "cuda:0"), CPU_ROWS + GPU_ROWS),
        (replace(PLAIN, device="cuda"), ("cuda:0",), GPU_ROWS),
        (replace(PLAIN, device="sim"), ("sim",), [f"simulated: {name}" for name in STREAMED]),
        (replace(PLAIN, dtype="bfloat16"), ("cpu",), ["CPU bfloat16"]),
        (replace(PLAIN, quant="nf4"), ("cpu", "cuda:1"), ["GPU nf4"]),
        (replace(PLAIN, quant="int8-mixed"), ("cpu",), ["CPU int8-mixed"]),
        (replace(PLAIN, quant="int8", offload=True), ("sim",), ["simulated: int8, streamed"]),
        (
            replace(PLAIN, offload=True, keep=("w1", "w2"), cpu_layers=("output",)),
            ("sim",),
            ["simulated: as stored, w1,w2 kept, output on CPU"],
        ),
    ],
)
def test_the_rows_of_a_machine(options: LoadOptions, devices: tuple[str, ...], names: list[str]) -> None:
    assert [mode.label(None) for mode in modes_of(options, devices)] == names


def test_what_the_rows_load() -> None:
    given = LoadOptions("", synthetic="1b", vram=6 * 10**9, ram=9 * 10**9, context=256)
    found = {mode.name: mode.options for mode in modes_of(given, ("cpu", "cuda:0"))}
    assert found["CPU int4"] == replace(given, device="cpu", quant="int4", vram=None)
    gpu = replace(given, device="cuda:0")
    assert found["GPU {format}, resident"] == gpu
    assert found["GPU nf4"] == replace(gpu, quant="nf4")
    assert found["GPU everything streamed"] == replace(gpu, offload=True)
    assert found["GPU attention kept"] == replace(gpu, offload=True, keep=("attention",))
    assert found["GPU int8 streamed"] == replace(gpu, offload=True, quant="int8")
    assert found["GPU feed-forward on CPU"] == replace(gpu, cpu_layers=("feed_forward",))


def test_a_name_tells_what_was_found() -> None:
    resident = modes_of(PLAIN, ("cpu", "cuda:0"))[4]
    assert resident.label("bfloat16") == "GPU bfloat16, resident"
    assert resident.label("q8_0", whole=False) == "GPU q8_0, best placement"
    assert modes_of(PLAIN, ("cpu",))[0].label("float16", whole=False) == "CPU float16"


@pytest.mark.parametrize(
    ("device", "best", "expected"),
    [
        ("auto", "cpu", ("cpu",)),
        ("auto", "cuda:0", ("cpu", "cuda:0")),
        ("sim", "cuda:0", ("sim",)),
        ("cpu", "cuda:0", ("cpu",)),
        ("cuda:1", "cuda:0", ("cuda:1",)),
    ],
)
def test_the_devices(
    device: str, best: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modes, "device_of", lambda name: best if name == "auto" else name)
    assert devices_of(device) == expected


def test_only_who_asks_for_it_reads_from_the_disk() -> None:
    plain, *_ = modes_of(PLAIN, ("cpu",))
    assert not job_of(plain).disk
    assert job_of(modes_of(replace(PLAIN, ram=10**9), ("cpu",))[0]).disk
    assert job_of(modes_of(replace(PLAIN, dtype="float32"), ("cpu",))[0]).disk


# --- ceilings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_bytes_of_a_token_on_the_cpu(tied: bool) -> None:
    needs = tiny(3, tied=tied)
    found = token_bytes(plan(needs, cpu(10**9), Choice(), SIM))
    layer = (512 * 512 + 2 * 256 * 512 + 512 * 512 + 3 * 1408 * 512) * 2
    norms = (2 * 3 + 1) * 512 * 2
    assert found == TokenBytes(0, 3 * layer + 4000 * 512 * 2 + norms + 512 * 2, 0, 0)


def test_bytes_of_a_token_that_streams() -> None:
    needs = tiny(4)
    all_of = token_bytes(plan(needs, cpu(10**9), Choice(), SIM)).read
    streamed = plan(needs, sim(10**9), Choice(offload=True), SIM)
    assert token_bytes(streamed) == TokenBytes(all_of, 0, streamed.streamed_per_token, 0)
    resident = token_bytes(plan(needs, cuda(2e9), Choice(), CUDA))
    assert resident == TokenBytes(all_of, 0, 0, 0)
    mixed = token_bytes(plan(needs, cuda(2e9), Choice(cpu=("feed_forward",)), MEASURED))
    on_cpu = 4 * 3 * 1408 * 512 * 2
    assert mixed == TokenBytes(all_of - on_cpu, on_cpu, 0, 0)


def test_bytes_of_a_token_from_the_disk() -> None:
    needs = tiny(24)
    made = plan(needs, cpu(STAGING + 20e6), Choice(), SIM)
    assert made.disk > 0
    moving = {unit for ring in made.rings if len(ring.units) > 1 for unit in ring.units}
    disk = sum(
        up(weight.nbytes)
        for unit in needs.units
        if unit.name in moving
        for weight in unit.weights
        if made.places["output" if unit.name.startswith("output") else weight.name] is Place.DISK
    )
    found = token_bytes(made)
    assert (found.link, found.disk) == (0, disk)
    assert 0 < disk < found.cpu


RATES = Ceilings(ram_read_gb_s=20.0, link_gb_s=10.0, device_gb_s=400.0, disk_gb_s=2.0)
GB = 10**9


@pytest.mark.parametrize(
    ("needed", "rates", "simulated", "tok_s", "limit"),
    [
        (TokenBytes(0, 5 * GB, 0, 0), RATES, False, 4.0, "cpu"),
        (TokenBytes(8 * GB, 0, 0, 0), RATES, False, 50.0, "gpu"),
        (TokenBytes(8 * GB, 0, 0, 0), RATES, True, 2.5, "gpu"),  # a simulated device reads RAM
        (TokenBytes(8 * GB, 0, 5 * GB, 0), RATES, False, 2.0, "link"),
        (TokenBytes(8 * GB, 0, 5 * GB, 2 * GB), RATES, False, 1.0, "disk"),
        (TokenBytes(8 * GB, GB, 0, 0), RATES, False, 1 / 0.07, "cpu"),  # taking turns: 20 and 50 ms
        (TokenBytes(40 * GB, GB, 0, 0), RATES, False, 1 / 0.15, "gpu"),
        (TokenBytes(0, 5 * GB, 0, 0), Ceilings(), False, None, None),
        (TokenBytes(8 * GB, 0, 1, 0), replace(RATES, link_gb_s=None), False, None, None),
        (TokenBytes(8 * GB, 0, 0, 0), replace(RATES, link_gb_s=None), False, 50.0, "gpu"),
    ],
)
def test_the_ceiling_is_that_of_what_takes_longest(
    needed: TokenBytes, rates: Ceilings, simulated: bool, tok_s: float | None, limit: str | None
) -> None:
    found, by = ceiling(needed, rates, simulated=simulated)
    assert by == limit
    assert (found is None) if tok_s is None else (found is not None and math.isclose(found, tok_s))


# --- others -------------------------------------------------------------------------------------


def test_the_share_of_others() -> None:
    before = Usage(100.0, 10.0, 1000.0, 4)
    assert others_share(before, Usage(132.0, 40.0, 1010.0, 4)) == pytest.approx(0.05)
    assert others_share(before, Usage(139.0, 50.0, 1010.0, 4)) == 0  # the machine counts in ticks
    assert others_share(before, Usage(None, 50.0, 1010.0, 4)) is None
    assert others_share(before, Usage(100.0, 50.0, 1010.0, 4)) is None  # a machine that shows nothing


@pytest.mark.alone
def test_a_reading_counts_a_process_that_has_ended() -> None:
    before = read_usage()
    work = "import time; t = time.process_time()\nwhile time.process_time() < t + 0.3: pass"
    subprocess.run([sys.executable, "-c", work], check=True)
    after = read_usage()
    assert after.ours - before.ours >= 0.29  # both are whole ticks of a hundredth
    assert after.busy is not None
    assert before.busy is not None
    assert after.busy - before.busy >= 0.2
    share = others_share(before, after)
    assert share is not None
    assert 0 <= share < 1


def script(shares: list[float]) -> Callable[[], Usage]:
    """Readings of a machine with 2 processors in which others take such shares of one row after another."""

    def readings() -> Iterator[Usage]:
        busy = wall = 0.0
        for share in shares:
            yield Usage(busy, 0.0, wall, 2)
            busy, wall = busy + share * 20.0, wall + 10.0
            yield Usage(busy, 0.0, wall, 2)

    return readings().__next__


def speeds(*values: float | str) -> Callable[[Job, Callable[[str], None]], Outcome]:
    """Processes that decode at such speeds, one after another, or are refused."""
    found = iter(values)

    def run(job: Job, tell: Callable[[str], None]) -> Outcome:
        tell("reading")
        value = next(found)
        if isinstance(value, str):
            return Outcome(reason=value)
        return Outcome(replace(MEASURED_ROW, mode=job.name, decode_tok_s=value))

    return run


@pytest.mark.parametrize(
    ("shares", "values", "speed", "repeated", "disturbed"),
    [
        ([0.01], [40.0], 40.0, False, False),
        ([0.05], [40.0], 40.0, False, False),
        ([0.30, 0.02], [10.0, 40.0], 40.0, True, False),
        ([0.30, 0.20], [10.0, 20.0], 20.0, True, True),
        ([0.20, 0.30], [20.0, 10.0], 20.0, True, True),
        ([0.90], ["does not fit"], None, False, False),
    ],
)
def test_a_disturbed_row_is_repeated_and_then_marked(
    shares: list[float], values: list[float | str], speed: float | None, repeated: bool, disturbed: bool
) -> None:
    one = modes_of(replace(PLAIN, dtype="float16"), ("cpu",))
    told: list[str] = []
    found = list(
        run_rows(one, {}, lambda _, text: told.append(text), run=speeds(*values), usage=script(shares))
    )
    assert len(found) == 1
    row = found[0]
    assert (row.repeated, row.disturbed) == (repeated, disturbed)
    assert (row.measured and row.measured.decode_tok_s) == speed
    assert any(text.startswith("again, since other processes took") for text in told) is repeated
    share = row.as_json()["others_cpu_share"]
    assert share is None if speed is None else share == pytest.approx(min(shares))


def test_rows_come_one_by_one_and_a_refusal_is_a_row() -> None:
    found = run_rows(
        modes_of(PLAIN, ("cpu",)), {"cores": 2}, lambda *_: None,
        run=speeds(40.0, "does not fit", 80.0), usage=script([0.0] * 4),
    )  # fmt: skip
    assert next(found).measured is not None
    refused = next(found)
    assert (refused.mode, refused.note, refused.fault) == ("CPU int8", "does not fit", False)
    assert next(found).mode == "CPU int4"


def test_the_json_of_a_row_has_every_key_and_no_zero_for_nothing() -> None:
    whole = Row("CPU float16", "cpu", None, "none", MEASURED_ROW, 0.01, machine={"cores": 2}).as_json()
    assert list(whole) == [
        "mode", "device", "simulated", "model", "dtype", "quant", "kv", "context", "load_s",
        "peak_anon_bytes", "peak_vram_bytes", "prompt_tokens", "ttft_s", "prefill_tok_s", "decode_tokens",
        "decode_tok_s",
        "bytes_per_token", "streamed_bytes_per_token", "ceilings", "ceiling_tok_s", "limit",
        "share_of_ceiling", "kernels", "note", "others_cpu_share", "repeated", "machine",
    ]  # fmt: skip
    assert whole["dtype"] == "float16"
    assert whole["ceilings"] == {
        "ram_read_gb_s": 20.0, "link_gb_s": None, "device_gb_s": None, "disk_gb_s": None,
    }  # fmt: skip
    empty = Row("simulated: x", "sim", None, "int8", note="does not fit").as_json()
    assert list(empty) == list(whole)
    assert (empty["mode"], empty["simulated"], empty["quant"]) == ("simulated: x", True, "int8")
    known = ("mode", "device", "simulated", "quant", "ceilings", "note", "repeated", "machine")
    assert all(empty[key] is None for key in empty if key not in known)
    assert set(empty["ceilings"].values()) == {None}
    json.dumps(whole)


def test_what_is_said_of_the_machine() -> None:
    found = describe_machine("llama-tui --demo --bench")
    assert list(found) == [
        "cpu", "cores", "ram_bytes", "gpu", "vram_bytes", "driver", "torch", "version", "date", "command",
    ]  # fmt: skip
    assert found["cores"] >= 1
    assert found["ram_bytes"] > 10**8
    assert found["command"] == "llama-tui --demo --bench"


# --- processes ----------------------------------------------------------------------------------

JOB = Job(
    "x", None, LoadOptions("a model", keep=("w1", "w2"), cpu_layers=("output",)), False, 1024, 64 * 10**6
)


def child(monkeypatch: pytest.MonkeyPatch, program: str) -> list[subprocess.Popen[bytes]]:
    """Has `program` stand for the process of a row; those that were started."""
    started: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(rows, "_COMMAND", (sys.executable, "-c", program))
    monkeypatch.setattr(rows.subprocess, "Popen", Popen)
    return started


def test_a_job_crosses_as_a_line() -> None:
    assert JOB.as_line().count("\n") == 1
    assert Job.from_line(JOB.as_line()) == JOB


def test_what_a_process_says_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    line = json.dumps({"measured": asdict(MEASURED_ROW)})
    program = (
        "import sys, json; job = json.loads(sys.stdin.readline())\n"
        "print(json.dumps({'stage': job['options']['checkpoint']}), flush=True)\n"
        f"print({line!r})"
    )
    child(monkeypatch, program)
    told: list[str] = []
    assert run_child(JOB, told.append) == Outcome(MEASURED_ROW)
    assert told == ["a model"]
    child(monkeypatch, 'print(\'{"refused": "no room"}\')')
    assert run_child(JOB, told.append) == Outcome(reason="no room")


@pytest.mark.parametrize(
    ("program", "said", "fault"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "killed, as systems do when memory",
            False,
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGABRT)", "was ended by SIGABRT", True),
        ("raise ValueError('odd')", "failed with status 1: ValueError: odd", True),
        ("import sys; sys.exit(3)", "failed with status 3: it said nothing", True),
    ],
)
def test_a_process_that_dies_is_a_row_that_says_so(
    program: str, said: str, fault: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    child(monkeypatch, program)
    one = modes_of(replace(PLAIN, quant="int8"), ("cpu",))
    (row,) = run_rows(one, {}, lambda *_: None)
    assert row.measured is None
    assert row.note is not None
    assert said in row.note
    assert row.fault is fault


@pytest.mark.parametrize("stubborn", [False, True])
def test_no_process_is_left_behind(stubborn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_END_SECONDS", 0.3 if stubborn else 20.0)
    wait = "time.sleep(60)" if stubborn else "sys.stdin.read()"
    started = child(monkeypatch, f'import sys, time; print(\'{{"stage": "here"}}\', flush=True); {wait}')

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_child(JOB, interrupt)
    assert time.monotonic() - began < 15
    assert len(started) == 1
    assert started[0].returncode == (-signal.SIGKILL if stubborn else 0)
