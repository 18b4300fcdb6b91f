"""Small whole checkpoints of every kind, made from nothing, for `tests.fuzz` to damage."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from core.model.config import ModelConfig

TEXT = [
    "Hello world, this is a small text about lighthouses, the sea and 12 or 345 ships.",
    "Once upon a time there was a keeper; he said: “I’m here!” and lit the lamp.",
] * 20
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def sizes(vocabulary: int) -> ModelConfig:
    return ModelConfig(
        dim=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=64, vocab_size=vocabulary,
        norm_eps=1e-5, max_context=128,
    )  # fmt: skip


def weights(config: ModelConfig) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in config.shapes().items()}


def sentencepiece_model() -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=model, vocab_size=320, model_type="bpe",
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def write_meta(folder: Path, tokenizer: bytes, vocabulary: int, **params: object) -> None:
    config = sizes(vocabulary)
    table = {"dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": -1, "norm_eps": 1e-5}
    (folder / "params.json").write_text(json.dumps(table | params))
    (folder / "tokenizer.model").write_bytes(tokenizer)
    torch.save(weights(config), folder / "consolidated.00.pth")


def llama2(folder: Path) -> None:
    model = sentencepiece_model()
    write_meta(folder, model, sentencepiece.SentencePieceProcessor(model_proto=model).vocab_size())


def llama3(folder: Path) -> None:
    ranks = [bytes([i]) for i in range(256)] + [b"he", b"ll", b"hell", b" w", b"or"]
    lines = [b"%s %d\n" % (base64.b64encode(piece), i) for i, piece in enumerate(ranks)]
    params = {"rope_theta": 500000.0, "use_scaled_rope": True}
    write_meta(folder, b"".join(lines), len(ranks) + 256, **params)


HF_NAMES = {
    "tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head",
    "attention_norm": "input_layernorm", "wq": "self_attn.q_proj", "wk": "self_attn.k_proj",
    "wv": "self_attn.v_proj", "wo": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "w1": "mlp.gate_proj", "w2": "mlp.down_proj", "w3": "mlp.up_proj",
}  # fmt: skip


def huggingface(folder: Path) -> None:
    tokenizer = byte_level()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = sizes(tokenizer.get_vocab_size())
    table = {
        "model_type": "llama", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": config.vocab_size,
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "head_dim": 8, "eos_token_id": 1,
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(table))
    settings: dict[str, Any] = {"chat_template": CHATML, "bos_token": "<s>", "eos_token": {"content": "</s>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 3]}))
    places, parts = {}, [{}, {}]
    for i, (name, tensor) in enumerate(weights(config).items()):
        words = name.split(".")
        theirs = f"{HF_NAMES[words[-2]]}.weight"
        if words[0] == "layers":
            theirs = f"model.layers.{words[1]}.{theirs}"
        parts[i % 2][theirs] = tensor
        places[theirs] = f"model-0000{i % 2 + 1}-of-00002.safetensors"
    for i, part in enumerate(parts):
        save_file(part, folder / f"model-0000{i + 1}-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


GGUF_NAMES = {
    "tok_embeddings": "token_embd", "norm": "output_norm", "output": "output", "attention_norm": "attn_norm",
    "wq": "attn_q", "wk": "attn_k", "wv": "attn_v", "wo": "attn_output", "ffn_norm": "ffn_norm",
    "w1": "ffn_gate", "w2": "ffn_down", "w3": "ffn_up",
}  # fmt: skip


def write_gguf(
    folder: Path, vocabulary: int, kind: gguf.GGMLQuantizationType, add: Callable[[Any], None]
) -> None:
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    for key, value in {
        "block_count": 2, "context_length": 128, "embedding_length": 32, "feed_forward_length": 64,
        "attention.head_count": 4, "attention.head_count_kv": 2,
    }.items():  # fmt: skip
        writer.add_uint32(f"llama.{key}", value)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_chat_template(CHATML)
    add(writer)
    for name, tensor in weights(sizes(vocabulary)).items():
        words = name.split(".")
        block = f"blk.{words[1]}." if words[0] == "layers" else ""
        raw = kind if tensor.ndim == 2 else None
        values = gguf.quants.quantize(tensor.numpy(), kind) if raw else tensor.numpy()
        writer.add_tensor(f"{block}{GGUF_NAMES[words[-2]]}.weight", values, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_bpe(folder: Path) -> None:
    table = json.loads(byte_level().to_str())["model"]
    tokens = sorted(table["vocab"], key=table["vocab"].__getitem__)

    def add(writer: Any) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("llama-bpe")
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
        writer.add_token_merges([" ".join(merge) for merge in table["merges"]])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(3)

    write_gguf(folder, len(tokens), gguf.GGMLQuantizationType.Q8_0, add)


def gguf_spm(folder: Path) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_proto=sentencepiece_model())
    count = pieces.vocab_size()

    def kind(i: int) -> int:
        return 2 if pieces.IsUnknown(i) else 3 if pieces.IsControl(i) else 6 if pieces.IsByte(i) else 1

    def add(writer: Any) -> None:
        writer.add_tokenizer_model("llama")
        writer.add_token_list([pieces.IdToPiece(i) for i in range(count)] + SPECIAL[2:])
        writer.add_token_scores([pieces.GetScore(i) for i in range(count)] + [0.0, 0.0])
        writer.add_token_types([kind(i) for i in range(count)] + [3, 4])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)

    write_gguf(folder, count + 2, gguf.GGMLQuantizationType.Q4_0, add)


ORIGINALS: dict[str, Callable[[Path], None]] = {
    "llama2": llama2,
    "llama3": llama3,
    "huggingface": huggingface,
    "gguf_bpe": gguf_bpe,
    "gguf_spm": gguf_spm,
}


def write_originals(folder: Path) -> None:
    """A folder of each kind."""
    for name, write in ORIGINALS.items():
        (folder / name).mkdir()
        write(folder / name)
