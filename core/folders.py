"""Where the user's own files are: what they wrote, and what is kept for them. No torch."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CONFIG_VARIABLE = "LLAMA_TUI_CONFIG"
DATA_VARIABLE = "LLAMA_TUI_DATA"


def config_file() -> Path:
    """The user's configuration: the file LLAMA_TUI_CONFIG, else config.toml in the platform's folder."""
    folder = platformdirs.user_config_path("llama-tui", appauthor=False)
    return _given(CONFIG_VARIABLE) or folder / "config.toml"


def data_folder() -> Path:
    """What cannot be made anew: the folder LLAMA_TUI_DATA, else the platform's."""
    return _given(DATA_VARIABLE) or platformdirs.user_data_path("llama-tui", appauthor=False)


def history_file() -> Path:
    """The database of conversations."""
    return data_folder() / "history.db"


def _given(variable: str) -> Path | None:
    """The path in an environment variable; None where it is unset or empty."""
    text = os.environ.get(variable)
    return Path(text).expanduser() if text else None
