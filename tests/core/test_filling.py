"""From files to formats in parts and chunks, against quantising the whole, and against the gguf package."""

from __future__ import annotations

import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from torch import Tensor

from core.checkpoint import find, open_checkpoint
from core.checkpoint.reader import Reader
from core.checkpoint.source import BlockType, Part, SourceFile, Weight, rows_of
from core.engine import filling
from core.engine.filling import chunk_rows, start_filling
from core.engine.load import load
from core.errors import UserError
from core.native.build import Build
from core.options import LoadOptions
from core.weights import nibbles
from core.weights.bnb import offline
from core.weights.formats import pack, values, views
from core.weights.layouts import FLOATS, size_of
from core.weights.matrix import Matrix
from tests.core.reading import store

QUANTISED = ("int8", "int4", "int4-128", "nf4")
COLUMNS = 128


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small matrices come in several chunks of several shares, the last ones shorter."""
    monkeypatch.setattr(filling, "_CHUNK", 50 * COLUMNS)
    monkeypatch.setattr(filling, "_SHARE", 16 * COLUMNS)
    monkeypatch.setattr(nibbles, "_CHUNK", 16 * COLUMNS)


def normal(rows: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return (torch.randn(rows, COLUMNS, generator=torch.Generator().manual_seed(rows)) * 0.05).to(dtype)


def filled(weight: Weight, format: str, threads: int = 1) -> dict[str, Tensor]:
    """The tensors of a weight in a format; what lies between them is left as it was."""
    rows, columns = weight.shape
    memory = torch.full((size_of(format, rows, columns),), 0xA5, dtype=torch.uint8)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with Reader() as reader:
            start_filling(reader, weight, format, memory)
            reader.finish()
    finally:
        torch.set_num_threads(before)
    return views(format, rows, columns, memory)


def whole(format: str, source: Tensor) -> dict[str, Tensor]:
    rows, columns = source.shape
    pieces = views(format, rows, columns, torch.zeros(size_of(format, rows, columns), dtype=torch.uint8))
    pack(format, source, pieces)
    return pieces


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("format", [*FLOATS, *QUANTISED])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("threads", [1, 3])
def test_parts_on_either_axis(tmp_path: Path, format: str, axis: int, threads: int) -> None:
    source = normal(205)
    parts = store(tmp_path / "f", *source.tensor_split([37, 100], dim=axis))
    found = filled(Weight((205, COLUMNS), parts, axis), format, threads)
    assert_same(found, whole(format, source))


@pytest.mark.parametrize("format", QUANTISED)
@pytest.mark.parametrize("rows", [1, 15, 16, 17, 47, 48, 49, 96, 97])
def test_ends_of_chunks(tmp_path: Path, format: str, rows: int) -> None:
    source = normal(rows)
    assert_same(
        filled(Weight((rows, COLUMNS), store(tmp_path / "f", source)), format, 2), whole(format, source)
    )


@pytest.mark.parametrize("format", ["float16", *QUANTISED])
@pytest.mark.parametrize(("rows", "head_dim"), [(216, 24), (192, 64), (200, 8), (250, 2)])
def test_hugging_faces_rotary_order(tmp_path: Path, format: str, rows: int, head_dim: int) -> None:
    meta = normal(rows)
    theirs = meta.view(-1, head_dim // 2, 2, COLUMNS).transpose(1, 2).reshape(rows, COLUMNS)
    weight = Weight((rows, COLUMNS), store(tmp_path / "f", theirs), head_dim=head_dim)
    assert_same(filled(weight, format), whole(format, meta))
    assert chunk_rows(weight) % 16 == chunk_rows(weight) % head_dim == 0


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("format", QUANTISED)
def test_from_other_floats(tmp_path: Path, stored: torch.dtype, format: str) -> None:
    """The codes are those of the values in float16."""
    source = normal(70, stored)
    found = filled(Weight((70, COLUMNS), store(tmp_path / "f", source)), format)
    assert_same(found, whole(format, source.half()))


def test_some_rows_of_a_weight(tmp_path: Path) -> None:
    """As the tiles of a head are: of parts below one another, and in rotary order."""
    source = normal(205)
    weight = Weight((205, COLUMNS), store(tmp_path / "f", *source.tensor_split([37, 100])))
    for start, stop in ((0, 75), (75, 150), (30, 205), (36, 38), (100, 101)):
        part = rows_of(weight, start, stop)
        assert part.shape == (stop - start, COLUMNS)
        assert_same(filled(part, "int4"), whole("int4", source[start:stop]))
        assert_same(filled(part, "float32"), whole("float32", source[start:stop]))
    theirs = source[:204].view(-1, 6, 2, COLUMNS).transpose(1, 2).reshape(204, COLUMNS)
    turned = Weight((204, COLUMNS), store(tmp_path / "g", theirs), head_dim=12)
    assert_same(filled(rows_of(turned, 24, 132), "int8"), whole("int8", source[24:132]))
    for start, stop in ((6, 24), (0, 16)):
        with pytest.raises(ValueError, match="heads of 12"):
            rows_of(turned, start, stop)


@pytest.mark.parametrize("format", QUANTISED)
@pytest.mark.parametrize("threads", [1, 3])
def test_values_beyond_float16(tmp_path: Path, format: str, threads: int) -> None:
    source = normal(205, torch.bfloat16)
    source[130, 5] = 1e6
    weight = Weight((205, COLUMNS), store(tmp_path / "model.bin", source))
    with pytest.raises(UserError, match=rf"model\.bin: it has values beyond float16.*{format}.*--quant none"):
        filled(weight, format, threads)


def test_what_there_is_no_way_to(tmp_path: Path) -> None:
    weight = Weight((16, COLUMNS), store(tmp_path / "f", normal(16)))
    with pytest.raises(ValueError, match="q8_0"):
        filled(weight, "q8_0")


class TestSpread:
    """What several threads do at once."""

    @pytest.mark.parametrize("threads", [1, 3])
    def test_all_of_it_and_each_alone(self, threads: int) -> None:
        before, done = torch.get_num_threads(), []
        torch.set_num_threads(threads)
        try:
            with Reader() as reader:
                reader.spread(lambda i: done.append((i, torch.get_num_threads())), 20)
                reader.spread(lambda i: done.append((99, 0)), 0)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        assert sorted(done) == [(i, 1) for i in range(20)]

    def test_a_failure_waits_for_the_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
        failed, ended = threading.Event(), []

        def work(i: int) -> None:
            if i == 0:
                failed.set()
                raise UserError("the first")
            assert failed.wait(10)
            ended.append(i)

        with Reader() as reader:
            with pytest.raises(UserError, match="the first"):
                reader.spread(work, 6)
            assert sorted(ended) == [1, 2, 3, 4, 5]


def test_bitsandbytes_is_hidden_until_the_last_thread_is_done() -> None:
    logger, both, one_left = logging.getLogger("bitsandbytes"), threading.Barrier(2), threading.Event()

    def work(i: int) -> None:
        with offline():
            both.wait(20)
            if i:
                assert one_left.wait(20)
                assert sys.modules["kernels"] is None
                assert logger.level > logging.CRITICAL
        one_left.set()

    with ThreadPoolExecutor(2) as pool:
        assert [*pool.map(work, range(2))] == [None, None]
    assert "kernels" not in sys.modules
    assert logger.level == logging.NOTSET


BLOCKS = {Type.Q8_0: "q8_0", Type.Q4_0: "q4_0", Type.Q4_1: "q4_1"}


def block_weight(path: Path, kind: Type, rows: int) -> tuple[Weight, Tensor]:
    """A weight in blocks, and its values by the gguf package."""
    data = gguf.quants.quantize(normal(rows).float().numpy(), kind)
    path.write_bytes(data.tobytes())
    size, nbytes = gguf.GGML_QUANT_SIZES[kind]
    part = Part(SourceFile(path), 0, (rows, COLUMNS), BlockType(kind.name, size, nbytes))
    return Weight((rows, COLUMNS), (part,)), torch.from_numpy(gguf.quants.dequantize(data, kind))


@pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("rows", [1, 16, 47, 97, 205])
def test_blocks_in_chunks(tmp_path: Path, kind: Type, rows: int) -> None:
    weight, expected = block_weight(tmp_path / "f", kind, rows)
    format = BLOCKS[kind]
    found = filled(weight, format)
    assert torch.equal(values(format, found, rows, COLUMNS, 0, rows), expected)
    for some in FLOATS:
        assert torch.equal(filled(weight, some)["values"], expected.to(getattr(torch, some)))
    assert_same(filled(weight, "int8"), whole("int8", expected.half()))


@pytest.mark.parametrize(("start", "stop"), [(0, 75), (75, 150), (150, 205)])
def test_some_rows_of_blocks(tmp_path: Path, start: int, stop: int) -> None:
    weight, expected = block_weight(tmp_path / "f", Type.Q4_0, 205)
    found = filled(rows_of(weight, start, stop), "q4_0")
    assert torch.equal(values("q4_0", found, stop - start, COLUMNS, 0, stop - start), expected[start:stop])


HIDDEN, VOCABULARY, KV = 160, 43, 32
SHAPES = {
    "token_embd": (VOCABULARY, COLUMNS), "output": (VOCABULARY, COLUMNS), "output_norm": (COLUMNS,),
    "blk.0.attn_norm": (COLUMNS,), "blk.0.ffn_norm": (COLUMNS,), "blk.0.attn_q": (COLUMNS, COLUMNS),
    "blk.0.attn_k": (KV, COLUMNS), "blk.0.attn_v": (KV, COLUMNS), "blk.0.attn_output": (COLUMNS, COLUMNS),
    "blk.0.ffn_gate": (HIDDEN, COLUMNS), "blk.0.ffn_up": (HIDDEN, COLUMNS),
    "blk.0.ffn_down": (COLUMNS, HIDDEN),
}  # fmt: skip
KINDS = {
    "output": Type.Q8_0, "blk.0.attn_q": Type.Q4_0, "blk.0.attn_k": Type.Q4_0, "blk.0.attn_v": Type.Q8_0,
    "blk.0.ffn_gate": Type.Q4_0, "blk.0.ffn_up": Type.Q4_1, "blk.0.ffn_down": Type.Q4_0,
    "blk.0.attn_output": Type.Q5_0,
}  # fmt: skip
OURS = {
    "blk.0.attn_q": "layers.0.attention.wq", "blk.0.attn_k": "layers.0.attention.wk",
    "blk.0.attn_v": "layers.0.attention.wv", "blk.0.attn_output": "layers.0.attention.wo",
    "blk.0.ffn_gate": "layers.0.feed_forward.w1", "blk.0.ffn_down": "layers.0.feed_forward.w2",
    "blk.0.ffn_up": "layers.0.feed_forward.w3", "output": "output.0",
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A Llama of one block as a GGUF file, its matrices in several kinds of blocks."""
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(COLUMNS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(4)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([f"<{i}>" for i in range(VOCABULARY - 9)] + [*"abcdefgh", "ab"])
    writer.add_token_types([3] * (VOCABULARY - 9) + [1] * 9)
    writer.add_token_merges(["a b"])
    random = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        kind = KINDS.get(name, Type.F32)
        numbers = random.standard_normal(shape, dtype=np.float32)
        stored = gguf.quants.quantize(numbers, kind)
        writer.add_tensor(f"{name}.weight", stored, raw_dtype=None if kind == Type.F32 else kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def matrices(path: Path, **options: str) -> dict[str, Matrix]:
    """A loaded model's matrices under GGUF's names."""
    engine = load(
        LoadOptions(str(path), device="cpu", context=32, **options), lambda event: None, lambda: False
    )
    found = {name: module for name, module in engine.model.named_modules() if isinstance(module, Matrix)}
    return {theirs: found[ours] for theirs, ours in OURS.items()}


def by_gguf(path: Path) -> dict[str, Tensor]:
    return {
        tensor.name.removesuffix(".weight"): torch.from_numpy(
            gguf.quants.dequantize(tensor.data.copy(), tensor.tensor_type)
        )
        for tensor in gguf.GGUFReader(path).tensors
    }


class TestFiles:
    """Whole GGUF files, loaded."""

    def test_blocks_are_kept(self, model: Path) -> None:
        if Build().wait() is None:
            pytest.skip("no compiled kernels")
        expected = by_gguf(model)
        for name, matrix in matrices(model).items():
            kept = BLOCKS.get(KINDS[name], "float16")
            assert matrix.format == kept, name
            found = values(matrix.format, matrix.pieces, matrix.rows, matrix.columns, 0, matrix.rows)
            assert torch.equal(found, expected[name].half().float() if kept == "float16" else expected[name])

    @pytest.mark.parametrize(
        "options", [{"dtype": "float16"}, {"kernels": "torch"}], ids=["dtype", "kernels"]
    )
    def test_blocks_become_floats(self, model: Path, options: dict[str, str]) -> None:
        expected = by_gguf(model)
        for name, matrix in matrices(model, **options).items():
            assert matrix.format == "float16", name
            assert torch.equal(matrix.pieces["values"], expected[name].half()), name

    def test_blocks_are_quantised_anew_where_that_is_asked_for(self, model: Path) -> None:
        expected = by_gguf(model)
        for name, matrix in matrices(model, quant="int4").items():
            assert matrix.format == ("int8" if name == "output" else "int4"), name
            assert_same(dict(matrix.pieces), whole(matrix.format, expected[name].half()))

    def test_the_embedding_is_as_the_file_has_it(self, model: Path) -> None:
        checkpoint = open_checkpoint(find(str(model)))
        embedding = torch.empty(VOCABULARY, COLUMNS)
        with Reader() as reader:
            reader.fill(checkpoint.weights["tok_embeddings.weight"], embedding)
        checkpoint.close()
        assert torch.equal(embedding, by_gguf(model)["token_embd"])
