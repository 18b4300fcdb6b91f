"""Packed files are written, told of and cleared, whatever the disk and other processes do meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from core.checkpoint.synthetic import SyntheticCheckpoint
from core.engine import packing
from core.engine.events import Loading, Notice
from core.engine.packing import pack
from core.errors import Cancelled, UserError
from core.model.shapes import SHAPES
from core.weights import packed_files
from core.weights.packed import PackedFile
from tests.core.packed_checkpoints import (
    CONFIG,
    TYPES,
    Stored,
    cache,
    checkpoint,
    config,
    made,
    needed,
)

__all__ = ["cache", "checkpoint", "config"]


class TestWriting:
    def test_what_is_told(self, checkpoint: Stored, cache: Path) -> None:
        events: list[Loading | Notice] = []
        packed = pack(checkpoint, needed(checkpoint.config), events.append, lambda: False)  # type: ignore[arg-type]
        first, *others = events
        assert isinstance(first, Notice)
        assert str(cache) in first.text
        assert "free" in first.text
        assert f"{packed.nbytes / 1e6:.1f} MB" in first.text
        last = others[-1]
        assert isinstance(last, Loading)
        assert last.stage == "packing for the disk tier"
        assert last.done_bytes == last.total_bytes == sum(w.nbytes for w in packed.weights.values())

    def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(
        self, checkpoint: Stored, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=20_000))
        monkeypatch.setattr(packing, "_write", lambda *arguments: pytest.fail("it was written"))
        with pytest.raises(UserError) as caught:
            made(checkpoint, needed(checkpoint.config))
        message = str(caught.value)
        assert str(cache) in message
        assert "LLAMA_TUI_CACHE" in message
        assert "--ram" in message
        assert "0.0 MB are free" in message
        assert packed_files.listing() == []

    def test_cancelled_anywhere_it_leaves_nothing(self, checkpoint: Stored, cache: Path) -> None:
        needs, asked = needed(checkpoint.config), 0

        def count() -> bool:
            nonlocal asked
            asked += 1
            return False

        pack(checkpoint, needs, lambda event: None, count).close()  # type: ignore[arg-type]
        packed_files.clear()
        assert asked > 20
        for limit in (0, 1, asked // 2, asked - 1):
            calls = iter([False] * limit + [True] * 1000)
            with pytest.raises(Cancelled):
                pack(checkpoint, needs, lambda event: None, lambda calls=calls: next(calls))  # type: ignore[arg-type, misc]
            assert packed_files.listing() == []
        made(checkpoint, needs).verify()

    def test_nothing_stands_at_the_final_path_before_the_end(
        self, checkpoint: Stored, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[list[str]] = []
        real = os.fsync

        def sync(descriptor: int) -> None:
            seen.append([path.suffix for path, _ in packed_files.listing()])
            real(descriptor)

        monkeypatch.setattr(os, "fsync", sync)
        made(checkpoint, needed(checkpoint.config))
        assert seen == [[".part"], [".packed"]]  # the file, then its folder

    def test_a_full_disk(self, checkpoint: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*arguments: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(packing, "_put", full)
        with pytest.raises(UserError, match=r"No space left.*LLAMA_TUI_CACHE"):
            made(checkpoint, needed(checkpoint.config))
        assert packed_files.listing() == []

    def test_a_cache_that_cannot_be_written_to(
        self, checkpoint: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("LLAMA_TUI_CACHE", str(tmp_path / "file"))
        with pytest.raises(UserError, match="LLAMA_TUI_CACHE"):
            made(checkpoint, needed(checkpoint.config))

    def test_a_source_that_is_short(self, checkpoint: Stored) -> None:
        os.truncate(checkpoint.files[0].path, 30_000)
        with pytest.raises(UserError, match=r"toy\.bin.*cut short"):
            made(checkpoint, needed(checkpoint.config))
        assert packed_files.listing() == []

    def test_a_source_that_changes_meanwhile(self, checkpoint: Stored) -> None:
        path = checkpoint.files[0].path
        times = iter([1, 2, 3, 4, 5])

        def touch(event: Loading | Notice) -> None:
            os.utime(path, (1, next(times)))

        with pytest.raises(UserError, match="changed"):
            pack(checkpoint, needed(checkpoint.config), touch, lambda: False)  # type: ignore[arg-type]
        assert packed_files.listing() == []

    def test_a_source_that_is_gone(self, checkpoint: Stored) -> None:
        checkpoint.files[0].path.unlink()
        with pytest.raises(UserError, match=r"toy\.bin"):
            made(checkpoint, needed(checkpoint.config))

    def test_what_a_dead_run_left_is_removed(self, checkpoint: Stored, cache: Path) -> None:
        cache.mkdir(parents=True)
        (cache / "other-float16-0.packed.99999-abcd.part").write_bytes(b"half")
        packed = made(checkpoint, needed(checkpoint.config))
        assert [path for path, _ in packed_files.listing()] == [packed.path]

    def test_two_at_once_write_one_file(self, checkpoint: Stored, cache: Path) -> None:
        needs = needed(checkpoint.config)
        packed: list[PackedFile] = []
        events: list[Loading | Notice] = []
        notices = threading.Lock()

        def emit(event: Loading | Notice) -> None:
            with notices:
                events.append(event)

        def run() -> None:
            packed.append(pack(checkpoint, needs, emit, lambda: False))  # type: ignore[arg-type]

        threads = [threading.Thread(target=run) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(packed) == 3
        assert sum(isinstance(event, Notice) for event in events) == 1
        for file in packed:
            file.verify()

    def test_waiting_can_be_cancelled(self, checkpoint: Stored) -> None:
        events: list[Loading | Notice] = []
        with (
            packed_files.writing(lambda: False),
            pytest.raises(Cancelled),
        ):
            pack(checkpoint, needed(checkpoint.config), events.append, lambda: True)  # type: ignore[arg-type]
        assert [event.stage for event in events if isinstance(event, Loading)] == [
            "waiting for another llama-tui that is packing"
        ]


class TestClear:
    def test_everything_is_deleted_and_told(self, checkpoint: Stored, cache: Path) -> None:
        assert packed_files.clear() == packed_files.listing() == []
        assert not cache.exists()
        files = [made(checkpoint, needed(checkpoint.config, dtype)) for dtype in TYPES]
        (cache / "toy.packed.1-a.part").write_bytes(b"half")
        (cache / "notes.txt").write_text("not ours")
        expected = sorted([(file.path, file.nbytes) for file in files] + [(cache / "toy.packed.1-a.part", 4)])
        assert sorted(packed_files.listing()) == expected
        assert sorted(packed_files.clear()) == expected
        assert packed_files.listing() == []
        assert (cache / "notes.txt").exists()

    @pytest.mark.skipif(os.name != "posix", reason="elsewhere an open file cannot be deleted")
    def test_who_reads_it_reads_on(self, checkpoint: Stored) -> None:
        packed = made(checkpoint, needed(checkpoint.config))
        packed_files.clear()
        packed.verify()

    def test_what_another_process_writes_stays(self, checkpoint: Stored, cache: Path) -> None:
        packed = made(checkpoint, needed(checkpoint.config))
        program = (
            "import sys; from core.weights import packed_files\n"
            "with packed_files.writing(lambda: False):\n"
            "    print('writing', flush=True); sys.stdin.read()"
        )
        (cache / "toy.packed.1-a.part").write_bytes(b"half")
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"writing\n"
            assert packed_files.clear() == [(packed.path, packed.nbytes)]
            process.kill()
        assert packed_files.clear() == [(cache / "toy.packed.1-a.part", 4)]


def test_no_torch_to_list_and_clear() -> None:
    program = (
        "import sys; from core.weights import packed_files, packed_header; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_the_users_own_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    import platformdirs

    monkeypatch.delenv("LLAMA_TUI_CACHE")
    assert packed_files.folder() == platformdirs.user_cache_path("llama-tui") / "packed"
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    with pytest.raises(UserError, match="LLAMA_TUI_CACHE"):
        packed_files.folder()


def test_memory_is_that_of_one_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = torch.empty

    def spy(*shape: int, **options: object) -> torch.Tensor:
        made = real(*shape, **options)  # type: ignore[call-overload]
        sizes.append(made.nbytes)
        return made

    monkeypatch.setattr(packing.torch, "empty", spy)
    monkeypatch.setitem(SHAPES, "toy", CONFIG)
    needs = needed(CONFIG)
    made(SyntheticCheckpoint("toy"), needs)
    largest = max(weight.nbytes for unit in needs.units for weight in unit.weights)
    assert [size for size in sizes if size >= largest] == [largest]
