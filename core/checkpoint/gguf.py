"""GGUF files of Llama models with their own vocabulary: one file, or one that was split into several.

Names and metadata keys: github.com/ggml-org/ggml, docs/gguf.md. The rows of wq and wk are in Meta's
rotary order already: llama.cpp's converter puts them so for this architecture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize

from core.checkpoint.fields import Fields
from core.checkpoint.gguf_header import Header, read_header
from core.checkpoint.layout import Layout, model_name
from core.checkpoint.notes import ignored, window
from core.checkpoint.source import BlockType, Part, SourceFile, Weight, find_part, times
from core.errors import UserError
from core.model.config import ModelConfig
from core.model.rope import linear_divisors
from core.text.dialogue import ChatHints
from core.text.sanitize import one_line, sanitize
from core.text.tokenizer import Tokenizer

_FLOATS = {
    Type.F64: torch.float64,
    Type.F32: torch.float32,
    Type.F16: torch.float16,
    Type.BF16: torch.bfloat16,
}
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
_ROPE_FREQS = "rope_freqs.weight"
_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})")
_END_KEYS = ("eos", "eot", "eom")


class GGUFCheckpoint:
    """An opened GGUF file: every tensor is found and checked, none is read."""

    def __init__(self, layout: Layout) -> None:
        """Raises UserError for a damaged file, and for what is not a plain Llama."""
        self._layout = layout
        self._files: list[SourceFile] = []
        # Not general.name, which is often the title of a training run.
        self.name = sanitize(model_name(layout.path))
        first = self._open(layout.path)
        self._metadata = metadata = first.metadata
        _check_architecture(metadata)
        headers = [first, *(self._open(path) for path in _siblings(metadata))]
        tensors = {
            name: Part(file, info.offset, info.shape, _type(info.type))
            for file, header in zip(self._files, headers, strict=True)
            for name, info in header.tensors.items()
        }
        self.config = config = _config(metadata, tensors)
        self.weights: Mapping[str, Weight] = {
            name: _weight(metadata.path, tensors, name, shape) for name, shape in config.shapes().items()
        }
        others = tensors.keys() - {_their_name(name) for name in self.weights} - {_ROPE_FREQS}
        self.notes: tuple[str, ...] = (*ignored(sorted(others)), *window(_window(metadata), config))

    @property
    def stored_dtype(self) -> torch.dtype:
        """The type of the matrices where they agree on a float type, else float16."""
        types = {weight.float_type for weight in self.weights.values() if len(weight.shape) > 1}
        return types.pop() if len(types) == 1 else torch.float16

    def tokenizer(self) -> Tokenizer:
        """The vocabulary in the file, or the tokenizer that was given."""
        from core.text.files import open_tokenizer
        from core.text.gguf_vocab import gguf_tokenizer

        if self._layout.tokenizer is not None:
            return open_tokenizer(self._layout.tokenizer)
        fields = self._metadata
        model = fields.text("tokenizer.ggml.model")
        try:
            return gguf_tokenizer(
                model,
                fields.texts("tokenizer.ggml.tokens"),
                scores=fields.get("tokenizer.ggml.scores"),
                types=fields.get("tokenizer.ggml.token_type"),
                merges=fields.texts("tokenizer.ggml.merges") if model == "gpt2" else None,
                pre=fields.text("tokenizer.ggml.pre", "default"),
                bos_id=self._token_id("bos"),
                eos_id=self._token_id("eos"),
                adds_bos=fields.flag("tokenizer.ggml.add_bos_token"),
                adds_space_prefix=fields.flag("tokenizer.ggml.add_space_prefix") is not False,
            )
        except ValueError as error:
            raise UserError(
                f"{fields.path}: its tokenizer cannot be read ({one_line(error)}); give another file"
            ) from None

    def chat(self) -> ChatHints:
        """The template in the file, and its ends of text, of turn and of message."""
        template = self._metadata.text("tokenizer.chat_template", "")
        tokens = self._metadata.texts("tokenizer.ggml.tokens")
        ids = {which: self._token_id(which) for which in ("bos", *_END_KEYS)}
        spellings = {which: tokens[i] for which, i in ids.items() if i is not None and i < len(tokens)}
        return ChatHints(
            template=template or None,
            stop_ids=frozenset(i for which in _END_KEYS if (i := ids[which]) is not None),
            bos=spellings.get("bos", ""),
            eos=spellings.get("eos", ""),
        )

    def close(self) -> None:
        """Give the files back."""
        for file in self._files:
            file.close()

    def _open(self, path: Path) -> Header:
        self._files.append(SourceFile(path))
        return read_header(self._files[-1])

    def _token_id(self, which: str) -> int | None:
        key = f"tokenizer.ggml.{which}_token_id"
        if key not in self._metadata.values:
            return None
        token = self._metadata.whole(key, least=0)
        if token >= self.config.vocab_size:
            raise self._metadata.wrong(key, f"below {self.config.vocab_size}, the number of tokens")
        return token


def _siblings(metadata: Fields) -> tuple[Path, ...]:
    """The other files of a model that was split. UserError if one is missing, or this is not the first."""
    count = metadata.whole("split.count", 1)
    if count == 1:
        return ()
    path = metadata.path
    match = _SPLIT.fullmatch(path.stem)
    if match is None or int(match[3]) != count:
        raise UserError(f"{path}: one of {count} files, but not named -00001-of-{count:05d}; name them so")
    names = [f"{match[1]}-{i:05d}-of-{match[3]}.gguf" for i in range(1, count + 1)]
    if path.name != names[0]:
        raise UserError(f"{path}: a later part of a model in {count} files; give the first, {names[0]}")
    for name in names:
        if not path.with_name(name).is_file():
            raise UserError(f"{path.with_name(name)}: missing; the download is not complete")
    return tuple(path.with_name(name) for name in names[1:])


def _check_architecture(metadata: Fields) -> None:
    """UserError for another architecture, or a variant of this one."""
    architecture = metadata.text("general.architecture")
    if architecture != "llama":
        raise UserError(
            f"{metadata.path}: {architecture!r:.60} is not a Llama; give a file of a Llama, or use --demo"
        )
    for key, plain in (("llama.expert_count", 0), ("llama.attention.causal", True)):
        if (value := metadata.get(key, plain)) != plain:
            raise UserError(f"{metadata.path}: {key} {value!r:.60} is not read; use a plain Llama, or --demo")


def _config(metadata: Fields, tensors: Mapping[str, Part]) -> ModelConfig:
    """Sizes from the metadata, held against the tensors."""
    dim = metadata.whole("llama.embedding_length")
    n_heads = metadata.whole("llama.attention.head_count")
    head_dim = metadata.whole("llama.attention.key_length", max(1, dim // n_heads))
    n_layers = metadata.whole("llama.block_count")
    embedding = tensors.get(_NAMES["tok_embeddings.weight"])
    if embedding is None or n_layers > len(tensors):
        raise UserError(
            f"{metadata.path}: {len(tensors)} tensors do not make {n_layers} layers and an embedding; "
            "fetch it again"
        )
    for key in ("llama.attention.value_length", "llama.rope.dimension_count"):
        if metadata.whole(key, head_dim) != head_dim:
            raise UserError(
                f"{metadata.path}: {key} {metadata.get(key)} is not read; use a plain Llama, or --demo"
            )
    limit = metadata.whole("llama.context_length")
    try:
        return ModelConfig(
            dim=dim,
            n_layers=n_layers,
            n_heads=n_heads,
            n_kv_heads=metadata.whole("llama.attention.head_count_kv", n_heads),
            head_dim=head_dim,
            hidden_dim=metadata.whole("llama.feed_forward_length"),
            vocab_size=embedding.rows,
            norm_eps=metadata.number("llama.attention.layer_norm_rms_epsilon"),
            rope_theta=metadata.number("llama.rope.freq_base", 10000.0),
            rope_divisors=_rope_divisors(metadata, tensors, head_dim),
            tied=_NAMES["output.weight"] not in tensors,
            max_context=min(limit, _window(metadata) or limit),
        )
    except ValueError as error:
        raise UserError(f"{metadata.path}: {error}; fetch it again") from None


def _rope_divisors(metadata: Fields, tensors: Mapping[str, Part], head_dim: int) -> tuple[float, ...]:
    """Those of the file's own tensor (Llama 3.1 and later), or of linear scaling."""
    freqs = tensors.get(_ROPE_FREQS)
    if freqs is not None:
        if freqs.shape != (head_dim // 2,) or freqs.type != torch.float32:
            raise ValueError(f"{_ROPE_FREQS} is {times(freqs.shape)} of {freqs.type}")
        data = freqs.file.read(freqs.offset, freqs.nbytes)
        return tuple(float(value) for value in np.frombuffer(data, np.float32))
    kind = metadata.text("llama.rope.scaling.type", "none")
    if kind == "linear":
        return linear_divisors(head_dim, metadata.number("llama.rope.scaling.factor"))
    if kind != "none":
        raise UserError(
            f"{metadata.path}: llama.rope.scaling.type {kind!r:.40} is not read; use a plain Llama"
        )
    return ()


def _window(metadata: Fields) -> int | None:
    """The sliding window in tokens, where there is one."""
    return metadata.whole("llama.attention.sliding_window", 0, least=0) or None


def _weight(path: Path, tensors: Mapping[str, Part], name: str, shape: tuple[int, ...]) -> Weight:
    theirs = _their_name(name)
    part = find_part(tensors, theirs, shape, path, "its header")
    if isinstance(part.type, BlockType) and not _readable(part.type):
        raise UserError(f"{path}: {theirs} is {part.type}, which cannot be read; take a file of another type")
    return Weight(shape, (part,))


def _type(kind: Type) -> torch.dtype | BlockType:
    return _FLOATS[kind] if kind in _FLOATS else BlockType(kind.name, *GGML_QUANT_SIZES[kind])


def _readable(kind: BlockType) -> bool:
    """Whether the gguf package can make floats of it."""
    try:
        dequantize(np.zeros((1, kind.nbytes), np.uint8), Type[kind.name])
    except NotImplementedError:
        return False
    return True


def _their_name(name: str) -> str:
    """GGUF's name for Meta's: layers.3.attention.wq.weight is blk.3.attn_q.weight."""
    if name in _NAMES:
        return _NAMES[name]
    _, layer, rest = name.split(".", 2)
    return f"blk.{layer}.{_NAMES_IN_BLOCK[rest]}"
