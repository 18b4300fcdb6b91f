"""The process of one row: loads a model as any mode does, runs a prompt and a reply, and says how fast.

    python -m core.bench.child

The first line of stdin is a Job in JSON; its end ends this process. Each line of stdout is one object:
{"stage": text} on the way, and at the end {"measured": {...}} or, for what the user asked for in vain,
{"refused": text}. Anything else that goes wrong is a traceback on stderr and status 1.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TextIO

from core.bench.job import Job
from core.errors import Cancelled, UserError

_TELL_SECONDS = 0.2
_END_SECONDS = 2.0  # what is going on may take this long to end by itself


class Speaker:
    """Lines of JSON to whoever started this process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._next = stream, 0.0

    def stage(self, text: str, *, often: bool = False) -> None:
        """Tell what is going on; what comes `often` is told some times a second."""
        now = time.monotonic()
        if often and now < self._next:
            return
        self._next = now + _TELL_SECONDS
        self.say({"stage": text})

    def say(self, message: dict[str, Any]) -> None:
        """Send one object."""
        self._stream.write(json.dumps(message) + "\n")
        self._stream.flush()


def main() -> int:
    """Measure what stdin asks for; the exit status."""
    # What libraries print must not get between the lines.
    speaker = Speaker(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    job = Job.from_line(sys.stdin.readline())
    speaker.stage("starting torch")
    try:
        from core.bench.measure import measure

        measured = measure(job, speaker.stage, _ends_with_stdin())
    except UserError as error:
        speaker.say({"refused": str(error)})
    except Cancelled:
        return 130
    else:
        speaker.say({"measured": asdict(measured)})
    sys.stdout.flush()
    return 0


def _ends_with_stdin() -> Callable[[], bool]:
    """A flag that is up once stdin has ended, which soon after that ends this process come what may."""
    ended = threading.Event()

    def watch() -> None:
        while os.read(0, 4096):
            pass
        ended.set()
        time.sleep(_END_SECONDS)
        os._exit(130)

    threading.Thread(target=watch, name="stdin", daemon=True).start()
    return ended.is_set


if __name__ == "__main__":
    sys.exit(main())
