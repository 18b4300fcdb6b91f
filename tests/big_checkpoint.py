"""Writes a checkpoint in Meta's layout with random weights, to measure how large ones are loaded.

python -m tests.big_checkpoint FOLDER --shape 7b --shards 2 --tokenizer tokenizer.model
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from core.model.config import ModelConfig

# dim, layers, heads, key heads, hidden: TinyLlama 1.1B, Llama 2 7B and 13B.
SHAPES = {
    "1b": (2048, 22, 32, 4, 5632),
    "7b": (4096, 32, 32, 32, 11008),
    "13b": (5120, 40, 40, 40, 13824),
}
VOCABULARY = 32000
_SPLIT = {"wo": 1, "w2": 1, "tok_embeddings": 1}  # Llama 2's model-parallel layers; the others on dimension 0


def write(folder: Path, shape: str, shards: int, dtype: torch.dtype, tokenizer: Path) -> None:
    """Takes as much memory as one shard."""
    dim, n_layers, n_heads, n_kv_heads, hidden = SHAPES[shape]
    config = ModelConfig(
        dim=dim, n_layers=n_layers, n_heads=n_heads, n_kv_heads=n_kv_heads, head_dim=dim // n_heads,
        hidden_dim=hidden, vocab_size=VOCABULARY, norm_eps=1e-5,
    )  # fmt: skip
    folder.mkdir(parents=True)
    params = {"dim": dim, "n_layers": n_layers, "n_heads": n_heads, "n_kv_heads": n_kv_heads}
    (folder / "params.json").write_text(json.dumps(params | {"norm_eps": 1e-5, "vocab_size": -1}))
    shutil.copy(tokenizer, folder / "tokenizer.model")
    for i in range(shards):
        table = {}
        for name, size in config.shapes().items():
            if len(size) == 1:
                table[name] = torch.ones(size, dtype=dtype)
                continue
            part = list(size)
            part[_SPLIT.get(name.split(".")[-2], 0)] //= shards
            table[name] = torch.empty(part, dtype=dtype).normal_(std=0.02)
        torch.save(table, folder / f"consolidated.{i:02d}.pth")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--shards", type=int, choices=(1, 2, 4), default=1)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float16")
    parser.add_argument("--tokenizer", type=Path, required=True, help="of 32000 tokens")
    given = parser.parse_args()
    write(given.folder, given.shape, given.shards, getattr(torch, given.dtype), given.tokenizer)


if __name__ == "__main__":
    main()
