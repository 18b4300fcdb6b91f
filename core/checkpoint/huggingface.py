"""Hugging Face folders of Llama and Mistral: config.json, and one or many safetensors files.

Names and defaults: github.com/huggingface/transformers, models/llama and models/mistral.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.checkpoint.fields import Fields, read_json
from core.checkpoint.layout import Layout, model_name
from core.checkpoint.notes import ignored, window
from core.checkpoint.safetensors_header import read_safetensors
from core.checkpoint.source import Part, SourceFile, Weight, find_part
from core.errors import UserError
from core.model.config import ModelConfig
from core.model.rope import linear_divisors, llama3_divisors
from core.text.dialogue import ChatHints
from core.text.sanitize import sanitize

if TYPE_CHECKING:
    import torch

    from core.text.tokenizer import Tokenizer

_NAMES = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_NAMES_IN_BLOCK = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.wq.weight": "self_attn.q_proj.weight",
    "attention.wk.weight": "self_attn.k_proj.weight",
    "attention.wv.weight": "self_attn.v_proj.weight",
    "attention.wo.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "feed_forward.w1.weight": "mlp.gate_proj.weight",
    "feed_forward.w2.weight": "mlp.down_proj.weight",
    "feed_forward.w3.weight": "mlp.up_proj.weight",
}
_ROTARY = ("attention.wq.weight", "attention.wk.weight")
_LARGEST_TEMPLATE = 2**20  # bytes


class HuggingFaceCheckpoint:
    """An opened folder: every tensor is found and checked, none is read."""

    def __init__(self, layout: Layout) -> None:
        """Raises UserError for a damaged file, and for what is not a plain Llama."""
        self.name = sanitize(model_name(layout.path))
        self._layout = layout
        _check_architecture(layout.config)
        self._files = [SourceFile(path) for path in layout.shards]
        tensors: dict[str, Part] = {}
        for file in self._files:
            tensors |= read_safetensors(file)
        tied = bool(layout.config.get("tie_word_embeddings", False)) or "lm_head.weight" not in tensors
        self.config = config = _config(layout.config, len(tensors), tied=tied)
        theirs = {name: _their_name(name) for name in config.shapes()}
        self.weights: Mapping[str, Weight] = {
            name: Weight(
                shape,
                (find_part(tensors, theirs[name], shape, layout.path, "config.json"),),
                head_dim=config.head_dim if name.endswith(_ROTARY) else None,
            )
            for name, shape in config.shapes().items()
        }
        used = {*theirs.values(), "lm_head.weight"}
        others = [name for name in tensors if name not in used and not name.endswith("rotary_emb.inv_freq")]
        self.notes: tuple[str, ...] = (*ignored(sorted(others)), *window(_window(layout.config), config))

    @property
    def stored_dtype(self) -> torch.dtype:
        """The float type of the embedding, and so of all matrices."""
        return self.weights["tok_embeddings.weight"].float_type

    def tokenizer(self) -> Tokenizer:
        """The folder's tokenizer, or the one that was given."""
        from core.text.files import open_tokenizer
        from core.text.huggingface import open_huggingface

        given = self._layout.tokenizer
        return open_huggingface(self._layout.path) if given is None else open_tokenizer(given)

    def chat(self) -> ChatHints:
        """The folder's template, what it calls BOS and EOS, and the end tokens of its generation settings."""
        path = self._layout.path / "tokenizer_config.json"
        settings = read_json(path) if path.is_file() else Fields(path, {})
        return ChatHints(
            template=_template(self._layout.path, settings),
            stop_ids=self._stop_ids(),
            bos=_spelling(settings.get("bos_token")),
            eos=_spelling(settings.get("eos_token")),
        )

    def close(self) -> None:
        """Give the files back."""
        for file in self._files:
            file.close()

    def _stop_ids(self) -> frozenset[int]:
        found: set[int] = set()
        generation = self._layout.path / "generation_config.json"
        for fields in (self._layout.config, read_json(generation) if generation.is_file() else None):
            given = None if fields is None else fields.get("eos_token_id")
            ids = given if isinstance(given, list) else [given]
            found |= {i for i in ids if isinstance(i, int) and 0 <= i < self.config.vocab_size}
        return frozenset(found)


