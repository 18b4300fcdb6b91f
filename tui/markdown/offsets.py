"""Where each of many stacked things begins."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate, islice


class Offsets:
    """Heights in rows, and their running sum, which is kept up to the first height that changed."""

    def __init__(self, heights: Iterable[int] = ()) -> None:
        self._heights = list(heights)
        self._starts = [0]  # one more than the heights they are known for

    @property
    def total(self) -> int:
        """The sum of all heights."""
        return self._known()[-1]

    def append(self, height: int) -> None:
        """Adds a height at the end."""
        self._heights.append(height)

    def set(self, index: int, height: int) -> None:
        """Changes one height."""
        if self._heights[index] != height:
            self._heights[index] = height
            del self._starts[index + 1 :]

    def truncate(self, length: int) -> None:
        """Forgets the heights from index `length` on."""
        del self._heights[length:]
        del self._starts[length + 1 :]

    def start(self, index: int) -> int:
        """The row at which the thing with this index begins."""
        return self._known()[index]

    def find(self, row: int) -> int:
        """Index of the thing in which this row lies; of the nearest one if it lies outside."""
        return max(0, bisect_right(self._known(), max(0, row), hi=len(self._heights)) - 1)

    def _known(self) -> list[int]:
        done = len(self._starts) - 1
        if done < len(self._heights):
            sums = accumulate(islice(self._heights, done, None), initial=self._starts.pop())
            self._starts.extend(sums)
        return self._starts
