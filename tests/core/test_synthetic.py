"""Random models: fixed bytes, sound values, the protocol of every other checkpoint."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from core.checkpoint.reader import Reader
from core.checkpoint.synthetic import SyntheticCheckpoint, SyntheticFile
from core.errors import UserError
from core.model.cache import KVCache
from core.model.config import ModelConfig
from core.model.shapes import SHAPES
from core.model.transformer import Transformer

DEEP = ModelConfig(
    dim=64, n_layers=80, n_heads=4, n_kv_heads=2, head_dim=16, hidden_dim=176, vocab_size=500, norm_eps=1e-5
)


def first_bytes(name: str, count: int, model: str = "7b", offset: int = 0) -> bytes:
    (part,) = SyntheticCheckpoint(model).weights[name].parts
    return part.file.read(offset, count)


def values(model: str, name: str) -> torch.Tensor:
    weight = SyntheticCheckpoint(model).weights[name]
    home = torch.full(weight.shape, torch.nan, dtype=torch.float16)
    with Reader() as reader:
        reader.fill(weight, home)
    return home.float()


def read_model(name: str, dtype: torch.dtype) -> Transformer:
    checkpoint = SyntheticCheckpoint(name)
    with torch.device("meta"):
        model = Transformer(checkpoint.config)
    homes = {key: torch.empty(weight.shape, dtype=dtype) for key, weight in checkpoint.weights.items()}
    with Reader() as reader:
        for key, weight in checkpoint.weights.items():
            reader.fill(weight, homes[key])
    model.load_state_dict(homes, strict=True, assign=True)
    return model.requires_grad_(False).eval()


@pytest.mark.parametrize("name", ["1b", "7b", "13b", "70b"])
def test_it_has_every_weight_of_its_shape(name: str) -> None:
    checkpoint = SyntheticCheckpoint(name)
    assert checkpoint.name == f"synthetic-{name}"
    assert checkpoint.config == SHAPES[name]
    assert list(checkpoint.weights) == list(SHAPES[name].shapes())
    for key, shape in SHAPES[name].shapes().items():
        weight = checkpoint.weights[key]
        assert weight.shape == shape
        assert weight.float_type == checkpoint.stored_dtype == torch.float16
        assert [part.file.size for part in weight.parts] == [weight.nbytes]
    assert any("random" in note for note in checkpoint.notes)
    assert checkpoint.tokenizer().vocab_size == SHAPES[name].vocab_size
    checkpoint.close()


def test_an_unknown_shape_is_refused_with_the_choices() -> None:
    with pytest.raises(UserError, match=r"3b.*1b, 7b, 13b, 70b"):
        SyntheticCheckpoint("3b")


def test_the_bytes_never_change() -> None:
    """A published promise: the same in every process, on every platform, with every torch."""
    names = ["tok_embeddings.weight", "layers.3.feed_forward.w2.weight", "norm.weight"]
    digest = hashlib.sha256(b"".join(first_bytes(name, 8192) for name in names))
    assert digest.hexdigest()[:16] == "6450c7d4c4a3d576"


def test_the_bytes_do_not_depend_on_the_process() -> None:
    program = (
        "import sys; from core.checkpoint.synthetic import SyntheticCheckpoint as C;"
        "p = C('1b').weights['layers.1.attention.wq.weight'].parts[0]; print(p.file.read(12345, 99).hex())"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == first_bytes("layers.1.attention.wq.weight", 99, "1b", 12345).hex()


def test_they_follow_from_name_and_shape_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "deep", DEEP)
    monkeypatch.setitem(SHAPES, "narrow", ModelConfig(64, 2, 4, 2, 16, 96, 500, 1e-5))
    same, other = "layers.1.attention.wq.weight", "layers.1.feed_forward.w1.weight"
    assert first_bytes(same, 500, "deep") == first_bytes(same, 500, "narrow")
    assert first_bytes(other, 500, "deep") != first_bytes(other, 500, "narrow")
    assert first_bytes(same, 500, "deep") != first_bytes("layers.0.attention.wq.weight", 500, "deep")


def test_matrices_are_normally_distributed() -> None:
    matrix = values("1b", "layers.0.feed_forward.w1.weight")
    assert matrix.isfinite().all()
    scaled = matrix * matrix.shape[1] ** 0.5
    assert abs(float(scaled.mean())) < 0.005
    assert float(scaled.std()) == pytest.approx(1, rel=0.03)
    for bound, share in ((1, 0.6827), (2, 0.9545)):  # of a normal distribution
        assert float((scaled.abs() < bound).float().mean()) == pytest.approx(share, abs=0.02)


def test_rows_differ_from_each_other() -> None:
    rows = torch.nn.functional.normalize(values("1b", "output.weight")[::40], dim=1)
    likeness = (rows @ rows.T).fill_diagonal_(0)
    assert float(likeness.abs().max()) < 0.15  # 6 standard deviations of chance


def test_what_is_added_to_the_residual_is_small_beside_the_embedding() -> None:
    assert float(values("1b", "tok_embeddings.weight").std()) == pytest.approx(1, rel=0.03)
    for name, columns in (("attention.wo", 2048), ("feed_forward.w2", 5632)):
        spread = float(values("1b", f"layers.7.{name}.weight").std())
        assert spread == pytest.approx(0.25 * columns**-0.5, rel=0.03)


def test_norms_lie_around_one() -> None:
    norm = values("7b", "layers.5.ffn_norm.weight")
    assert float(norm.mean()) == pytest.approx(1, abs=0.05)
    assert 0.5 < float(norm.min()) < float(norm.max()) < 1.5


def test_eighty_layers_stay_finite_in_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "deep", DEEP)
    model = read_model("deep", torch.float16)
    model.prepare(32, torch.device("cpu"))
    cache = KVCache(DEEP, 32, torch.float32, torch.device("cpu"))
    tokens = [1, 2, 3]
    for _ in range(12):
        todo = tokens[cache.length :]
        logits = model(torch.tensor(todo), cache)
        cache.commit(todo)
        assert logits.isfinite().all()
        assert 0.3 < float(logits.std()) < 10
        tokens.append(int(logits[-1].argmax()))
    assert len(set(tokens[3:])) > 3  # what came before makes a difference


def test_any_range_is_that_part_of_the_whole() -> None:
    (part,) = SyntheticCheckpoint("1b").weights["output.weight"].parts
    whole, draw = part.file.read(0, 9 * 2**20), random.Random(5)
    for _ in range(50):
        start = draw.randrange(len(whole))
        stop = min(len(whole), start + draw.choice([0, 1, 7, 4096, 3 * 2**20]))
        assert part.file.read(start, stop - start) == whole[start:stop]


def test_nothing_outside_the_buffer_is_written_or_read() -> None:
    (part,) = SyntheticCheckpoint("1b").weights["norm.weight"].parts
    around = bytearray(b"x" * 100)
    part.file.read_into(memoryview(around)[10:90], 3)
    assert around[:10] == around[90:] == b"x" * 10
    assert around[10:90] == part.file.read(3, 80)
    for offset in (-1, part.nbytes - 79):
        with pytest.raises(ValueError, match="80 bytes"):
            part.file.read_into(bytearray(80), offset)


def test_two_threads_read_at_once() -> None:
    (part,) = SyntheticCheckpoint("1b").weights["output.weight"].parts
    size = 2**20
    expected = [hashlib.sha256(part.file.read(i * size, size)).digest() for i in range(40)]
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda i: hashlib.sha256(part.file.read(i * size, size)).digest(), range(40))
        assert list(found) == expected


def test_a_model_holds_some_megabytes_only() -> None:
    files = [part.file for weight in SyntheticCheckpoint("70b").weights.values() for part in weight.parts]
    assert all(isinstance(file, SyntheticFile) for file in files)
    tables = {id(file._table): len(file._table) for file in files if isinstance(file, SyntheticFile)}
    assert sum(tables.values()) < 8 * 10**6
