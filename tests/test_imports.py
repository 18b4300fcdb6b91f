"""Who imports whom at run time; the rules between modules are import-linter's (pyproject.toml)."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        ("tui.cli, tui.app, tui.headless", "torch numpy sentencepiece tokenizers gguf bitsandbytes"),
        ("core.engine.worker, core.monitor, core.demo", "torch numpy textual rich"),
        ("core.engine.session, core.checkpoint.meta, core.sampling.sampler", "textual rich tui bitsandbytes"),
    ],
)
def test_what_an_import_does_not_pull_in(modules: str, absent: str) -> None:
    code = f"import sys, {modules}; print(*sorted(set({absent.split()!r}) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == []
