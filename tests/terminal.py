"""A program on a pseudo-terminal, its screen kept by a terminal emulator (pyte)."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Sequence

import pyte

LLAMA_TUI = (sys.executable, "-c", "import sys; from tui.cli import main; sys.exit(main())")


class Terminal:
    """Runs `argv` on a pty of `columns` x `rows`; what it draws is in `screen`, its bytes in `raw`."""

    def __init__(self, argv: Sequence[str], columns: int = 120, rows: int = 40, **environment: str) -> None:
        self.screen = pyte.Screen(columns, rows)
        self.raw = bytearray()
        self.stderr = bytearray()
        self._stream = pyte.ByteStream(self.screen)
        self._lock = threading.Lock()
        self.started = time.perf_counter()
        self._drawn: list[tuple[float, int]] = []
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(slave)
        self._slave = slave  # kept open, to look at the terminal's modes after the program has gone
        self.process = subprocess.Popen(
            argv,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=os.environ
            | {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LC_ALL": "C.UTF-8"}
            | environment,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return
            if not data:
                return
            with self._lock:
                self.raw += data
                self._drawn.append((time.perf_counter() - self.started, len(self.raw)))
                self._stream.feed(data)

    def blind(self) -> None:
        """From now on take what is drawn and throw it away: the emulator computes on the program's cores."""
        self._stream.feed = lambda data: None  # type: ignore[method-assign]

    def resize(self, columns: int, rows: int) -> None:
        """Give it another size, as a user who pulls at the window. The emulator keeps its own."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def text(self) -> str:
        """The screen's rows, joined by line breaks."""
        with self._lock:
            return "\n".join(self.screen.display)

    def seconds_to(self, size: int) -> float:
        """When the first `size` bytes had been drawn, in seconds after the start."""
        self.wait(lambda: len(self.raw) >= size)
        return next(when for when, drawn in self._drawn if drawn >= size)

    def wait(self, condition: Callable[[], object], timeout: float = 60) -> None:
        """Until `condition` holds. AssertionError with the screen if it does not in time."""
        end = time.perf_counter() + timeout
        while not condition():
            ended = self.process.poll()
            assert time.perf_counter() < end, f"waited {timeout} s in vain; the screen:\n{self.text()}"
            assert ended is None or condition(), f"ended with {ended}; the screen:\n{self.text()}"
            time.sleep(0.02)

    def wait_for(self, text: str, timeout: float = 60) -> None:
        """Until the screen shows `text`."""
        self.wait(lambda: text in self.text(), timeout)

    def wait_exit(self, timeout: float = 10) -> int:
        """The exit status."""
        status = self.process.wait(timeout)
        time.sleep(0.1)  # the last bytes are still on their way through the pty
        return status

    def modes(self) -> list[object]:
        """The terminal's line settings as they are now."""
        return termios.tcgetattr(self._slave)

    def close(self) -> None:
        """End the program if it has not ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._slave)
        os.close(self._master)
