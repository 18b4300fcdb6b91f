"""What is given alone and needs no model: where the files are, and taking away what can be made anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from core.cache_folder import cache_folder
from core.errors import UserError
from core.folders import config_file, history_file
from core.sizes import format_size
from tui.stdio_guard import log_path


def command(argv: Sequence[str]) -> Callable[[], int] | None:
    """The one of these that `argv` asks for, None for none. Raises UserError where it is not given alone."""
    commands = {"--clear-cache": _clear_cache, "--locate": _locate}
    reasons = {"--clear-cache": "deletes files", "--locate": "prints where the files are"}
    for flag, run in commands.items():
        if flag in argv:
            if list(argv) != [flag]:
                raise UserError(f"{flag} {reasons[flag]} and does nothing else; give it alone")
            return run
    return None


def _locate() -> int:
    """Print every place, one a line with its name before it."""
    places = {
        "config": config_file(),
        "history": history_file(),
        "cache": cache_folder(),
        "log": log_path(),
    }
    for name, path in places.items():
        print(f"{name:8}{path or 'nowhere'}")
    return 0


def _clear_cache() -> int:
    """Delete the packed files and say which they were."""
    from core.weights import packed_files

    deleted = packed_files.clear()
    for path, nbytes in deleted:
        print(f"deleted {path} ({format_size(nbytes)})")
    total = sum(nbytes for _, nbytes in deleted)
    print(f"{format_size(total)} in {len(deleted)} files" if deleted else "there were no packed files")
    return 0