def _check_architecture(config: Fields) -> None:
    """UserError for everything but a plain Llama or Mistral."""
    kind = config.text("model_type", "a model without a type")
    if kind not in ("llama", "mistral"):
        raise UserError(
            f"{config.path.parent}: {kind!r:.60} is not a Llama; give a Llama or Mistral, or use --demo"
        )
    quantised = config.get("quantization_config")
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else None
        raise UserError(
            f"{config.path}: quantised by {method!r:.40}, which is not read; give the model it was "
            "made from, or a GGUF file of it"
        )
    for key, plain in (
        ("attention_bias", False),
        ("mlp_bias", False),
        ("hidden_act", "silu"),
        ("partial_rotary_factor", 1.0),
    ):
        if (value := config.get(key, plain)) != plain:
            raise UserError(f"{config.path}: {key} {value!r:.40} is not read; use a plain Llama, or --demo")


def _config(config: Fields, n_tensors: int, *, tied: bool) -> ModelConfig:
    dim, n_heads = config.whole("hidden_size"), config.whole("num_attention_heads")
    n_layers = config.whole("num_hidden_layers")
    if n_layers > n_tensors:
        raise UserError(
            f"{config.path}: {n_tensors} tensors do not make {n_layers} layers; the download is not complete"
        )
    mistral = config.text("model_type") == "mistral"
    head_dim = config.whole("head_dim", max(1, dim // n_heads))
    limit = config.whole("max_position_embeddings", 131072 if mistral else 2048)
    try:
        theta, divisors = _rope(config, head_dim, limit)
        return ModelConfig(
            dim=dim,
            n_layers=n_layers,
            n_heads=n_heads,
            n_kv_heads=config.whole("num_key_value_heads", 8 if mistral else n_heads),
            head_dim=head_dim,
            hidden_dim=config.whole("intermediate_size"),
            vocab_size=config.whole("vocab_size"),
            norm_eps=config.number("rms_norm_eps", 1e-6),
            rope_theta=theta,
            rope_divisors=divisors,
            tied=tied,
            max_context=min(limit, _window(config) or limit),
        )
    except ValueError as error:
        raise UserError(f"{config.path}: {error}; fetch it again") from None


def _rope(config: Fields, head_dim: int, limit: int) -> tuple[float, tuple[float, ...]]:
    """Theta and divisors, in the spelling of transformers 5 (rope_parameters) or the earlier one."""
    given = config.get("rope_parameters", config.get("rope_scaling", {}))
    if not isinstance(given, dict):
        raise config.wrong(
            "rope_parameters" if "rope_parameters" in config.values else "rope_scaling", "an object"
        )
    rope = Fields(config.path, given)
    theta = rope.number("rope_theta", config.number("rope_theta", 10000.0))
    kind = rope.text("rope_type", rope.text("type", "default"))
    if kind == "default":
        return theta, ()
    if kind == "linear":
        return theta, linear_divisors(head_dim, rope.number("factor"))
    if kind == "llama3":
        return theta, llama3_divisors(
            theta,
            head_dim,
            factor=rope.number("factor"),
            low=rope.number("low_freq_factor"),
            high=rope.number("high_freq_factor"),
            original=rope.whole("original_max_position_embeddings", limit),
        )
    raise UserError(f"{config.path}: rope_type {kind!r:.40} is not read, only default, linear and llama3")


def _window(config: Fields) -> int | None:
    """Mistral's sliding window in tokens; 4096 where the file says nothing of it, as its library has it."""
    if config.text("model_type") != "mistral" or config.values.get("sliding_window", 0) is None:
        return None
    return config.whole("sliding_window", 4096)


def _their_name(name: str) -> str:
    """layers.3.attention.wq.weight is model.layers.3.self_attn.q_proj.weight."""
    if name in _NAMES:
        return _NAMES[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{_NAMES_IN_BLOCK[rest]}"


def _template(folder: Path, settings: Fields) -> str | None:
    """The chat template: a file of its own, or a value of tokenizer_config.json, or none."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            if path.stat().st_size > _LARGEST_TEMPLATE:
                raise UserError(f"{path}: too large for a template; fetch it again, or give --chat-format")
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error!s:.80}); fetch it again") from None
    given = settings.get("chat_template")
    if isinstance(given, list):  # several, by name
        named = {item.get("name"): item.get("template") for item in given if isinstance(item, dict)}
        given = named.get("default")
    if given is not None and not isinstance(given, str):
        raise UserError(
            f"{settings.path}: chat_template is not a text; fetch it again, or give --chat-format"
        )
    return given


def _spelling(token: Any) -> str:
    """A token's text, as it stands in tokenizer_config.json: by itself or in an object."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else ""
