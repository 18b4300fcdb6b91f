"""`--bench` as a user sees it: real rows of a small model, the table, and the ways it can end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.bench import rows
from core.bench.figures import Ceilings, Measured, Row
from core.bench.modes import modes_of
from core.bench.rows import Outcome, run_rows
from core.bench.usage import Usage
from core.options import LoadOptions
from tests.core.test_bench import MEASURED_ROW, script
from tui import bench, cli
from tui.bench_table import WIDTH, Table, foot

Shown = tuple[int, str, str]
Bench = Callable[..., Shown]

# Of stories260K: five layers (64 wide, 4 of 8 heads for keys and values, 172 hidden), norms, tied head.
STORIES_WEIGHTS = 5 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 172 * 64) + 512 * 64
ROW_BYTES = 64 * 4


def quiet() -> Callable[[], Usage]:
    """A machine that nobody else uses."""
    clock = count(0, 10)
    return lambda: Usage(0.0, 0.0, float(next(clock)), 2)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    """A run of the command line; on a quiet machine unless `rows` says otherwise."""
    monkeypatch.setenv("LLAMA_TUI_CACHE", str(tmp_path))
    monkeypatch.setattr(rows, "READ_BYTES", 64 * 10**6)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # threads that wait take no time from other tests

    def call(*argv: object, **given: Any) -> Shown:
        monkeypatch.setattr(bench, "run_rows", partial(run_rows, **{"usage": quiet()} | given))
        code = cli.main([*map(str, argv), "--bench"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_a_row_on_the_cpu_is_an_object(shown: Bench, stories: Path) -> None:
    argv = (stories, "--device", "cpu", "--dtype", "float32", "--kernels", "torch", "--json")
    code, out, err = shown(*argv)
    assert code == 0, err
    (line,) = out.splitlines()
    row = json.loads(line)
    assert (row["mode"], row["device"], row["simulated"]) == ("CPU float32", "cpu", False)
    assert (row["model"], row["dtype"], row["quant"]) == ("stories260K", "float32", "none")
    assert (row["context"], row["prompt_tokens"], row["decode_tokens"]) == (1024, 512, 128)
    norms = row["bytes_per_token"] - STORIES_WEIGHTS * 4 - ROW_BYTES
    assert 11 * 64 * 4 <= norms <= 11 * 256  # each where the next weight may begin
    assert row["streamed_bytes_per_token"] is None
    assert row["peak_vram_bytes"] is None
    assert row["peak_anon_bytes"] > 10**7
    assert row["prefill_tok_s"] == pytest.approx(512 / row["ttft_s"])
    rates = row["ceilings"]
    assert rates["ram_read_gb_s"] > 0.5
    assert (rates["link_gb_s"], rates["device_gb_s"], rates["disk_gb_s"]) == (None, None, None)
    assert row["limit"] == "cpu"
    assert row["ceiling_tok_s"] == pytest.approx(rates["ram_read_gb_s"] * 1e9 / row["bytes_per_token"])
    assert row["share_of_ceiling"] == pytest.approx(row["decode_tok_s"] / row["ceiling_tok_s"])
    assert (row["others_cpu_share"], row["repeated"], row["note"]) == (0, False, None)
    assert row["machine"]["command"] == f"llama-tui {' '.join(map(str, argv))} --bench"
    assert err == "1 of 1: CPU float32, starting torch\n"


def test_streamed_rows_are_called_simulated(shown: Bench, stories: Path) -> None:
    """The table of the simulated device: its first row is measured, the others copy it."""
    argv = (stories, "--device", "sim", "--sim-link", 50, "--kernels", "torch", "--context", 64)
    measured: list[Measured] = []

    def run(job: Any, tell: Any) -> Outcome:
        if not measured:
            outcome = rows.run_child(job, tell)
            assert outcome.measured is not None, outcome.reason
            measured.append(outcome.measured)
        tell("starting torch")
        if job.options.quant != "none":
            return Outcome(reason="not here")
        return Outcome(replace(measured[0], mode=job.name))

    code, out, err = shown(*argv, run=run)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split() == [
        "mode", "load", "RAM", "VRAM", "first", "prefill", "decode", "reads", "moves", "of", "ceiling",
    ]  # fmt: skip
    names = [line.split("  ")[0] for line in lines if line.startswith("simulated: ")]
    assert names[:5] == [
        "simulated: everything streamed", "simulated: feed-forward kept", "simulated: attention kept",
        "simulated: int8 streamed", "simulated: feed-forward on CPU",
    ]  # fmt: skip
    assert "not run: not here" in lines[5]
    assert "to the simulated device" in out
    assert "a prompt of 51 tokens, a reply of up to 13" in out
    assert "command: llama-tui" in out
    assert "copies at the pace of a bus that is not there" in out
    streamed = measured[0].streamed_bytes_per_token
    assert streamed is not None
    assert STORIES_WEIGHTS * 4 // 2 < streamed <= measured[0].bytes_per_token + 256 * 40
    assert measured[0].peak_vram_bytes is not None
    assert measured[0].ceilings.device_gb_s is None
    assert [line for line in lines if len(line) > WIDTH and "command" not in line] == []
    assert err.splitlines()[1] == "2 of 5: simulated: feed-forward kept, starting torch"


def test_a_mistake_is_one_line_and_no_row(shown: Bench, stories: Path) -> None:
    code, out, err = shown(stories, "--cpu", "--dtype", "float32", "--context", 99999, "--json")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "llama-tui: --context 99999: this model's limit is 4096; give at most that"


def test_rows_that_fail_for_different_reasons_are_a_table(shown: Bench, stories: Path) -> None:
    reasons = iter(["short by 1 GB", "short by 2 GB", "short by 2 GB", "short by 2 GB"])
    code, out, _ = shown(stories, "--cpu", run=lambda job, tell: Outcome(reason=next(reasons)))
    assert code == 0
    assert out.count("not run: short by") == 4
    code, out, err = shown(stories, "--cpu", run=lambda job, tell: Outcome(reason="the file is damaged"))
    assert (code, out) == (2, "")
    assert err.endswith("llama-tui: the file is damaged\n")


def test_a_fault_of_ours_is_a_row_and_status_1(shown: Bench, stories: Path) -> None:
    ends = iter([Outcome(MEASURED_ROW), *[Outcome(reason="its process failed", fault=True)] * 3])
    code, out, _ = shown(stories, "--cpu", "--json", run=lambda job, tell: next(ends))
    assert code == 1
    notes = [json.loads(line)["note"] for line in out.splitlines()]
    assert notes == [None, *["its process failed"] * 3]


def test_disturbed_rows_are_marked(shown: Bench, stories: Path) -> None:
    code, out, err = shown(
        stories, "--cpu", run=lambda job, tell: Outcome(replace(MEASURED_ROW, mode=job.name)),
        usage=script([0.3, 0.2, 0.01, 0.4, 0.0, 0.02]),
    )  # fmt: skip
    assert code == 0
    assert [line.split("  ")[0] for line in out.splitlines()[2:6]] == [
        "CPU {format}*", "CPU int8", "CPU int4", "CPU nf4",
    ]  # fmt: skip
    assert "* CPU {format}: other processes took 20% of the processors meanwhile, in a second try" in out
    assert err.count("again, since other processes took") == 2


def test_progress_is_one_line_for_who_looks(
    shown: Bench, stories: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(job: Any, tell: Callable[[str], None]) -> Outcome:
        tell("reading, 50 %")
        return Outcome(MEASURED_ROW)

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    _, _, err = shown(stories, "--cpu", run=run)
    pieces = [piece for piece in err.split("\r\x1b[K") if piece]
    assert pieces[0] == "░░░░░░░░░░░░ 1 of 4 · CPU as stored · reading, 50 %"
    assert pieces[2].startswith("██████░░░░░░ 3 of 4 · CPU int4")
    assert "\n" not in err
    assert max(map(len, pieces)) < 60


GPU: dict[str, Any] = {
    "cpu": "A Processor of Some Name 9999X 16-Core", "cores": 16, "ram_bytes": 137 * 10**9,
    "gpu": "NVIDIA GeForce RTX 4090", "vram_bytes": 25 * 10**9, "driver": "580.95.05",
    "torch": "2.13.0+cu130", "version": "0.1.0", "date": "2026-11-23", "command": "llama-tui --demo --bench",
}  # fmt: skip


def test_the_table_of_a_gpu_fits(tmp_path: Path) -> None:
    modes = modes_of(LoadOptions("m"), ("cpu", "cuda:0"))
    found: Measured = replace(
        MEASURED_ROW, load_s=1234.5, peak_anon_bytes=140 * 10**9, peak_vram_bytes=139 * 10**9,
        ttft_s=321.0, prefill_tok_s=12345.6, decode_tok_s=1234.5, bytes_per_token=138 * 10**9,
        streamed_bytes_per_token=137 * 10**9, ceilings=Ceilings(60.0, 55.5, 2000.0), limit="link",
        share_of_ceiling=1.02, note="the device does not hold all: 7.2 GB move per token",
    )  # fmt: skip
    made = [
        Row(mode.label("bfloat16", whole=False), mode.options.device, None, "none", found, 0.3, True,
            found.note, machine=GPU)
        for mode in modes
    ]  # fmt: skip
    made.append(
        Row("GPU nf4", "cuda:0", None, "nf4", note="the model does not fit: " + "x" * 150, machine=GPU)
    )
    table = Table(modes)
    lines = [*table.head(), *(line for row in made for line in table.row(row)), *foot(made, "llama-tui")]
    assert max(map(len, lines)) <= WIDTH
    assert lines[2].endswith("102 % link")
    assert len({line.rindex("link") for line in lines[2:-20] if line.endswith(" % link")}) == 1
    text = " ".join("\n".join(lines).split())
    assert "NVIDIA GeForce RTX 4090 25 GB, driver 580.95.05" in text
    assert "pinned copy to the device 55.5 GB/s · within the device's memory 2000 GB/s" in text


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_end_from_outside_leaves_no_process(number: int, stories: Path, tmp_path: Path) -> None:
    """ctrl+C is status 130; and even where we are killed, the process of the row ends."""
    program = "import sys; from tui.cli import main; sys.exit(main())"
    argv = [sys.executable, "-c", program, str(stories), "--bench", "--cpu", "--dtype", "float32"]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"LLAMA_TUI_CACHE": str(tmp_path)},
        # In the background of a shell ctrl+C is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    with process:
        assert process.stderr is not None
        assert "starting torch" in process.stderr.readline()
        left = children(process)
        assert len(left) == 1
        began = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        psutil.wait_procs(left, timeout=20)
        assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in left)
    assert time.monotonic() - began < 20
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert out == ""
    assert "Traceback" not in err
