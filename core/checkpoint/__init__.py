"""Bytes on disk become a ModelConfig and weights that can be read one at a time.

`find` looks at names and small files only and imports no torch, so a mistaken path is refused before
the first frame; `open_checkpoint` reads and checks every header; a `Reader` reads the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from core.checkpoint.layout import Kind, Layout, find

if TYPE_CHECKING:
    import torch

    from core.checkpoint.source import Weight
    from core.model.config import ModelConfig
    from core.text.dialogue import ChatHints
    from core.text.tokenizer import Tokenizer

__all__ = ["Checkpoint", "Kind", "Layout", "blocks_of", "find", "open_checkpoint"]


class Checkpoint(Protocol):
    """An opened checkpoint: validated sizes, and where each weight lies, under Meta's names."""

    name: str
    config: ModelConfig
    weights: Mapping[str, Weight]
    """Every entry of `config.shapes()`, in the order of computation, each of that shape."""
    notes: tuple[str, ...]
    """What the user should know: tensors that are not used, a context that is limited."""

    @property
    def stored_dtype(self) -> torch.dtype:
        """The float type of the matrices; a quantised source names the type it is best computed in."""
        ...

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that belongs to it; UserError where there is none."""
        ...

    def chat(self) -> ChatHints:
        """What it says of how it was trained to chat."""
        ...

    def close(self) -> None:
        """Give the files back; no weight can be read any more."""
        ...


def open_checkpoint(layout: Layout) -> Checkpoint:
    """The reader for what `find` recognised. Raises UserError for anything that is not whole."""
    if layout.kind is Kind.GGUF:
        from core.checkpoint.gguf import GGUFCheckpoint

        return GGUFCheckpoint(layout)
    if layout.kind is Kind.HUGGINGFACE:
        from core.checkpoint.huggingface import HuggingFaceCheckpoint

        return HuggingFaceCheckpoint(layout)
    from core.checkpoint.meta import MetaCheckpoint

    return MetaCheckpoint(layout)


def blocks_of(checkpoint: Checkpoint) -> dict[str, str]:
    """The matrices that a file has quantised, by Meta's name: ggml's type."""
    from core.checkpoint.source import BlockType

    return {
        name: weight.type.name
        for name, weight in checkpoint.weights.items()
        if isinstance(weight.type, BlockType)
    }
