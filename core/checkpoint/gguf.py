"""GGUF files of Llama models with a byte-level BPE vocabulary; quantised weights become floats.

Names and metadata keys: github.com/ggml-org/ggml, docs/gguf.md. The rows of wq and wk are in Meta's
rotary order already: llama.cpp's converter puts them so for this architecture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from torch import Tensor

from core.checkpoint.gguf_header import Header, TensorInfo, read_header
from core.checkpoint.layout import Layout
from core.errors import UserError
from core.model.config import ModelConfig
from core.text.bpe import ByteLevelBPE
from core.text.sanitize import sanitize
from core.text.tokenizer import Tokenizer

_FLOATS = {Type.F32: torch.float32, Type.F16: torch.float16, Type.BF16: torch.bfloat16}
_QUANTISED = {
    *(Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0),
    *(Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K),
}
_NORMAL, _CONTROL = 1, 3  # in tokenizer.ggml.token_type

_NAMES = {
    "tok_embeddings.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "output.weight": "output.weight",
}
_NAMES_IN_BLOCK = {
    "attention_norm.weight": "attn_norm.weight",
    "attention.wq.weight": "attn_q.weight",
    "attention.wk.weight": "attn_k.weight",
    "attention.wv.weight": "attn_v.weight",
    "attention.wo.weight": "attn_output.weight",
    "ffn_norm.weight": "ffn_norm.weight",
    "feed_forward.w1.weight": "ffn_gate.weight",
    "feed_forward.w2.weight": "ffn_down.weight",
    "feed_forward.w3.weight": "ffn_up.weight",
}

# A system text that the template itself holds, as a literal, not one put together from messages.
_SYSTEM = re.compile(r"<\|im_start\|>system(?:\n|\\n)([^'\"{}<]+)<\|im_end\|>")


class GGUFCheckpoint:
    """An opened GGUF file. All sizes are checked here; weights stay in the mapped file until asked for."""

    def __init__(self, layout: Layout) -> None:
        """Reads the header. Raises UserError for a damaged file and for what is not a plain Llama."""
        if layout.tokenizer is not None:
            raise UserError(
                f"{layout.tokenizer}: a GGUF file brings its own tokenizer; leave the second argument out"
            )
        self._header = header = read_header(layout.path)
        self.config = _config(header)
        self._sources = _sources(header, self.config)
        # Not general.name, which is often the title of a training run.
        self.name = sanitize(layout.path.stem)
        self.stored_dtype = _best_dtype(self._sources.values())
        self.nbytes = sum(
            math.prod(info.shape) * _FLOATS.get(info.type, torch.float32).itemsize
            for info in self._sources.values()
        )
        """Bytes of what `tensors` yields, which is more than the file for quantised weights."""
        template = header.text("tokenizer.chat_template", "")
        self.chat_format = "chatml" if "<|im_start|>" in template else "none"
        system = _SYSTEM.search(template)
        self.default_system = system[1] if system else None

    def tokenizer(self) -> Tokenizer:
        """The vocabulary in the file. Raises UserError for a kind that is not read."""
        header = self._header
        kind = header.text("tokenizer.ggml.model")
        if kind != "gpt2":
            raise UserError(
                f"{header.path}: its tokenizer {kind!r:.60} is not read yet, only byte-level BPE; use --demo"
            )
        tokens = header.texts("tokenizer.ggml.tokens")
        if len(tokens) != self.config.vocab_size:
            raise UserError(
                f"{header.path}: {len(tokens)} tokens, but the embedding has {self.config.vocab_size}; "
                "fetch the file again"
            )
        types = header.metadata.get("tokenizer.ggml.token_type")
        if (
            not isinstance(types, list)
            or len(types) != len(tokens)
            or not {_NORMAL, _CONTROL}.issuperset(types)
        ):
            raise header.wrong("tokenizer.ggml.token_type", "normal or control for every token")
        adds_bos = header.metadata.get("tokenizer.ggml.add_bos_token") is True
        try:
            return ByteLevelBPE(
                tokens,
                header.texts("tokenizer.ggml.merges"),
                control=[i for i, kind in enumerate(types) if kind == _CONTROL],
                pre=header.text("tokenizer.ggml.pre", "default"),
                bos_id=self._token_id("bos") if adds_bos else None,
                eos_id=self._token_id("eos"),
            )
        except ValueError as error:
            raise UserError(f"{header.path}: its tokenizer is damaged ({error}); fetch it again") from None

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) in the order of computation: floats as mapped views, quantised ones as float32."""
        # Copy-on-write, since torch wants memory that it could write to; nobody does.
        data = np.memmap(self._header.path, dtype=np.uint8, mode="c")
        for name, info in self._sources.items():
            raw = data[info.offset : info.offset + info.nbytes]
            if info.type in _FLOATS:
                yield name, torch.from_numpy(raw).view(_FLOATS[info.type]).view(info.shape)
            else:
                yield name, torch.from_numpy(dequantize(raw.reshape(*info.shape[:-1], -1), info.type))

    def _token_id(self, which: str) -> int | None:
        key = f"tokenizer.ggml.{which}_token_id"
        if key not in self._header.metadata:
            return None
        token = self._header.whole(key, least=0)
        if token >= self.config.vocab_size:
            raise self._header.wrong(key, f"below {self.config.vocab_size}, the number of tokens")
        return token


