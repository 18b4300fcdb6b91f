"""The end of a file that grows, whatever its size and whatever is in it. No Textual."""

from __future__ import annotations

import codecs
from pathlib import Path

from core.text.sanitize import sanitize

_MOST = 256_000  # bytes that are read at once; what came before them is left out
_LONGEST = 1000  # characters of a line


class LogTail:
    """Reads what was added since it last looked, as lines that a terminal can take.

    A line that is not finished yet waits until it is, or until nothing follows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unfinished = ""

    def read(self) -> list[str]:
        """The new lines; none where there is no such file. What was left out is one of them."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, 2)
                if size < self._at:  # begun afresh
                    self._at, self._unfinished = 0, ""
                    self._decoder.reset()
                start = max(self._at, size - _MOST)
                skipped = start - self._at
                file.seek(start)
                data = file.read(size - start)
        except OSError:
            return []
        self._at = start + len(data)
        return [*self._skip(skipped), *self._lines(data, cut=skipped > 0)]

    def _skip(self, count: int) -> list[str]:
        if not count:
            return []
        self._unfinished = ""
        self._decoder.reset()
        return [f"({count} bytes before this are only in the file)"]

    def _lines(self, data: bytes, *, cut: bool) -> list[str]:
        if not data:
            waiting, self._unfinished = self._unfinished, ""
            return [_shown(waiting)] if waiting else []
        text = self._unfinished + self._decoder.decode(data)
        if cut:  # what is left of the line that was cut says little
            text = text.partition("\n")[2] or text
        *lines, rest = text.split("\n")
        self._unfinished = rest[: 2 * _LONGEST]
        return [_shown(line) for line in lines]


def _shown(line: str) -> str:
    """A line without what could act on the terminal, no longer than anybody reads.

    Of a line that was written over itself, as progress bars do, the last state.
    """
    line = sanitize(line.rstrip("\r").rpartition("\r")[2])
    more = len(line) - _LONGEST
    return line if more <= 0 else f"{line[:_LONGEST]} (and {more} characters more)"
