"""What a killed process leaves of its conversation, and that it goes on from there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from core.history.store import History
from tests.killed import LLAMA_TUI, LOST_S, check

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("seconds", [0.02, 2.1])
def test_a_conversation_outlives_its_process(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setenv("LLAMA_TUI_DATA", str(tmp_path))
    arguments = [str(stories), "--dtype", "float32", "--context", "512", "--max-tokens", "900"]
    path = tmp_path / "history.db"
    left = check(tmp_path, path, arguments, seconds)
    assert left.lost_s <= LOST_S
    before = History(path).load(1)
    command = [*LLAMA_TUI, "--continue", "--prompt", "The end", "--max-tokens", "4", "--json"]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    reply = json.loads(again.stdout)
    after = History(path).load(1)
    assert after.messages[: len(before.messages)] == before.messages
    user, new = (saved.message for saved in after.messages[-2:])
    assert (user.text, user.parent) == ("The end", before.head)
    assert list(new.tokens) == reply["tokens"]
