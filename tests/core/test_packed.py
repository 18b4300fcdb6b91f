"""The packed file against plain torch: its bytes, its slots, how it is found, and damage of every kind."""

from __future__ import annotations

import os
import random
import zlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from core.checkpoint.reader import Reader
from core.checkpoint.source import Part, SourceFile, Weight
from core.checkpoint.synthetic import SyntheticCheckpoint
from core.engine.events import Loading, Notice
from core.engine.packing import find_or_pack, rows_of
from core.errors import UserError
from core.model.shapes import SHAPES
from core.weights import packed_files
from core.weights.needs import needs_of
from core.weights.packed import PackedFile
from tests.core.packed_checkpoints import (
    CONFIG,
    TYPES,
    Stored,
    cache,
    checkpoint,
    config,
    expected,
    found,
    made,
    needed,
    raw,
    slot_of,
    store,
)

__all__ = ["cache", "checkpoint", "config"]


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
