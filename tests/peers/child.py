"""The parent's side of an engine's process: start it, ask it, see what others take of the CPU meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from tests.peers.protocol import Missing

_ROOT = Path(__file__).parents[2]
_OURS_TO_SET = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


class ChildFailed(Exception):
    """An engine's process ended; the text has the end of what it printed."""


@dataclass(frozen=True, slots=True)
class Timing:
    """`tokens` in `seconds`; `others` is the share of all CPUs that other processes took, 0 to 1."""

    tokens: int
    seconds: float
    others: float

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


class Child:
    """An engine in a process of its own. A context manager: the process ends with it.

    `module` is one of `tests.peers`, run by the interpreter `python`. Raises Missing where the engine cannot
    be had, and ChildFailed, here or later, where it breaks.
    """

    def __init__(self, python: str, module: str, given: dict[str, Any]) -> None:
        self._log = tempfile.TemporaryFile(mode="w+", errors="replace")  # noqa: SIM115
        # Threads are set by each engine: what the caller's environment says is not for them.
        environment = {key: value for key, value in os.environ.items() if key not in _OURS_TO_SET}
        try:
            self._process = subprocess.Popen(
                [python, "-m", f"tests.peers.{module}", json.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                cwd=_ROOT,
                env=environment | {"HF_HUB_OFFLINE": "1"},
                text=True,
                bufsize=1,
            )
        except OSError as error:
            self._log.close()
            raise Missing(f"{python}: {error.strerror}") from None
        self._system = psutil.Process(self._process.pid)
        try:
            first = self._reply()
            if "missing" in first:
                raise Missing(first["missing"])
        except BaseException:
            self.close()
            raise
        self.about: dict[str, str] = first["ready"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is not None:  # it may compute for minutes yet
            self._process.kill()
        self.close()

    def close(self) -> None:
        """End the process, which has a moment to end by itself."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()

    def ask(self, request: dict[str, int]) -> dict[str, Any]:
        """What the engine replies."""
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
        except OSError:
            raise self._failed() from None
        return self._reply()

    def measure(self, request: dict[str, int]) -> Timing:
        """The engine's own clock for a request; its first number is the count of tokens."""
        ours, busy, total = self.cpu_seconds(), *_machine_seconds()
        seconds = self.ask(request)["seconds"]
        ours, (busy_now, total_now) = self.cpu_seconds() - ours, _machine_seconds()
        others = (busy_now - busy - ours) / max(total_now - total, 1e-9)
        return Timing(next(iter(request.values())), seconds, max(0.0, others))

    def cpu_seconds(self) -> float:
        """What the process has taken of CPUs since it began."""
        times = self._system.cpu_times()
        return times.user + times.system

    def _reply(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise self._failed()
        return json.loads(line)

    def _failed(self) -> ChildFailed:
        code = self._process.wait()
        self._log.seek(0)
        tail = "".join(self._log.readlines()[-12:])
        return ChildFailed(f"{self._process.args[2]} ended with {code}:\n{tail}")


def idle_shares(children: Sequence[Child], seconds: float = 1.0) -> list[float]:
    """How much of one CPU each process takes while none is asked anything: 0 unless its threads spin."""
    before, started = [child.cpu_seconds() for child in children], time.perf_counter()
    time.sleep(seconds)
    took = time.perf_counter() - started
    return [(child.cpu_seconds() - was) / took for child, was in zip(children, before, strict=True)]


def _machine_seconds() -> tuple[float, float]:
    """Busy and all seconds of all CPUs; what the host took from a virtual machine counts as busy."""
    times = psutil.cpu_times()._asdict()
    # The kernel counts what guests take as the user's too.
    total = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
    return total - times["idle"] - times.get("iowait", 0.0), total
