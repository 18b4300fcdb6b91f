"""The rows of the table, one process after the other. No torch, and no memory of a model's, in this one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from core.bench.figures import Measured, Row
from core.bench.job import Job
from core.bench.modes import Mode
from core.bench.usage import Usage, others_share, read_usage

MOST_CONTEXT = 1024
"""Tokens of the context where none is asked for: room for the prompt and the reply, and modest memory."""
READ_BYTES = 10**9
"""How much RAM is read for its ceiling: many times what any processor's cache holds."""

# Without the current folder, where anything may lie that is called "core".
_COMMAND = (sys.executable, "-P", "-m", "core.bench.child")
_END_SECONDS = 3.0  # a process that is asked to end may take this long
_LONGEST_LINE = 300  # characters of what a process that broke said last


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the process of a row ended: with what it measured, or why there is nothing."""

    measured: Measured | None = None
    reason: str | None = None
    fault: bool = False  # of ours; neither the user's nor the machine's


Tell = Callable[[str], None]
"""Told what is going on, in a few words."""
Run = Callable[[Job, Tell], Outcome]


def job_of(mode: Mode) -> Job:
    """What the process of a mode is asked. Weights come from the disk only where the user asked for that."""
    disk = mode.own or mode.options.ram is not None
    return Job(mode.name, mode.partly, mode.options, disk, MOST_CONTEXT, READ_BYTES)


def run_rows(
    modes: Sequence[Mode],
    machine: dict[str, Any],
    tell: Callable[[int, str], None],
    *,
    run: Run | None = None,
    usage: Callable[[], Usage] = read_usage,
) -> Iterator[Row]:
    """Each mode's row as it is finished; `tell` hears the number of the mode and what is going on.

    A row that others disturbed (see Row) is measured once more; the try that they disturbed
    less counts.
    """
    run = run or run_child
    for number, mode in enumerate(modes):

        def say(text: str, number: int = number) -> None:
            tell(number, text)

        row = _once(mode, run, say, usage, machine)
        if row.disturbed:
            say(f"again, since other processes took {row.others:.0%} of the processors")
            again = _once(mode, run, say, usage, machine)
            best = again if again.measured is None else min(row, again, key=lambda r: r.others or 0.0)
            row = replace(best, repeated=True)
        yield row


def _once(mode: Mode, run: Run, say: Tell, usage: Callable[[], Usage], machine: dict[str, Any]) -> Row:
    before = usage()
    outcome = run(job_of(mode), say)
    options, measured = mode.options, outcome.measured
    return Row(
        mode=measured.mode if measured else mode.label(None),
        device=options.device,
        dtype=None if options.dtype == "auto" else options.dtype,
        quant=options.quant,
        kv=None if options.kv == "float" else options.kv,
        measured=measured,
        others=others_share(before, usage()) if measured else None,
        note=measured.note if measured else outcome.reason,
        fault=outcome.fault,
        machine=machine,
    )


def run_child(job: Job, tell: Tell) -> Outcome:
    """Measure in a process of its own, which ends when this returns, raises or ends itself."""
    with tempfile.TemporaryFile() as errors, _child(errors) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        outcome = Outcome()
        with suppress(BrokenPipeError):  # it died at once, and why stands in `errors`
            process.stdin.write(job.as_line().encode())
            process.stdin.flush()
        for line in process.stdout:
            match json.loads(line):
                case {"stage": str(text)}:
                    tell(text)
                case {"measured": measured}:
                    outcome = Outcome(Measured.from_json(measured))
                case {"refused": str(text)}:
                    outcome = Outcome(reason=text)
        code = process.wait()
        return outcome if code == 0 else _died(code, errors)


@contextmanager
def _child(errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """The process. It is of another group, since ctrl+C is ours to act on, and ends with its stdin."""
    path = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        _COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(BrokenPipeError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(_END_SECONDS)
    except BaseException as error:  # another ctrl+C too must leave no process behind
        process.kill()
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
    finally:
        if process.stdout is not None:
            process.stdout.close()


def _died(code: int, errors: IO[bytes]) -> Outcome:
    """What is known of a process that did not say how it went."""
    if code == -signal.SIGKILL:
        return Outcome(reason="its process was killed, as systems do when memory runs out")
    errors.seek(0)
    lines = errors.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with status {code}"
    return Outcome(reason=f"its process {how}: {last[:_LONGEST_LINE]}", fault=True)
