"""The user's cache folder: what can be made or measured anew. No torch."""

from __future__ import annotations

import os
from pathlib import Path


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
