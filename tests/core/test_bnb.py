"""bitsandbytes as it is imported: it fetches nothing, says nothing, changes nothing, and may be missing."""

from __future__ import annotations

import importlib
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import pytest

from core.weights.bnb import offline


def run(program: str, folder: Path) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TORCH")}
    environment = {**inherited, "PYTHONPATH": os.pathsep.join([str(folder), str(Path.cwd())])}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def write_fetcher(folder: Path) -> Path:
    """A package such as bitsandbytes would fetch with; the file in which it notes its calls."""
    calls = folder / "calls"
    folder.joinpath("kernels").mkdir()
    folder.joinpath("kernels", "__init__.py").write_text(
        f"def note(what): open({str(calls)!r}, 'a').write(what)\n"
        "def get_kernel(*arguments, **options): note('fetched ')\n"
        "note('imported ')\n"
    )
    return calls


def test_bitsandbytes_fetches_nothing_says_nothing_and_changes_nothing(tmp_path: Path) -> None:
    calls = write_fetcher(tmp_path)
    run(
        """
        import logging, os, sys, warnings
        from core.weights.formats import pack, torch, views
        from core.weights.layouts import size_of

        def state():
            return dict(os.environ), list(warnings.filters), logging.getLogger("bitsandbytes").level

        assert "bitsandbytes" not in sys.modules
        before = state()
        for format in ("int8", "nf4"):
            memory = torch.empty(size_of(format, 16, 64), dtype=torch.uint8)
            pack(format, torch.randn(16, 64).half(), views(format, 16, 64, memory))
        assert "bitsandbytes" in sys.modules
        assert "kernels" not in sys.modules
        assert state() == before, (state(), before)
        """,
        tmp_path,
    )
    assert not calls.exists()
    run("import kernels; kernels.get_kernel()", tmp_path)
    assert calls.read_text() == "imported fetched "


def test_imports_without_bitsandbytes_and_numpy(tmp_path: Path) -> None:
    out = run(
        """
        import sys
        import warnings
        warnings.simplefilter("ignore")  # torch warns that numpy is missing
        sys.modules["numpy"] = sys.modules["bitsandbytes"] = None
        from core.errors import UserError
        from core.weights.formats import multiply, pack, torch, values, views
        from core.weights.layouts import size_of

        for format in ("int4", "int8"):
            memory = torch.empty(size_of(format, 16, 64), dtype=torch.uint8)
            pieces = views(format, 16, 64, memory)
            try:
                pack(format, torch.randn(16, 64).half(), pieces)
            except UserError as error:
                print(format, error)
            else:
                print(format, multiply(format, pieces, 16, 64, torch.ones(1, 64), 1).isfinite().all().item())
        assert sys.modules["bitsandbytes"] is None
        """,
        tmp_path,
    )
    first, second = out.splitlines()
    assert first == "int4 True"
    assert second.startswith("int8 int8 and nf4 need bitsandbytes")
    assert second.endswith("pip install bitsandbytes, or take --quant int4")


def test_a_package_that_is_there_is_hidden_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    there = ModuleType("kernels")
    monkeypatch.setitem(sys.modules, "kernels", there)
    logger = logging.getLogger("bitsandbytes")
    with offline():
        with pytest.raises(ImportError):
            importlib.import_module("kernels")
        assert not logging.getLogger("bitsandbytes.backends").isEnabledFor(logging.CRITICAL)
    assert importlib.import_module("kernels") is there
    assert logger.level == logging.NOTSET
