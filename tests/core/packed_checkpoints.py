"""A small checkpoint whose weights are known, and its packed file: what tests of it share."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from core.checkpoint import Checkpoint
from core.checkpoint.source import Part, SourceFile, Weight
from core.engine.packing import pack
from core.model.config import ModelConfig
from core.weights import needs as needs_module
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
