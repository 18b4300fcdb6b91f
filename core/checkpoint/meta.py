"""Meta's layout: params.json beside consolidated.NN.pth, one or several shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from core.checkpoint.fields import Fields
from core.checkpoint.layout import Layout, model_name
from core.checkpoint.notes import ignored, window
from core.checkpoint.pth import read_pth
from core.checkpoint.source import Part, SourceFile, Weight, times
from core.errors import UserError
from core.model.config import ModelConfig
from core.model.rope import llama3_divisors
from core.text.dialogue import ChatHints
from core.text.sanitize import sanitize

if TYPE_CHECKING:
    import torch

    from core.text.tokenizer import Tokenizer

Shard = Mapping[str, Part]

_TRAINED_TO_CHAT = ("chat", "instruct")
_CODE_LLAMA_THETA = 1_000_000
_BUFFERS = {"rope.freqs"}  # in Meta's files, computed anew by Meta's code too


class MetaCheckpoint:
    """An opened checkpoint in Meta's layout: every tensor is found and checked, none is read."""

    def __init__(self, layout: Layout) -> None:
        """Raises UserError for a damaged file, and for what is not a plain Llama."""
        self.name = sanitize(model_name(layout.path))
        self._layout = layout
        self._files = [SourceFile(path) for path in layout.shards]
        shards = [read_pth(file) for file in self._files]
        self.config = _config(layout, shards)
        self.weights: Mapping[str, Weight] = {
            name: self._weight(name, shape, shards) for name, shape in self.config.shapes().items()
        }
        others = sorted({name for shard in shards for name in shard} - self.weights.keys() - _BUFFERS)
        sliding = layout.config.whole("sliding_window") if layout.config.get("sliding_window") else None
        self.notes: tuple[str, ...] = (*ignored(others), *window(sliding, self.config))

    @property
    def stored_dtype(self) -> torch.dtype:
        """The float type of the embedding, and so of all matrices."""
        return self.weights["tok_embeddings.weight"].float_type

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that lies beside it, or the one that was given."""
        from core.text.files import open_tokenizer

        assert self._layout.tokenizer is not None
        return open_tokenizer(self._layout.tokenizer)

    def chat(self) -> ChatHints:
        """By the folder's name: nothing in the files tells a chat model from its base model."""
        name = self.name.lower()
        if not any(word in name for word in _TRAINED_TO_CHAT):
            return ChatHints()
        if "mistral" in name:
            return ChatHints(format="mistral")
        return ChatHints(format="llama3" if self.config.vocab_size > 100_000 else "llama2")

    def close(self) -> None:
        """Give the files back."""
        for file in self._files:
            file.close()

    def _weight(self, name: str, shape: tuple[int, ...], shards: Sequence[Shard]) -> Weight:
        for i, shard in enumerate(shards):
            if name not in shard:
                raise UserError(
                    f"{self._layout.path}: shard {i:02d} has no {name}; the download is not complete"
                )
        parts = tuple(shard[name] for shard in shards)
        axis = join_axis([part.shape for part in parts], shape)
        if axis == _NO_AXIS:
            raise UserError(
                f"{self._layout.path}: {name} is {times(parts[0].shape)} in {len(parts)} shard(s), "
                f"which does not make {times(shape)}; the shards or params.json belong to another model"
            )
        return Weight(shape, parts[:1]) if axis is None else Weight(shape, parts, axis)


_NO_AXIS = -1


def join_axis(parts: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> int | None:
    """How `parts` make `shape`: None if each is all of it, else the dimension to join on, or -1.

    Inferred from shapes alone, since no table of names is right for every release: embeddings are
    split on dimension 1 in Llama 2 and on 0 in Llama 3.
    """
    if all(part == shape for part in parts):
        return None
    for axis in range(len(shape)):
        others_fit = all(
            len(part) == len(shape) and part[:axis] + part[axis + 1 :] == shape[:axis] + shape[axis + 1 :]
            for part in parts
        )
        if others_fit and sum(part[axis] for part in parts) == shape[axis]:
            return axis
    return _NO_AXIS


def _config(layout: Layout, shards: Sequence[Shard]) -> ModelConfig:
    """Sizes from params.json where it gives them, otherwise from the tensors themselves."""
    params = layout.config
    for key in ("moe", "quantization_args"):
        if params.get(key) is not None:
            raise UserError(f"{params.path}: {key} is given, which no plain Llama has; give a plain Llama")
    for name in ("tok_embeddings.weight", "layers.0.feed_forward.w1.weight"):
        for i, shard in enumerate(shards):
            if name not in shard or len(shard[name].shape) != 2:
                raise UserError(f"{layout.path}: shard {i:02d} has no {name}; not a Llama in Meta's layout")
    dim, n_heads = params.whole("dim"), params.whole("n_heads")
    n_layers = params.whole("n_layers")
    if n_layers > len(shards[0]):
        raise UserError(
            f"{params.path}: n_layers is {n_layers}, but there are {len(shards[0])} tensors; fetch it again"
        )
    head_dim = params.whole("head_dim", max(1, dim // n_heads))
    theta, eps = params.number("rope_theta", 10000.0), params.number("norm_eps", 1e-5)
    scaled = bool(params.get("use_scaled_rope"))
    try:
        return ModelConfig(
            dim=dim,
            n_layers=n_layers,
            n_heads=n_heads,
            n_kv_heads=params.whole("n_kv_heads", n_heads),
            head_dim=head_dim,
            hidden_dim=sum(shard["layers.0.feed_forward.w1.weight"].shape[0] for shard in shards),
            vocab_size=_vocab_size(params, shards, dim),
            norm_eps=eps,
            rope_theta=theta,
            rope_divisors=_scaled_rope(params, theta, head_dim) if scaled else (),
            tied="output.weight" not in shards[0],
            max_context=_max_context(params, scaled=scaled, theta=theta, eps=eps),
        )
    except ValueError as error:
        raise UserError(f"{params.path}: {error}; fetch it again") from None


def _scaled_rope(params: Fields, theta: float, head_dim: int) -> tuple[float, ...]:
    """Llama 3.1 and later. Meta's code always takes 8, but the 1B and 3B of 3.2 were trained with 32."""
    factor = params.number("rope_scaling_factor", 32.0 if params.whole("dim") < 4096 else 8.0)
    return llama3_divisors(
        theta,
        head_dim,
        factor=factor,
        low=1.0,
        high=params.number("rope_high_freq_factor", 4.0),
        original=8192,
    )


def _vocab_size(params: Fields, shards: Sequence[Shard], dim: int) -> int:
    given = params.get("vocab_size", -1)
    if isinstance(given, int) and given > 0:
        return given
    # Llama 1 and 2 say -1. The head is always split by rows, the embedding by either dimension.
    if all("output.weight" in shard for shard in shards):
        return sum(shard["output.weight"].rows for shard in shards)
    embeddings = [shard["tok_embeddings.weight"].shape for shard in shards]
    if embeddings[0][1] == dim and len(shards) > 1:
        return sum(rows for rows, _ in embeddings)
    return embeddings[0][0]


def _max_context(params: Fields, *, scaled: bool, theta: float, eps: float) -> int:
    """Meta's files do not say; these are the contexts that the releases were trained with."""
    if scaled:
        trained = 131072  # Llama 3.1 and later
    elif theta >= _CODE_LLAMA_THETA:
        trained = 16384
    elif theta > 10000:
        trained = 8192  # Llama 3
    else:
        trained = 2048 if eps == 1e-6 else 4096  # Llama 1, Llama 2
    return min(params.whole("max_seq_len", trained), params.whole("sliding_window", trained))
