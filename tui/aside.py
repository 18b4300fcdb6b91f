"""Deeds that may take long, off the event loop, on threads that cannot keep the program from ending."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from core.errors import UserError

T = TypeVar("T")


async def aside(deed: Callable[[], T]) -> T:
    """What `deed` gives, or raises, from a thread of its own."""
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()

    def work() -> None:
        try:
            result = deed()
        except BaseException as error:
            answer.set_exception(error)
        else:
            answer.set_result(result)

    threading.Thread(target=work, name="aside", daemon=True).start()
    return await asyncio.wrap_future(answer)


async def written(change: Callable[[], object]) -> UserError | None:
    """Write a file; why it could not be, if it could not."""
    try:
        await aside(change)
    except UserError as error:
        return error
    return None
