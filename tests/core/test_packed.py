"""The packed file against plain torch: its bytes, its slots, and everything that can go wrong with it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from core.checkpoint import Checkpoint
from core.checkpoint.reader import Reader
from core.checkpoint.source import Part, SourceFile, Weight
from core.checkpoint.synthetic import SyntheticCheckpoint
from core.engine import packing
from core.engine.events import Loading, Notice
from core.engine.packing import find_or_pack, pack, rows_of
from core.errors import Cancelled, UserError
from core.model.config import ModelConfig
from core.model.shapes import SHAPES
from core.weights import needs as needs_module
from core.weights import packed_files
from core.weights.lane import FileSource
from core.weights.needs import Needs, needs_of
from core.weights.packed import PackedFile

# No matrix has a multiple of 256 bytes, and the head has several tiles.
CONFIG = ModelConfig(
    dim=24, n_layers=3, n_heads=4, n_kv_heads=2, head_dim=6, hidden_dim=41, vocab_size=301, norm_eps=1e-5
)
TYPES = ("float32", "float16", "bfloat16")


@dataclass
class Stored:
    """A checkpoint of one file, some weights split as shards split them, some in another order."""

    config: ModelConfig
    weights: dict[str, Weight]
    tensors: dict[str, torch.Tensor]
    name: str = "toy"
    notes: tuple[str, ...] = ()
    files: list[SourceFile] = field(default_factory=list)

    @property
    def stored_dtype(self) -> torch.dtype:
        return torch.float32

    def close(self) -> None:
        for file in self.files:
            file.close()


def store(path: Path, config: ModelConfig) -> Stored:
    generator = torch.Generator().manual_seed(3)
    tensors = {n: torch.randn(shape, generator=generator) for n, shape in config.shapes().items()}
    data, places = b"", {}
    for name, tensor in tensors.items():
        axis = {"tok_embeddings.weight": 1, "output.weight": 0}.get(name)
        if axis is None:
            pieces = [theirs(tensor, config) if name.endswith("wq.weight") else tensor]
        else:
            pieces = list(tensor.tensor_split([7, 15], dim=axis))
        places[name] = (axis or 0, [])
        for piece in pieces:
            places[name][1].append((len(data), tuple(piece.shape)))
            data += piece.contiguous().numpy().tobytes()
    path.write_bytes(data)
    file = SourceFile(path)
    weights = {}
    for name, (axis, pieces) in places.items():
        parts = tuple(Part(file, at, shape, torch.float32) for at, shape in pieces)
        head_dim = config.head_dim if name.endswith("wq.weight") else None
        weights[name] = Weight(tuple(tensors[name].shape), parts, axis, head_dim)
    return Stored(config, weights, tensors, files=[file])


def theirs(tensor: torch.Tensor, config: ModelConfig) -> torch.Tensor:
    """Hugging Face's order of the rows of each head."""
    return tensor.view(-1, config.head_dim // 2, 2, config.dim).transpose(1, 2).reshape(tensor.shape)


def needed(config: ModelConfig, dtype: str = "float16") -> Needs:
    return needs_of(config, dtype, 64, 8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and heads of many tiles."""
    monkeypatch.setenv("LLAMA_TUI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(needs_module, "_LEAST_TILE", 500)
    return tmp_path / "cache" / "packed"


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def config(request: pytest.FixtureRequest) -> ModelConfig:
    return replace(CONFIG, tied=request.param)


@pytest.fixture
def checkpoint(tmp_path: Path, config: ModelConfig) -> Iterator[Stored]:
    stored = store(tmp_path / "toy.bin", config)
    yield stored
    stored.close()


def made(checkpoint: Checkpoint | Stored, needs: Needs) -> PackedFile:
    return pack(checkpoint, needs, lambda event: None, lambda: False)  # type: ignore[arg-type]


def found(checkpoint: Checkpoint | Stored, needs: Needs) -> tuple[PackedFile | None, list[str]]:
    reasons: list[str] = []
    return PackedFile.find(checkpoint, needs, reasons.append), reasons  # type: ignore[arg-type]


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def expected(checkpoint: Stored, name: str, dtype: str) -> bytes:
    """The bytes of a weight or tile by its short name, by plain torch."""
    group, _, rest = name.partition(".")
    if group == "layers":
        layer, short = rest.split(".")
        part = "attention" if short in ("wq", "wk", "wv", "wo") else "feed_forward"
        tensor = checkpoint.tensors[f"layers.{layer}.{part}.{short}.weight"]
    else:
        tied = group == "output" and not checkpoint.config.tied
        tensor = checkpoint.tensors["output.weight" if tied else "tok_embeddings.weight"]
        if rest:
            rows = needed(checkpoint.config, dtype).tile_rows
            tensor = tensor[rows[int(rest)] : rows[int(rest) + 1]]
    return raw(tensor.to(getattr(torch, dtype)))


def slot_of(source: FileSource) -> bytes:
    """What a lane puts into a slot that was full of other bytes; checksums are compared on the way."""
    slot = bytearray(b"\xff" * source.nbytes)
    for piece in source.pieces:
        data = source.file.read(piece.file_offset, piece.nbytes)
        assert piece.crc32 in (None, zlib.crc32(data))
        slot[piece.slot_offset : piece.slot_offset + piece.nbytes] = data
    return bytes(slot)


class TestContent:
    @pytest.mark.parametrize("dtype", TYPES)
    def test_weights_are_those_of_the_checkpoint(self, checkpoint: Stored, dtype: str) -> None:
        packed = made(checkpoint, needed(checkpoint.config, dtype))
        assert packed.weights.keys() == checkpoint.config.shapes().keys()
        kind = getattr(torch, dtype)
        with Reader() as reader:
            for name, weight in packed.weights.items():
                home = torch.full(weight.shape, torch.nan, dtype=kind)
                reader.fill(weight, home)
                assert torch.equal(home, checkpoint.tensors[name].to(kind)), name

    @pytest.mark.parametrize("dtype", TYPES)
    def test_units_lie_as_in_slots_on_pages_of_their_own(self, checkpoint: Stored, dtype: str) -> None:
        needs = needed(checkpoint.config, dtype)
        packed = made(checkpoint, needs)
        assert len(needs.tile_rows) > 3
        at = 0
        for unit in needs.units:
            source = packed.source(unit, [weight.name for weight in unit.weights])
            begin = source.pieces[0].file_offset
            assert begin >= at
            at = source.pieces[-1].file_offset + source.pieces[-1].nbytes
            if unit.name.startswith("layers."):
                assert begin % 4096 == 0
                assert all(piece.file_offset - begin == piece.slot_offset for piece in source.pieces)
        tiles = [packed.source(unit, [unit.name]).pieces[0] for unit in needs.units if "output" in unit.name]
        assert tiles[0].file_offset % 4096 == 0
        for one, other in pairwise(tiles):
            assert one.file_offset + one.nbytes == other.file_offset
        assert packed.nbytes % 4096 == 0

    @pytest.mark.parametrize("dtype", TYPES)
    def test_every_streamed_subset_fills_its_slot(self, checkpoint: Stored, dtype: str) -> None:
        needs = needed(checkpoint.config, dtype)
        packed = made(checkpoint, needs)
        for unit in needs.units:
            names = [weight.name for weight in unit.weights]
            for chosen in range(1, 2 ** len(names)):
                streamed = {name for i, name in enumerate(names) if chosen >> i & 1}
                slot = slot_of(packed.source(unit, streamed | {"layers.99.wq"}))
                at = 0
                for name in (name for name in names if name in streamed):
                    data = expected(checkpoint, name, dtype)
                    assert slot[at : at + len(data)] == data, name
                    at += len(data) if unit.name.startswith("output.") else -(-len(data) // 256) * 256
                assert len(slot) == at

    def test_a_unit_of_which_nothing_is_streamed(self, checkpoint: Stored) -> None:
        needs = needed(checkpoint.config)
        with pytest.raises(ValueError, match=r"layers\.0\.attention"):
            made(checkpoint, needs).source(needs.units[0], ["layers.0.w1"])

    @pytest.mark.parametrize("dtype", TYPES)
    def test_reading_whole_weights_by_short_names(self, checkpoint: Stored, dtype: str) -> None:
        needs = needed(checkpoint.config, dtype)
        packed = made(checkpoint, needs)
        names = [weight.name for unit in needs.units for weight in unit.weights] + ["output", "embeddings"]
        for name in names:
            data = expected(checkpoint, name, dtype)
            memory = torch.zeros(len(data), dtype=torch.uint8)
            packed.read(name, memory)
            assert raw(memory) == data, name
        with pytest.raises(ValueError, match="output"):
            packed.read("output", torch.zeros(8, dtype=torch.uint8))
        with pytest.raises(KeyError):
            packed.read("layers.9.wq", torch.zeros(8, dtype=torch.uint8))

    @pytest.mark.parametrize("dtype", TYPES)
    def test_parts(self, checkpoint: Stored, dtype: str) -> None:
        needs = needed(checkpoint.config, dtype)
        packed = made(checkpoint, needs)
        memory = torch.zeros(3, needs.embedding_row, dtype=torch.uint8)
        for name in ("embeddings", "output"):
            data = expected(checkpoint, name, dtype)
            assert packed.size(name) == len(data)
            for start in (0, 5, 57 * needs.embedding_row, 300 * needs.embedding_row):
                packed.read_part(name, start, memory[1])
                assert raw(memory[1]) == data[start:][: needs.embedding_row]
        assert not memory[0].any()
        assert not memory[2].any()
        for start in (-1, 300 * needs.embedding_row + 1):
            with pytest.raises(IndexError):
                packed.read_part("output", start, memory[1])

    @pytest.mark.parametrize("axis", [0, 1])
    def test_rows_of_a_weight_in_shards(self, tmp_path: Path, axis: int) -> None:
        tensor = torch.randn(31, 20)
        pieces = tensor.tensor_split([4, 11], dim=axis)
        (tmp_path / "f").write_bytes(b"".join(raw(piece) for piece in pieces))
        file, parts, at = SourceFile(tmp_path / "f"), [], 0
        for piece in pieces:
            parts.append(Part(file, at, tuple(piece.shape), torch.float32))
            at += piece.nbytes
        weight = Weight((31, 20), tuple(parts), axis)
        for start, stop in ((0, 31), (0, 4), (3, 5), (4, 11), (2, 30), (30, 31)):
            home = torch.empty(stop - start, 20)
            with Reader() as reader:
                reader.fill(rows_of(weight, start, stop), home)
            assert torch.equal(home, tensor[start:stop])


class TestFinding:
    def test_made_once(self, checkpoint: Stored, cache: Path) -> None:
        needs = needed(checkpoint.config)
        assert found(checkpoint, needs) == (None, [])
        events: list[Loading | Notice] = []
        one = find_or_pack(checkpoint, needs, events.append, lambda: False)  # type: ignore[arg-type]
        stamp = one.path.stat().st_mtime_ns
        assert one.path.parent == cache
        assert one.path.name.startswith("toy-float16-")
        count = len(events)
        other = find_or_pack(checkpoint, needs, events.append, lambda: False)  # type: ignore[arg-type]
        assert len(events) == count
        assert other.path.stat().st_mtime_ns == stamp

    def test_a_context_makes_no_difference_and_a_type_does(self, checkpoint: Stored) -> None:
        packed = made(checkpoint, needed(checkpoint.config))
        again, _ = found(checkpoint, needs_of(checkpoint.config, "float16", 32, 4))
        assert again is not None
        assert again.path == packed.path
        assert found(checkpoint, needed(checkpoint.config, "bfloat16")) == (None, [])

    @pytest.mark.parametrize("change", ["time", "size"])
    def test_a_changed_source_is_packed_anew_in_its_place(
        self, checkpoint: Stored, cache: Path, change: str
    ) -> None:
        needs = needed(checkpoint.config)
        made(checkpoint, needs)
        path, state = checkpoint.files[0].path, checkpoint.files[0].path.stat()
        if change == "time":
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        else:
            with path.open("ab") as file:
                file.write(b"more")
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        packed, reasons = found(checkpoint, needs)
        assert packed is None
        assert "changed" in reasons[0]
        events: list[Loading | Notice] = []
        find_or_pack(checkpoint, needs, events.append, lambda: False)  # type: ignore[arg-type]
        assert any(isinstance(event, Notice) and "changed" in event.text for event in events)
        assert len(packed_files.listing()) == 1
        assert found(checkpoint, needs)[0] is not None

    def test_other_files_of_the_same_name_have_a_packed_file_of_their_own(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        one, other = (store(tmp_path / folder / "toy.bin", CONFIG) for folder in "ab")
        assert made(one, needed(CONFIG)).path != made(other, needed(CONFIG)).path

    def test_a_synthetic_model_goes_by_its_name(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for name in ("toy", "other"):
            monkeypatch.setitem(SHAPES, name, CONFIG)
        made(SyntheticCheckpoint("toy"), needed(CONFIG))
        monkeypatch.chdir(tmp_path)
        packed, _ = found(SyntheticCheckpoint("toy"), needed(CONFIG))
        assert packed is not None
        packed.verify()
        assert found(SyntheticCheckpoint("other"), needed(CONFIG)) == (None, [])

    def test_a_name_that_is_no_file_name(self, checkpoint: Stored, cache: Path) -> None:
        checkpoint.name = "../über\n" + "x" * 300
        assert made(checkpoint, needed(checkpoint.config)).path.parent == cache

    def test_other_sizes_with_as_many_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(SHAPES, "toy", CONFIG)
        made(SyntheticCheckpoint("toy"), needed(CONFIG))
        monkeypatch.setitem(SHAPES, "toy", replace(CONFIG, n_heads=2, n_kv_heads=1, head_dim=12))
        assert found(SyntheticCheckpoint("toy"), needed(SHAPES["toy"]))[0] is None


class TestDamage:
    @pytest.fixture
    def packed(self, checkpoint: Stored) -> PackedFile:
        return made(checkpoint, needed(checkpoint.config))

    def test_no_header_is_believed_and_none_crashes(self, checkpoint: Stored, packed: PackedFile) -> None:
        needs, whole, draw = needed(checkpoint.config), packed.path.read_bytes(), random.Random(7)
        length = int.from_bytes(whole[12:16], "little")
        for _ in range(300):
            data = bytearray(whole)
            place = draw.randrange(20 + length) if draw.random() < 0.7 else draw.randrange(20)
            data[place] ^= 1 << draw.randrange(8)
            packed.path.write_bytes(data)
            assert found(checkpoint, needs)[0] is None, place
        for count in (0, 1, 19, 20, 21, 20 + length, 4096, len(whole) - 1, len(whole) + 1):
            packed.path.write_bytes((whole + b"\0")[:count])
            file, reasons = found(checkpoint, needs)
            assert file is None, count
            assert str(packed.path) in reasons[0]

    @pytest.mark.parametrize(
        "text", [b"", b"[]", b"null", b"{}", b"[" * 100_000, b'{"identity":{},"sections":[[]]}', b"\xff"]
    )
    def test_a_header_of_something_else(self, checkpoint: Stored, packed: PackedFile, text: bytes) -> None:
        head = packed.path.read_bytes()[:12] + len(text).to_bytes(4, "little")
        packed.path.write_bytes(head + zlib.crc32(text).to_bytes(4, "little") + text)
        file, reasons = found(checkpoint, needed(checkpoint.config))
        assert file is None
        assert len(reasons) == 1

    def test_another_version(self, checkpoint: Stored, packed: PackedFile) -> None:
        data = bytearray(packed.path.read_bytes())
        data[8] += 1
        packed.path.write_bytes(data)
        assert "version" in found(checkpoint, needed(checkpoint.config))[1][0]

    def test_every_flipped_byte_of_the_data_is_found(self, checkpoint: Stored, packed: PackedFile) -> None:
        needs, whole = needed(checkpoint.config), packed.path.read_bytes()
        seen: list[int] = []
        packed.verify(seen.append)
        assert sum(seen) == sum(weight.nbytes for weight in packed.weights.values())
        for name in ("layers.1.wk", "output", "embeddings"):
            memory = torch.zeros(len(expected(checkpoint, name, "float16")), dtype=torch.uint8)
            data = bytearray(whole)
            data[whole.index(expected(checkpoint, name, "float16")) + len(memory) // 2] ^= 1
            packed.path.write_bytes(data)
            damaged, _ = found(checkpoint, needs)
            assert damaged is not None
            with pytest.raises(UserError, match="damaged") as caught:
                damaged.verify()
            assert str(packed.path) in str(caught.value)
            with pytest.raises(UserError, match="damaged"):
                damaged.read(name, memory)

    def test_a_file_that_shrinks_while_it_is_read(self, checkpoint: Stored, packed: PackedFile) -> None:
        os.truncate(packed.path, 5000)
        with pytest.raises(UserError, match="cut short"):
            packed.verify()

    def test_a_folder_in_its_place(self, checkpoint: Stored, packed: PackedFile) -> None:
        packed.path.unlink()
        packed.path.mkdir()
        assert found(checkpoint, needed(checkpoint.config))[0] is None
        with pytest.raises(UserError, match="LLAMA_TUI_CACHE"):
            made(checkpoint, needed(checkpoint.config))


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
