"""What the README says of keys, flags and commands is what the program has."""

from __future__ import annotations

import re
from pathlib import Path

from tui.arguments import build
from tui.key_tables import markdown_tables

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_keys_is_the_programs() -> None:
    assert markdown_tables() in README


def test_every_flag_it_names_is_understood() -> None:
    known = {flag for action in build()._actions for flag in action.option_strings}
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", README))
    assert named - known == set()


def test_every_file_and_target_it_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`?make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (ROOT / path).exists(), path


def test_it_names_no_machine() -> None:
    assert not re.search(r"/(?:root|home|work|tmp)/", README)
