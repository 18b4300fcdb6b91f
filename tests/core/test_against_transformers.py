"""Every container, written in its own way from one random model, against the library that made it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from core.engine.generate import generate
from core.engine.load import load
from core.options import LoadOptions, Sampling
from core.sampling.sampler import Sampler

Theirs = Any  # a model of transformers
Weights = dict[str, torch.Tensor]

SIZES: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False, "initializer_range": 0.08,
}  # fmt: skip
LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 64,
}  # fmt: skip
LINEAR_ROPE = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
GRID = torch.Generator().manual_seed(7)


def make(kind: str = "llama", **changes: Any) -> Theirs:
    """A random model; norms are not all 1, as they would be."""
    torch.manual_seed(0)
    sizes = SIZES | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}} | changes
    if kind == "mistral":
        model = MistralForCausalLM(MistralConfig(**sizes))
    else:
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval().requires_grad_(False)


NAMES = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
} | {
    f"layers.{i}.{ours}.weight": f"model.layers.{i}.{theirs}.weight"
    for i in range(SIZES["num_hidden_layers"])
    for ours, theirs in {
        "attention_norm": "input_layernorm", "attention.wq": "self_attn.q_proj",
        "attention.wk": "self_attn.k_proj", "attention.wv": "self_attn.v_proj",
        "attention.wo": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
        "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj",
        "feed_forward.w3": "mlp.up_proj",
    }.items()
}  # fmt: skip


def swap(model: Theirs, name: str, weight: torch.Tensor, halves: int) -> torch.Tensor:
    """Between the orders of a head's rows: (2, D/2) of transformers and (D/2, 2) of Meta."""
    if not name.endswith(("wq.weight", "wk.weight")):
        return weight
    head = getattr(model.config, "head_dim", None) or SIZES["hidden_size"] // model.config.num_attention_heads
    split = (-1, 2, head // 2) if halves == 1 else (-1, head // 2, 2)
    return weight.view(*split, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def metas(model: Theirs) -> Weights:
    """Meta's names and rotary order: the converter of transformers, backwards."""
    state = model.state_dict()
    return {ours: swap(model, ours, state[theirs], 1) for ours, theirs in NAMES.items()}


def put(model: Theirs, weights: Weights) -> None:
    """Give the model of transformers these weights."""
    state = model.state_dict()
    for ours, weight in weights.items():
        state[NAMES[ours]].copy_(swap(model, ours, weight, 2))


def check(model: Theirs, folder: Path) -> None:
    """The same logits for 48 tokens, and the same 200 greedy tokens after them."""
    options = LoadOptions(str(folder), device="cpu", dtype="float32", raw=True)
    engine = load(options, lambda event: None, lambda: False)
    prompt = torch.randint(3, 512, (48,), generator=GRID)
    with torch.inference_mode():
        wanted = model(prompt[None]).logits[0]
        got = engine.model(prompt, engine.cache, keep=48)
    assert (got - wanted).abs().max() / wanted.abs().max() < 1e-4
    theirs = model.generate(
        prompt[None],
        do_sample=False,
        min_new_tokens=200,
        max_new_tokens=200,
        eos_token_id=None,
        pad_token_id=0,
    )[0, 48:]
    ours = generate(
        engine.runner,
        prompt.tolist(),
        Sampler(lambda: Sampling(temperature=0), 0),
        cancelled=lambda: False,
        on_prefill=lambda done: None,
    )
    assert [choice.token for choice, _ in zip(ours, range(200), strict=False)] == theirs.tolist()


class TestMeta:
    SPLIT = {"wq": 0, "wk": 0, "wv": 0, "wo": 1, "w1": 0, "w2": 1, "w3": 0, "output": 0}

    def write(
        self, folder: Path, model: Theirs, stories: Path, shards: int, rows: bool, **params: Any
    ) -> Path:
        """`rows`: the embedding is split by rows, as in Llama 3."""
        folder.mkdir()
        sizes = model.config
        table = {
            "dim": sizes.hidden_size, "n_layers": sizes.num_hidden_layers, "vocab_size": -1,
            "n_heads": sizes.num_attention_heads, "n_kv_heads": sizes.num_key_value_heads,
            "norm_eps": sizes.rms_norm_eps, "multiple_of": 256,
        } | params  # fmt: skip
        (folder / "params.json").write_text(json.dumps(table))
        shutil.copy(stories / "tokenizer.model", folder)
        split = self.SPLIT | {"tok_embeddings": 0 if rows else 1}
        for i in range(shards):
            part = {}
            for name, tensor in metas(model).items():
                if name == "output.weight" and sizes.tie_word_embeddings:
                    continue
                axis = split.get(name.split(".")[-2])
                part[name] = tensor if axis is None else tensor.tensor_split(shards, dim=axis)[i].clone()
            torch.save(part | {"rope.freqs": torch.zeros(16)}, folder / f"consolidated.{i:02d}.pth")
        return folder

    @pytest.mark.parametrize("shards", [1, 2, 4, 8])
    def test_llama_2(self, tmp_path: Path, stories: Path, shards: int) -> None:
        model = make(num_attention_heads=16, num_key_value_heads=8)  # a key head for each shard, as in 70B
        check(model, self.write(tmp_path / "m", model, stories, shards, rows=False))

    def test_llama_3(self, tmp_path: Path, stories: Path) -> None:
        model = make(rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
        check(model, self.write(tmp_path / "m", model, stories, 2, rows=True, rope_theta=500000.0))

    def test_code_llama(self, tmp_path: Path, stories: Path) -> None:
        model = make(rope_parameters={"rope_type": "default", "rope_theta": 1e6})
        check(model, self.write(tmp_path / "m", model, stories, 1, rows=False, rope_theta=1e6))

    def test_llama_3_2(self, tmp_path: Path, stories: Path) -> None:
        rope = LLAMA3_ROPE | {"factor": 32.0, "original_max_position_embeddings": 8192}
        model = make(rope_parameters=rope, max_position_embeddings=131072, tie_word_embeddings=True)
        params = {"rope_theta": 500000.0, "use_scaled_rope": True}
        check(model, self.write(tmp_path / "m", model, stories, 1, rows=True, **params))


class TestHuggingFace:
    def write(self, folder: Path, model: Theirs, stories: Path, **options: Any) -> Path:
        model.save_pretrained(folder, **options)
        shutil.copy(stories / "tokenizer.model", folder)
        return folder

    @pytest.mark.parametrize(
        ("kind", "changes"),
        [
            ("llama", {}),
            ("llama", {"num_key_value_heads": 8}),
            ("llama", {"tie_word_embeddings": True}),
            ("llama", {"head_dim": 16}),
            ("llama", {"rope_parameters": LINEAR_ROPE}),
            ("llama", {"rope_parameters": LLAMA3_ROPE}),
            ("mistral", {"sliding_window": None, "head_dim": 48}),
            ("mistral", {"sliding_window": 256}),
        ],
        ids=["grouped", "all heads", "tied", "head_dim", "linear", "llama3", "mistral", "window"],
    )
    def test_variants(self, tmp_path: Path, stories: Path, kind: str, changes: dict[str, Any]) -> None:
        model = make(kind, **changes)
        check(model, self.write(tmp_path / "m", model, stories))

    def test_several_files(self, tmp_path: Path, stories: Path) -> None:
        model = make()
        folder = self.write(tmp_path / "m", model, stories, max_shard_size="1MB")
        assert len(list(folder.glob("*.safetensors"))) > 2
        check(model, folder)

    @pytest.mark.parametrize(
        "rope", [LLAMA3_ROPE, {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}]
    )
    def test_the_earlier_spelling_of_rope(self, tmp_path: Path, stories: Path, rope: dict[str, Any]) -> None:
        model = make(rope_parameters=rope)
        folder = self.write(tmp_path / "m", model, stories)
        config = json.loads((folder / "config.json").read_text())
        scaling = config.pop("rope_parameters")
        config["rope_theta"] = scaling.pop("rope_theta")
        if scaling["rope_type"] == "linear":
            scaling["type"] = scaling.pop("rope_type")  # the oldest
        config["rope_scaling"] = scaling
        (folder / "config.json").write_text(json.dumps(config))
        check(model, folder)


GGUF_NAMES = {
    "tok_embeddings": "token_embd", "norm": "output_norm", "output": "output", "attention_norm": "attn_norm",
    "wq": "attn_q", "wk": "attn_k", "wv": "attn_v", "wo": "attn_output", "ffn_norm": "ffn_norm",
    "w1": "ffn_gate", "w2": "ffn_down", "w3": "ffn_up",
}  # fmt: skip


def blocks(shape: tuple[int, ...], kind: Type, random: np.random.Generator) -> np.ndarray:
    """Random bytes that are a weight of this type, of a sensible scale.

    The gguf package has no writer for the K types. Any bytes are valid but for the scales in float16.
    """
    values, nbytes = gguf.GGML_QUANT_SIZES[kind]
    data = random.integers(0, 256, (*shape[:-1], shape[-1] // values, nbytes), dtype=np.uint8)
    scale = np.frombuffer(np.float16(0.001).tobytes(), np.uint8)
    places = {Type.Q4_K: [0, 2], Type.Q6_K: [nbytes - 2]}[kind]
    for place in places:
        data[..., place : place + 2] = scale
    return data.reshape(*shape[:-1], -1)


class TestGGUF:
    def write(
        self, path: Path, weights: Weights, kind: Type, sizes: Any, rope: Callable[[Any], None]
    ) -> Weights:
        """Writes the file; returns what its weights are as float32."""
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_block_count(sizes.num_hidden_layers)
        writer.add_context_length(sizes.max_position_embeddings)
        writer.add_embedding_length(sizes.hidden_size)
        writer.add_feed_forward_length(sizes.intermediate_size)
        writer.add_head_count(sizes.num_attention_heads)
        writer.add_head_count_kv(sizes.num_key_value_heads)
        writer.add_layer_norm_rms_eps(sizes.rms_norm_eps)
        rope(writer)
        pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
        pieces += [f"a{i}" for i in range(512 - len(pieces))]
        writer.add_tokenizer_model("llama")
        writer.add_token_list(pieces)
        writer.add_token_scores([0.0] * 512)
        writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * (512 - 259)])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        random = np.random.default_rng(0)
        floats: Weights = {}
        for name, tensor in weights.items():
            words = name.split(".")
            block = f"blk.{words[1]}." if words[0] == "layers" else ""
            values = tensor.numpy()
            stored: np.ndarray = values
            if values.ndim == 2 and kind in (Type.Q4_K, Type.Q6_K):
                stored = blocks(values.shape, kind, random)
            elif values.ndim == 2:
                stored = gguf.quants.quantize(values, kind)
            raw = kind if values.ndim == 2 and kind not in (Type.F32, Type.F16) else None
            writer.add_tensor(f"{block}{GGUF_NAMES[words[-2]]}.weight", stored, raw_dtype=raw)
            floats[name] = tensor
            if values.ndim == 2:
                floats[name] = torch.from_numpy(gguf.quants.dequantize(stored, kind).copy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return floats

    @pytest.mark.parametrize(
        "kind", [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_K, Type.Q6_K], ids=str
    )
    def test_types(self, tmp_path: Path, kind: Type) -> None:
        model = make()
        floats = self.write(tmp_path / "m.gguf", metas(model), kind, model.config, lambda writer: None)
        put(model, floats)
        check(model, tmp_path / "m.gguf")

    def test_a_tied_one_with_scaled_rope(self, tmp_path: Path) -> None:
        model = make(rope_parameters=LLAMA3_ROPE, tie_word_embeddings=True)

        def rope(writer: Any) -> None:
            writer.add_rope_freq_base(500000.0)
            plain = 500000.0 ** -(torch.arange(0, 32, 2, dtype=torch.float64) / 32)
            # What the file holds is what the frequencies are divided by.
            writer.add_tensor("rope_freqs.weight", (plain / model.model.rotary_emb.inv_freq).float().numpy())

        weights = metas(model)
        del weights["output.weight"]
        self.write(tmp_path / "m.gguf", weights, Type.F32, model.config, rope)
        check(model, tmp_path / "m.gguf")

    def test_linear_rope(self, tmp_path: Path) -> None:
        model = make(rope_parameters=LINEAR_ROPE)

        def rope(writer: Any) -> None:
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(4.0)

        self.write(tmp_path / "m.gguf", metas(model), Type.F32, model.config, rope)
        check(model, tmp_path / "m.gguf")
