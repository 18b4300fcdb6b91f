"""Our random weights as a GGUF file for llama.cpp."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType
from gguf.quants import quantize
from numpy.typing import NDArray
from torch import Tensor

from core.model.config import ModelConfig

PURE = "every matrix in that type, embedding and output head too (as llama-quantize --pure)"

_FILE_TYPES = {
    "F16": LlamaFileType.MOSTLY_F16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
}
_IN_BLOCK = {
    "attention_norm": "attn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "ffn_norm": "ffn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
}
_OUTSIDE = {
    "tok_embeddings.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "output.weight": "output.weight",
}


def write(path: Path, config: ModelConfig, weights: Iterator[tuple[str, Tensor]], kind: str) -> None:
    """A file of matrices in `kind`, "F16", "Q8_0" or "Q4_0", and norms in F32.

    `weights` come in the order of `config.shapes()` in float16, rotary rows as Meta has them, which is the
    order of llama.cpp too. One at a time is in memory.
    """
    writer = GGUFWriter(path, "llama")
    _metadata(writer, config, kind)
    _vocabulary(writer, config.vocab_size)
    for name, shape in config.shapes().items():
        type_ = _type(shape, kind)
        sample = quantize(np.zeros((1, shape[-1]), np.float32), type_)  # says the bytes of a row
        raw = (*shape[:-1], sample.nbytes) if sample.dtype == np.uint8 else shape
        rows = shape[0] if len(shape) > 1 else 1
        writer.add_tensor_info(_their_name(name), raw, sample.dtype, rows * sample.nbytes, type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, weight in weights:
        writer.write_tensor_data(_values(weight, kind))
    writer.close()


def _type(shape: tuple[int, ...], kind: str) -> GGMLQuantizationType:
    return GGMLQuantizationType["F32" if len(shape) == 1 else kind]


def _values(weight: Tensor, kind: str) -> NDArray[np.generic]:
    values, type_ = weight.numpy(), _type(tuple(weight.shape), kind)
    if type_ is GGMLQuantizationType.F16:
        return values
    pieces = [quantize(piece.astype(np.float32), type_) for piece in np.array_split(values, _pieces(weight))]
    return np.concatenate(pieces)


def _pieces(weight: Tensor) -> int:
    """So many that the float32 of one stays in tens of megabytes."""
    return max(1, min(weight.shape[0], weight.numel() // 2**22))


def _their_name(name: str) -> str:
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    _, layer, inside = name.split(".", 2)
    return f"blk.{layer}.{_IN_BLOCK[inside.removesuffix('.weight')]}.weight"


def _metadata(writer: GGUFWriter, config: ModelConfig, kind: str) -> None:
    writer.add_name("random weights")
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_context_length(config.max_context)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.hidden_dim)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_vocab_size(config.vocab_size)


def _vocabulary(writer: GGUFWriter, size: int) -> None:
    """Tokens that no text is made of, as a SentencePiece model has them: llama.cpp loads no file without."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL, *[TokenType.BYTE] * 256]
    ordinary = size - len(tokens)
    tokens += [f"\u2581t{i}" for i in range(ordinary)]
    types += [TokenType.NORMAL] * ordinary
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(i) for i in range(size)])
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
