"""The user's cache folder: what can be made or measured anew. No torch."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any


def cache_folder() -> Path | None:
    """LLAMA_TUI_CACHE, else the platform's folder; None where nobody knows it."""
    given = os.environ.get("LLAMA_TUI_CACHE")
    if given:
        return Path(given).expanduser()
    try:
        import platformdirs
    except ModuleNotFoundError:
        return None
    return platformdirs.user_cache_path("llama-tui")


def read_table(name: str) -> dict[str, Any]:
    """What the JSON file `name` of the cache holds; nothing where there is none that can be understood."""
    folder = cache_folder()
    try:
        found = None if folder is None else json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def write_table(name: str, table: dict[str, Any]) -> None:
    """Replace the JSON file `name` of the cache, whole or not at all."""
    folder = cache_folder()
    if folder is None:
        return
    path = folder / name
    unfinished = path.with_name(f"{name}.{os.getpid()}-{secrets.token_hex(4)}")
    # It only saves a measurement: a cache that cannot be written must not end a load.
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_text(json.dumps(table, indent=1), encoding="utf-8")
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