def _config(header: Header) -> ModelConfig:
    """Sizes from the metadata. Raises UserError for another architecture, or a variant of this one."""
    architecture = header.text("general.architecture")
    if architecture != "llama":
        raise UserError(
            f"{header.path}: {architecture!r:.60} is not a Llama; give a GGUF file of a Llama, or use --demo"
        )
    dim = header.whole("llama.embedding_length")
    n_heads = header.whole("llama.attention.head_count")
    head_dim = header.whole("llama.attention.key_length", max(1, dim // n_heads))
    n_layers = header.whole("llama.block_count")
    embedding = header.tensors.get(_NAMES["tok_embeddings.weight"])
    if embedding is None or n_layers > len(header.tensors):
        raise UserError(
            f"{header.path}: {len(header.tensors)} tensors do not make {n_layers} layers and an embedding; "
            "fetch it again"
        )
    for key, plain in (
        ("llama.attention.value_length", head_dim),
        ("llama.rope.dimension_count", head_dim),
        ("llama.rope.scaling.type", "none"),
        ("llama.expert_count", 0),
    ):
        if (value := header.metadata.get(key, plain)) != plain:
            raise UserError(
                f"{header.path}: {key} {value!r:.60} is not read yet; use a plain Llama, or --demo"
            )
    try:
        return ModelConfig(
            dim=dim,
            n_layers=n_layers,
            n_heads=n_heads,
            n_kv_heads=header.whole("llama.attention.head_count_kv", n_heads),
            head_dim=head_dim,
            hidden_dim=header.whole("llama.feed_forward_length"),
            vocab_size=embedding.shape[0],
            norm_eps=header.number("llama.attention.layer_norm_rms_epsilon"),
            rope_theta=header.number("llama.rope.freq_base", 10000.0),
            tied=_NAMES["output.weight"] not in header.tensors,
            max_context=header.whole("llama.context_length"),
        )
    except ValueError as error:
        raise UserError(f"{header.path}: {error}; fetch it again") from None


def _sources(header: Header, config: ModelConfig) -> dict[str, TensorInfo]:
    """Where each weight lies, by Meta's name. Raises UserError unless all are there, and nothing else."""
    sources: dict[str, TensorInfo] = {}
    left = set(header.tensors)
    for name, shape in config.shapes().items():
        theirs = _their_name(name)
        info = header.tensors.get(theirs)
        if info is None:
            raise UserError(f"{header.path}: it has no {theirs}; fetch it again")
        if info.shape != shape:
            raise UserError(
                f"{header.path}: {theirs} is {_times(info.shape)}, not {_times(shape)} as its metadata says; "
                "fetch it again"
            )
        if info.type not in _FLOATS and info.type not in _QUANTISED:
            raise UserError(f"{header.path}: {theirs} is {info.type.name}, which is not read yet; use --demo")
        sources[name] = info
        left.remove(theirs)
    if left:
        raise UserError(
            f"{header.path}: {min(left)!r:.60} is no part of a plain Llama and not read yet; use --demo"
        )
    return sources


def _their_name(name: str) -> str:
    """GGUF's name for Meta's: layers.3.attention.wq.weight is blk.3.attn_q.weight."""
    if name in _NAMES:
        return _NAMES[name]
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{_NAMES_IN_BLOCK[rest]}"


def _best_dtype(infos: Iterable[TensorInfo]) -> torch.dtype:
    """The type of the matrices where they agree on a float type, else float16."""
    types = {info.type for info in infos if len(info.shape) > 1}
    return _FLOATS.get(types.pop(), torch.float16) if len(types) == 1 else torch.float16


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
