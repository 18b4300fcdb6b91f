"""The folder of packed files: where it is, what lies in it, and how it is emptied. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from core.cache_folder import cache_folder
from core.errors import Cancelled, UserError

SUFFIX = ".packed"
UNFINISHED = ".part"  # behind SUFFIX: what is being written, or was when a run died

_POLL_S = 0.1


def folder() -> Path:
    """Where packed files lie: "packed" in the user's cache folder, or in LLAMA_TUI_CACHE."""
    cache = cache_folder()
    if cache is None:
        raise UserError("the cache folder is unknown without platformdirs; set LLAMA_TUI_CACHE to a folder")
    return cache / "packed"


def listing() -> list[tuple[Path, int]]:
    """All packed files with their sizes in bytes, unfinished ones included."""
    found = []
    for path in sorted(folder().glob(f"*{SUFFIX}*")):
        try:
            found.append((path, path.stat().st_size))
        except FileNotFoundError:  # another process has removed or renamed it
            continue
    return found


def clear() -> list[tuple[Path, int]]:
    """Delete all packed files but what another process is writing; what was deleted, sizes in bytes.

    A process that reads one of them goes on undisturbed where the system allows that, and elsewhere the
    file cannot be deleted. Raises UserError for one that cannot.
    """
    if not folder().is_dir():
        return []
    try:
        with writing(lambda: True):
            return _delete(listing())
    except Cancelled:  # another process is writing
        return _delete([entry for entry in listing() if entry[0].suffix == SUFFIX])


def remove_unfinished() -> None:
    """Delete what dead runs have left; only for the one process inside `writing`."""
    _delete([entry for entry in listing() if entry[0].suffix == UNFINISHED])


@contextmanager
def writing(cancelled: Callable[[], bool], waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Be the only process that writes packed files; the lock ends with the process, however that ends.

    While another one writes, `waiting` is called once and `cancelled` ten times a second. Raises Cancelled,
    and UserError where the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    try:
        folder().mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder() / "writing.lock")
        timeout = 0.0
        while True:
            try:
                lock.acquire(timeout=timeout)
                break
            except Timeout:
                if not timeout:
                    waiting()
                if cancelled():
                    raise Cancelled from None
                timeout = _POLL_S
    except (OSError, NotImplementedError) as error:
        raise unwritable(error) from None
    try:
        yield
    finally:
        lock.release()


def unwritable(error: Exception) -> UserError:
    """What to tell the user of a packed file that cannot be written."""
    reason = getattr(error, "strerror", None) or error
    return UserError(
        f"{folder()}: a packed file for the disk tier cannot be written ({reason}); "
        "set LLAMA_TUI_CACHE to another folder, or give more --ram"
    )


def _delete(files: list[tuple[Path, int]]) -> list[tuple[Path, int]]:
    for path, _ in files:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be deleted ({error.strerror}); close what uses it") from None
    return files
