"""Compiles the kernels once for this processor, and keeps them in the cache. No torch.

A plain shared library and no extension of torch: it is built in seconds, needs no headers but the
compiler's, and outlives torch's versions. It is compiled with OpenMP but linked without: its parallel loops
then run on the OpenMP that torch has loaded, with torch's threads and torch's number of them, since a
second pool of threads beside the first costs a third of everything.
"""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Thread

from core.cache_folder import cache_folder

HERE = Path(__file__).parent
_SOURCES = ("matrix.cpp", "ops.cpp")
_HEADERS = (
    "simd.h",
    "vectors.h",
    "codes.h",
    "attention_rows.h",
    "attention_codes.h",
    "attention.h",
    "matrix_shared.h",
    "matrix_few.h",
    "matrix_many.h",
    "matrix_integers.h",
    "matrix_bfloats.h",
)
_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-Wall")
_VARIABLE = "LLAMA_TUI_NATIVE"  # "0": no compiled kernels; else the folder they are kept in
_SECONDS = 300.0  # after which a compiler is given up


class Build:
    """The library for one architecture ("native": this processor), being made or there.

    `error` says in one line why there is none; None while there may be one.
    """

    def __init__(self, arch: str = "native", folder: Path | None = None) -> None:
        self._folder = folder or _folder()
        self._arch = arch
        self._thread: Thread | None = None
        self.error: str | None = None
        self._compiler = _compiler()
        if self._folder is None:
            self.error = "the cache folder is unknown; set LLAMA_TUI_CACHE to a folder"
        elif sys.platform != "linux":
            self.error = "compiled kernels are for Linux only"
        elif os.environ.get(_VARIABLE) == "0":
            self.error = f"switched off by {_VARIABLE}=0"
        elif not self.path.exists() and self._compiler is None:
            self.error = "there is no C++ compiler (g++ or clang++)"
        elif self._failed.exists():
            self.error = self._failed.read_text(encoding="utf-8").strip() or "the compiler failed"

    @property
    def path(self) -> Path:
        """Where the library lies; another place for other sources, flags or another processor."""
        assert self._folder is not None
        return self._folder / f"{self._key()}.so"

    def start(self) -> None:
        """Begin to compile beside what else goes on, unless the library is there or cannot be."""
        if self.error is None and self._thread is None and not self.path.exists():
            self._thread = Thread(target=self._run, name="compiler", daemon=True)
            self._thread.start()

    def wait(self) -> Path | None:
        """The library once it is there; None where there is none (see `error`)."""
        self.start()
        if self._thread is not None:
            self._thread.join()
        return None if self.error is not None else self.path

    @property
    def _failed(self) -> Path:
        """Remembers that the compiler failed, and what it said, so that not every start tries again."""
        return self.path.with_suffix(".failed")

    def _key(self) -> str:
        parts = [self._arch, _processor() if self._arch == "native" else "", " ".join(_FLAGS)]
        parts += [(HERE / name).read_text(encoding="utf-8") for name in (*_SOURCES, *_HEADERS)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]

    def _run(self) -> None:
        assert self._compiler is not None
        mark = f"{os.getpid()}-{secrets.token_hex(4)}"
        unfinished = self.path.with_name(f"{self.path.stem}.{mark}.part")
        objects = [unfinished.with_suffix(f".{Path(name).stem}.o") for name in _SOURCES]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            for name, home in zip(_SOURCES, objects, strict=True):
                source = str(HERE / name)
                _call([self._compiler, *_FLAGS, f"-march={self._arch}", "-c", source, "-o", str(home)])
            _call([self._compiler, "-shared", *map(str, objects), "-o", str(unfinished)])
            unfinished.replace(self.path)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            lines = [line for line in said.splitlines() if "error" in line.lower()] or said.splitlines()
            self.error = f"the compiler failed: {lines[0].strip() if lines else error}"
            if isinstance(error, subprocess.CalledProcessError):
                self._failed.write_text(self.error, encoding="utf-8")
        finally:
            for path in (unfinished, *objects):
                path.unlink(missing_ok=True)


def _folder() -> Path | None:
    """LLAMA_TUI_NATIVE where it names a folder, else one in the cache."""
    given, cache = os.environ.get(_VARIABLE, ""), cache_folder()
    if given not in ("", "0"):
        return Path(given)
    return None if cache is None else cache / "native"


def _call(command: list[str]) -> None:
    """Run a compiler, at low priority: something else is being loaded meanwhile."""
    nice = ["nice"] if shutil.which("nice") else []
    subprocess.run([*nice, *command], check=True, capture_output=True, text=True, timeout=_SECONDS)


def _compiler() -> str | None:
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and (found := shutil.which(name)):
            return found
    return None


def processor_name() -> str:
    """The processor in words."""
    return next(iter(_cpuinfo("model name")), platform.processor() or platform.machine())


def processor_features() -> frozenset[str]:
    """What its instructions are called in Linux; nothing where nobody says."""
    return frozenset(word for line in _cpuinfo("flags", "Features") for word in line.split())


def _cpuinfo(*keys: str) -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    lines = (line.partition(":") for line in text.splitlines())
    return [value.strip() for key, _, value in lines if key.strip() in keys]


def _processor() -> str:
    """What tells two processors apart that need other instructions."""
    return f"{platform.machine()} {processor_name()} {sorted(processor_features())}"
