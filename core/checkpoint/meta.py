"""Meta's layout: params.json beside consolidated.NN.pth, one or several shards merged while reading."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from core.checkpoint.layout import Layout
from core.errors import UserError
from core.model.config import ModelConfig

if TYPE_CHECKING:
    from core.text.tokenizer import Tokenizer

Shard = dict[str, Tensor]


class MetaCheckpoint:
    """An opened checkpoint in Meta's layout. Shards stay mapped; nothing is merged before it is asked for."""

    default_system: str | None = None

    def __init__(self, layout: Layout) -> None:
        self.name = layout.path.resolve().name
        self._path = layout.path
        self._tokenizer_path = layout.tokenizer
        self._shards = [_open_shard(path) for path in layout.shards]
        names = {name for shard in self._shards for name in shard}
        self.config = _config(layout, self._shards)
        self._axes = {
            name: self._axis(name, shape) for name, shape in self.config.shapes().items()
        }  # every tensor is checked here, before any large read
        first = self._shards[0]["tok_embeddings.weight"]
        self.stored_dtype = first.dtype
        self.nbytes = sum(
            shard[name].nbytes for shard in self._shards for name in shard if name in self._axes
        )
        self.ignored = sorted(names - set(self._axes) - {"rope.freqs"})
        """Names in the file that no Llama has."""
        # A Llama 2 and its chat variant differ in nothing but the name and the training.
        self.chat_format = "llama2" if "chat" in self.name.lower() else "none"

    def tokenizer(self) -> Tokenizer:
        """The SentencePiece model, of the embedding's size."""
        from core.text.spm import SentencePieceTokenizer

        assert self._tokenizer_path is not None
        tokenizer = SentencePieceTokenizer(self._tokenizer_path)
        if tokenizer.vocab_size != self.config.vocab_size:
            raise UserError(
                f"{self._tokenizer_path}: {tokenizer.vocab_size} tokens, but the checkpoint's embedding has "
                f"{self.config.vocab_size}; give the tokenizer that came with it"
            )
        return tokenizer

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """(name, whole tensor), in the order of computation; single and replicated ones are mapped views."""
        for name, axis in self._axes.items():
            parts = [shard[name] for shard in self._shards]
            yield name, parts[0] if axis is None else torch.cat(parts, dim=axis)

    def _axis(self, name: str, shape: Sequence[int]) -> int | None:
        """The dimension on which the shards of this tensor are joined; None where one holds it all."""
        parts = []
        for i, shard in enumerate(self._shards):
            if name not in shard:
                raise UserError(f"{self._path}: shard {i:02d} has no {name}; the download is not complete")
            parts.append(tuple(shard[name].shape))
        axis = join_axis(parts, tuple(shape))
        if axis is _NO_AXIS:
            raise UserError(
                f"{self._path}: {name} is {_times(parts[0])} in {len(parts)} shard(s), which does not make "
                f"{_times(shape)}; the shards or params.json belong to another model"
            )
        return axis


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


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _open_shard(path: Path) -> Shard:
    """Name -> tensor, memory-mapped. No code in the file is run: `weights_only`."""
    try:
        loaded = torch.load(path, map_location="cpu", mmap=_is_zip(path), weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: holds something other than tensors and was not opened, since it could run code; "
            "fetch the checkpoint from a source you trust"
        ) from None
    except (RuntimeError, ValueError, EOFError, KeyError, OSError) as error:
        raise UserError(f"{path}: truncated or corrupt ({_first_line(error)}); fetch it again") from None
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"{path}: not a table of named tensors; give a checkpoint in Meta's layout")
    return loaded


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"  # older files are one pickle and cannot be mapped


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _config(layout: Layout, shards: Sequence[Shard]) -> ModelConfig:
    """Sizes from params.json where it gives them, otherwise from the tensors themselves."""
    params, source = layout.params, layout.path / "params.json"
    for name in ("tok_embeddings.weight", "layers.0.feed_forward.w1.weight"):
        for i, shard in enumerate(shards):
            if name not in shard or shard[name].ndim != 2:
                raise UserError(f"{layout.path}: shard {i:02d} has no {name}; not a Llama in Meta's layout")
    if params.get("use_scaled_rope"):
        raise UserError(
            f"{source}: use_scaled_rope (Llama 3.1 and later) is not read yet; use a Llama 1 or 2"
        )
    dim, n_heads = _whole(params, "dim", source), _whole(params, "n_heads", source)
    theta = _number(params, "rope_theta", source, 10000.0)
    eps = _number(params, "norm_eps", source, 1e-5)
    try:
        return ModelConfig(
            dim=dim,
            n_layers=_whole(params, "n_layers", source),
            n_heads=n_heads,
            n_kv_heads=_whole(params, "n_kv_heads", source, n_heads),
            head_dim=_whole(params, "head_dim", source, dim // n_heads),
            hidden_dim=sum(shard["layers.0.feed_forward.w1.weight"].shape[0] for shard in shards),
            vocab_size=_vocab_size(params, shards, dim),
            norm_eps=eps,
            rope_theta=theta,
            tied="output.weight" not in shards[0],
            max_context=_whole(params, "max_seq_len", source, _max_context(theta, eps)),
        )
    except ValueError as error:
        raise UserError(f"{source}: {error}; fetch it again") from None


def _vocab_size(params: dict[str, Any], shards: Sequence[Shard], dim: int) -> int:
    given = params.get("vocab_size", -1)
    if isinstance(given, int) and given > 0:
        return given
    # Llama 1 and 2 say -1. The head is always split by rows, the embedding by either dimension.
    if "output.weight" in shards[0]:
        return sum(shard["output.weight"].shape[0] for shard in shards if "output.weight" in shard)
    embeddings = [shard["tok_embeddings.weight"].shape for shard in shards]
    if embeddings[0][1] == dim and len(shards) > 1:
        return sum(rows for rows, _ in embeddings)
    return embeddings[0][0]


def _max_context(theta: float, eps: float) -> int:
    """Meta's files do not say; these are the contexts that the releases were trained with."""
    if theta > 10000:
        return 16384 if theta >= 1_000_000 else 8192  # Code Llama, Llama 3
    return 2048 if eps == 1e-6 else 4096  # Llama 1, Llama 2


def _whole(params: dict[str, Any], key: str, source: Path, default: int | None = None) -> int:
    value = params.get(key)
    if value is None:
        value = default
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
        raise UserError(f"{source}: {key} is {value!r}, not a positive whole number; fetch it again")
    return value


def _number(params: dict[str, Any], key: str, source: Path, default: float) -> float:
    value = params.get(key)
    if value is None:
        value = default
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
        raise UserError(f"{source}: {key} is {value!r}, not a positive number; fetch it again")
    return float(value)
