"""Repaints at a bounded rate, without a timer that runs while nothing happens."""

from __future__ import annotations

from collections.abc import Callable

from textual.message_pump import MessagePump
from textual.timer import Timer

from tui.compat import later


class Throttle:
    """Runs `action` at once when asked, then at most every `period` seconds.

    A request that comes too early is done when the period is over, so the last state always shows.
    """

    def __init__(self, owner: MessagePump, period: float, action: Callable[[], None]) -> None:
        self._owner, self._period, self._action = owner, period, action
        self._timer: Timer | None = None
        self._asked = False

    def request(self) -> None:
        """Run the action now or, if it ran just now, a little later."""
        if self._timer is not None:
            self._asked = True
            return
        self._timer = later(self._owner, self._period, self._expire)
        self._action()

    def _expire(self) -> None:
        self._timer = None
        if self._asked:
            self._asked = False
            self.request()
