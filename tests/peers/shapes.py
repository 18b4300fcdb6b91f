"""The shapes to compare on: those of `--synthetic`, and a tiny one for trying the script itself."""

from __future__ import annotations

from core.model.config import ModelConfig
from core.model.shapes import SHAPES

TINY = ModelConfig(
    dim=256, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=64, hidden_dim=512, vocab_size=1024,
    norm_eps=1e-5, max_context=2048,
)  # fmt: skip


def add_tiny() -> None:
    """Make "tiny" a shape in this process, which it is not for anyone else."""
    SHAPES["tiny"] = TINY


def parameters(config: ModelConfig) -> int:
    """Numbers in all weights together."""
    return sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in config.shapes().values())
