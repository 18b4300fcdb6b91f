"""The sizes of well-known Llamas, by the names that `--synthetic` takes. No torch."""

from __future__ import annotations

from core.model.config import ModelConfig


def _llama2(dim: int, layers: int, heads: int, kv_heads: int, hidden_dim: int) -> ModelConfig:
    return ModelConfig(
        dim=dim,
        n_layers=layers,
        n_heads=heads,
        n_kv_heads=kv_heads,
        head_dim=128,
        hidden_dim=hidden_dim,
        vocab_size=32000,
        norm_eps=1e-5,
        max_context=4096,
    )


SHAPES: dict[str, ModelConfig] = {
    "1b": ModelConfig(
        dim=2048,
        n_layers=22,
        n_heads=32,
        n_kv_heads=4,
        head_dim=64,
        hidden_dim=5632,
        vocab_size=32000,
        norm_eps=1e-5,
        max_context=2048,
    ),
    "7b": _llama2(4096, 32, 32, 32, 11008),
    "13b": _llama2(5120, 40, 40, 40, 13824),
    "70b": _llama2(8192, 80, 64, 8, 28672),
}
"""TinyLlama 1.1B, and Llama 2 in its three sizes."""
