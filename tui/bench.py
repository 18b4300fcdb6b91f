"""`--bench`: the table of all modes on stdout as it grows, progress on stderr."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence

from core.bench.figures import Row
from core.bench.machine import describe_machine
from core.bench.modes import Mode, devices_of, modes_of
from core.bench.rows import run_rows
from core.errors import UserError
from core.options import LoadOptions
from tui.bench_table import Table, foot
from tui.console import ERASE, with_status

_BAR = 12  # characters


@with_status
def run(options: LoadOptions, command: str, *, as_json: bool) -> int:
    """Measure every mode and return the exit status: 1 where a row broke by a fault of ours.

    Raises UserError where no mode runs, and all for the same reason.
    """
    modes = modes_of(options, devices_of(options.device))
    progress, shown = _Progress(modes), _Shown(modes, command, as_json=as_json)
    try:
        for row in run_rows(modes, describe_machine(command), progress.tell):
            progress.clear()
            shown.add(row)
        shown.close()
    except KeyboardInterrupt:
        progress.clear()
        shown.close(interrupted=True)
        return 130
    finally:
        progress.clear()
    return 1 if any(row.fault for row in shown.rows) else 0


class _Progress:
    """What is going on: one line that changes for who looks, else a line a row."""

    def __init__(self, modes: Sequence[Mode]) -> None:
        self._modes, self._watched, self._told = modes, sys.stderr.isatty(), -1

    def tell(self, number: int, text: str) -> None:
        """Row `number` has come to what `text` says."""
        count = len(self._modes)
        name = self._modes[number].label(None)
        if self._watched:
            done = _BAR * number // count
            line = f"{'█' * done}{'░' * (_BAR - done)} {number + 1} of {count} · {name} · {text}"
            width = shutil.get_terminal_size().columns - 1
            print(f"{ERASE}{line[:width]}", end="", file=sys.stderr, flush=True)
        elif number != self._told or text.startswith("again"):
            print(f"{number + 1} of {count}: {name}, {text}", file=sys.stderr, flush=True)
        self._told = number

    def clear(self) -> None:
        """Take the line away."""
        print(ERASE * self._watched, end="", file=sys.stderr, flush=True)


class _Shown:
    """The rows so far. None is printed before one has run, since all may be refused for one mistake."""

    def __init__(self, modes: Sequence[Mode], command: str, *, as_json: bool) -> None:
        self.rows: list[Row] = []
        self._printed = 0
        self._table, self._command, self._as_json = Table(modes), command, as_json

    def add(self, row: Row) -> None:
        """One more row."""
        self.rows.append(row)
        if self._printed or row.measured is not None or row.fault:
            self._print()

    def close(self, *, interrupted: bool = False) -> None:
        """What is still to be said. Raises UserError where every row was refused for the same reason."""
        if not self._printed and self.rows and not interrupted:
            reasons = {row.note for row in self.rows}
            if len(reasons) == 1 and (reason := reasons.pop()) is not None:
                raise UserError(reason)
            self._print()
        if self._printed and not self._as_json:
            print("\n".join(foot(self.rows, self._command)), flush=True)

    def _print(self) -> None:
        if not self._printed and not self._as_json:
            print("\n".join(self._table.head()))
        for row in self.rows[self._printed :]:
            print(json.dumps(row.as_json()) if self._as_json else "\n".join(self._table.row(row)), flush=True)
        self._printed = len(self.rows)
