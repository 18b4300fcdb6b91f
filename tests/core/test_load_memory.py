"""What a load takes besides the weights' own memory, for every container and pair of types."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core.model.config import ModelConfig
from tests.fuzz_originals import GGUF_NAMES, HF_NAMES, sentencepiece_model

pytestmark = pytest.mark.alone

# 40 million weights, nearly all of them in three matrices: a copy of one would show.
CONFIG = ModelConfig(
    dim=512, n_layers=1, n_heads=8, n_kv_heads=8, head_dim=64, hidden_dim=24576, vocab_size=321, norm_eps=1e-5
)
# Bytes above the weights; in float32 one matrix has 50 million. Choosing kernels leaves some behind.
ALLOWED = 40e6

CHILD = """
import json, sys
import torch
import core.engine.load
from core.checkpoint import reader
from core.engine.events import Loading
from core.errors import Cancelled
from core.monitor import process_memory
from core.options import LoadOptions

def anon():
    memory = process_memory()
    return memory["RssAnon"] + memory.get("RssShmem", 0)

import gguf.quants
torch.ones(64, 64) @ torch.ones(64, 64)
before, peak = anon(), 0
tick = reader.Reader._finish

def finish(self, piece):
    global peak
    tick(self, piece)
    peak = max(peak, anon())

reader.Reader._finish = finish
def load(cancelled):
    return core.engine.load.load(
        LoadOptions(sys.argv[1], device="cpu", dtype=sys.argv[2], context=64), lambda event: None, cancelled
    )

count = 0
def soon():
    global count
    count += 1
    return count > 8

try:
    load(soon)
except Cancelled:
    pass  # the error holds what it came through
cancelled = anon() - before
peak = 0
engine = load(lambda: False)
print(json.dumps({
    "weights": engine.info.weight_bytes, "peak": peak - before, "cancelled": cancelled, "count": count
}))
"""


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return {name: torch.randn(shape) for name, shape in CONFIG.shapes().items()}


def meta(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    params = {"dim": 512, "n_layers": 1, "n_heads": 8, "vocab_size": -1, "norm_eps": 1e-5}
    (folder / "params.json").write_text(json.dumps(params))
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    for i in range(2):
        shard = {}
        for name, tensor in weights.items():
            axis = {"wo": 1, "w2": 1, "tok_embeddings": 1}.get(name.split(".")[-2], 0)
            part = tensor if tensor.ndim == 1 else tensor.tensor_split(2, dim=axis)[i]
            shard[name] = part.half().contiguous()
        torch.save(shard, folder / f"consolidated.0{i}.pth")
    return folder


def huggingface(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    table = {
        "model_type": "llama", "hidden_size": 512, "num_hidden_layers": 1, "num_attention_heads": 8,
        "intermediate_size": 24576, "vocab_size": 321, "max_position_embeddings": 128,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(table))
    (folder / "tokenizer.model").write_bytes(sentencepiece_model())
    theirs = {}
    for name, tensor in weights.items():
        words = name.split(".")
        prefix = f"model.layers.{words[1]}." if words[0] == "layers" else ""
        theirs[f"{prefix}{HF_NAMES[words[-2]]}.weight"] = tensor.bfloat16()
    save_file(theirs, folder / "model.safetensors")
    return folder


def gguf_file(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama")
    sizes = {"block_count": 1, "context_length": 128, "embedding_length": 512, "feed_forward_length": 24576}
    for key, value in (sizes | {"attention.head_count": 8}).items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "a"])
    writer.add_token_scores([0.0] * 260)
    writer.add_token_types([2, 3, 3, *[6] * 256, 1])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    random = np.random.default_rng(0)
    for name, tensor in weights.items():
        words = name.split(".")
        prefix = f"blk.{words[1]}." if words[0] == "layers" else ""
        values, kind = tensor.numpy(), None
        if tensor.ndim == 2:  # Q6_K: 256 values in 210 bytes, the last two a float16 scale
            kind = gguf.GGMLQuantizationType.Q6_K
            rows, columns = values.shape
            values = random.integers(0, 256, (rows, columns // 256, 210), dtype=np.uint8)
            values[..., 208:] = np.frombuffer(np.float16(0.001).tobytes(), np.uint8)
            values = values.reshape(rows, -1)
        writer.add_tensor(f"{prefix}{GGUF_NAMES[words[-2]]}.weight", values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("write", "dtypes"),
    [(meta, ("bfloat16",)), (huggingface, ("float32",)), (gguf_file, ("float16",))],
)
def test_a_load_takes_little_more_than_the_weights(
    tmp_path: Path,
    weights: dict[str, torch.Tensor],
    write: Callable[[Path, dict[str, torch.Tensor]], Path],
    dtypes: tuple[str, ...],
) -> None:
    folder = write(tmp_path, weights)
    for dtype in dtypes:
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(folder), dtype], capture_output=True, text=True, timeout=100
        )
        assert child.returncode == 0, child.stderr
        got = json.loads(child.stdout)
        assert got["peak"] < got["weights"] + ALLOWED, dtype
        assert got["count"] == 9
        assert got["cancelled"] < ALLOWED, dtype
