"""Our random weights as tensors, and the network of `transformers` that is made of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from core.checkpoint.reader import Reader
from core.checkpoint.synthetic import SyntheticCheckpoint
from core.model.config import ModelConfig

_IN_BLOCK = {
    "attention_norm": "input_layernorm",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}
_OUTSIDE = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def tensors(checkpoint: SyntheticCheckpoint, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Meta's name and the values of every weight, one after another."""
    with Reader() as reader:
        for name, weight in checkpoint.weights.items():
            home = torch.empty(weight.shape, dtype=dtype)
            reader.fill(weight, home)
            yield name, home


def their_name(name: str) -> str:
    """What `transformers` calls a weight that Meta calls `name`."""
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    _, layer, inside = name.split(".", 2)
    return f"model.layers.{layer}.{_IN_BLOCK[inside.removesuffix('.weight')]}.weight"


def their_order(name: str, weight: Tensor, head_dim: int) -> Tensor:
    """Rows of wq and wk as `transformers` has them: a head's rotary pairs in halves, not side by side."""
    if not name.endswith(("wq.weight", "wk.weight")):
        return weight
    return weight.view(-1, head_dim // 2, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def transformers_model(config: ModelConfig, weights: Iterator[tuple[str, Tensor]], dtype: torch.dtype) -> Any:
    """A LlamaForCausalLM of these weights; it keeps their memory. ModuleNotFoundError without the library."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = LlamaConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.dim,
        intermediate_size=config.hidden_dim,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.max_context,
        rms_norm_eps=config.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        tie_word_embeddings=config.tied,
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(sizes).to(dtype)
    state = {their_name(name): their_order(name, weight, config.head_dim) for name, weight in weights}
    model.load_state_dict(state, strict=True, assign=True)
    # The rotary frequencies are no weight, and were made without memory.
    model.model.rotary_emb = type(model.model.rotary_emb)(sizes)
    return model.eval().requires_grad_(False)
