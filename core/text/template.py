"""A checkpoint's Jinja template, rendered at arm's length (see core.text.template_process)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.text.sanitize import one_line

_SCRIPT = Path(__file__).with_name("template_process.py")
_START_SECONDS = 30.0  # Python and jinja2 from a cold disk
_SECONDS = 3.0  # a rendering takes milliseconds
_LONGEST_LINE = 64 * 2**20  # characters; the text of the longest answer in JSON's escapes is shorter
# The libraries that Python is linked with, Windows' own, and the time zone of a date in a prompt.
_ENVIRONMENT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "TZ")


class Renderer:
    """One template and the process that renders it.

    The process starts with the first rendering, and again after one that failed badly. It ends with
    this object, with `close`, and with ours, whose end closes its input.
    """

    def __init__(self, source: str) -> None:
        """`source` is the template; what is wrong with it comes out in rendering."""
        self._source = source
        self._process: subprocess.Popen[str] | None = None
        self._end: weakref.finalize[..., Renderer] | None = None

    def render(self, **variables: object) -> str:
        """The text for `variables`, which are plain JSON values.

        Raises UserError for a template that fails, or takes more time, memory or text than any needs.
        """
        if self._process is None:
            self._process = self._start()
        answer = self._ask(self._process, variables, _SECONDS)
        if "error" in answer:
            raise refusal(f"fails: {one_line(answer['error'])}")
        text: str = answer["text"]
        return text

    def close(self) -> None:
        """Ends the process. A later rendering starts another."""
        if self._end is not None:
            self._end()
        self._process = None

    def _start(self) -> subprocess.Popen[str]:
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", str(_SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="ascii",
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                start_new_session=True,  # an interrupt at the terminal is not for it
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # the same on Windows
            )
        except OSError as error:
            raise refusal(f"needs a process to be rendered, and none starts ({error.strerror})") from None
        self._end = weakref.finalize(self, _end, process)
        self._ask(process, self._source, _START_SECONDS)
        return process

    def _ask(self, process: subprocess.Popen[str], message: object, seconds: float) -> dict[str, Any]:
        """The answer to `message`. Raises UserError, and ends the process, where none comes in time."""
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = time.monotonic() + seconds
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        line = ""
        try:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
            line = process.stdout.readline(_LONGEST_LINE)
        except OSError:  # it is gone
            pass
        finally:
            timer.cancel()
            timer.join()
        late = time.monotonic() >= deadline
        if late or not line.endswith("\n"):
            self.close()
            raise refusal(
                f"takes longer than {seconds:g} s" if late else "crashed the process that renders it"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer


def refusal(what: str) -> UserError:
    """The error of a template that cannot be used; `what` goes on after its name."""
    return UserError(f"the checkpoint's chat template {what}; choose a format with --chat-format NAME")


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    with suppress(OSError), process:  # closing writes what it did not take any more
        pass
