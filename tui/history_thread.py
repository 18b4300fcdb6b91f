"""The saved conversations, asked on a thread of their own: a slow disk never holds up the screen."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from core.errors import UserError

if TYPE_CHECKING:
    from core.history.store import History

log = logging.getLogger(__name__)

T = TypeVar("T")


class _Job:
    """A deed and the answer to come."""

    def __init__(self, deed: Callable[[History], Any]) -> None:
        self.deed = deed
        self.answer: Future[Any] = Future()


class HistoryThread:
    """Does what is asked of `history` one by one, in the order in which it was asked.

    Call it from the event loop. UserError and KeyError of a deed come out of the call that waits for it; so
    does a fault of ours, as a UserError, since no chat should end because of its history.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._at_work: _Job | None = None
        self._thread: threading.Thread | None = None

    async def read(self, deed: Callable[[History], T]) -> T:
        """What `deed` finds. Where the task that waits for it is cancelled, it is given up or ended."""
        job = self._ask(deed)
        try:
            return await asyncio.wrap_future(job.answer)
        except asyncio.CancelledError:
            with self._lock:
                if not job.answer.cancel() and self._at_work is job:
                    self._history.interrupt()
            raise

    async def write(self, deed: Callable[[History], T]) -> T:
        """What `deed` says once it is done; that it is, whoever still waits for it."""
        return await asyncio.shield(asyncio.wrap_future(self._ask(deed).answer))

    def close(self, timeout: float) -> None:
        """Wait at most `timeout` seconds for what was asked for."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout)

    def _ask(self, deed: Callable[[History], Any]) -> _Job:
        job = _Job(deed)
        self._jobs.put(job)
        if self._thread is None:
            # A daemon: a call that hangs must not keep the program from ending.
            self._thread = threading.Thread(target=self._work, name="chats", daemon=True)
            self._thread.start()
        return job

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._lock:
                if not job.answer.set_running_or_notify_cancel():
                    continue
                self._at_work = job
            try:
                result = job.deed(self._history)
            except (UserError, KeyError) as error:
                self._leave()
                job.answer.set_exception(error)
            except Exception as error:
                log.error("the history failed", exc_info=error)
                self._leave()
                job.answer.set_exception(UserError(f"the history failed: {type(error).__name__}: {error}"))
            else:
                self._leave()
                job.answer.set_result(result)

    def _leave(self) -> None:
        """After this, nobody interrupts what comes next in the belief that it is what was."""
        with self._lock:
            self._at_work = None
