"""Bytes on disk become a ModelConfig and named tensors, lazily.

`find` looks at names and small headers only and imports no torch, so a mistaken path is refused
before the first frame; `open_checkpoint` validates further and yields tensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from core.checkpoint.layout import Kind, Layout, find

if TYPE_CHECKING:
    import torch

    from core.model.config import ModelConfig
    from core.text.tokenizer import Tokenizer

__all__ = ["Checkpoint", "Kind", "Layout", "find", "open_checkpoint"]


class Checkpoint(Protocol):
    """An opened checkpoint: validated sizes, and tensors under Meta's names one at a time."""

    name: str
    config: ModelConfig
    stored_dtype: torch.dtype
    """The float type of the file; a quantised source names the type it is best computed in."""
    nbytes: int
    """Bytes that `tensors` will read, for progress."""
    chat_format: str
    """"llama2", "chatml" or "none": what the checkpoint itself suggests."""
    default_system: str | None
    """The system prompt of the checkpoint's own template, or None."""

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that belongs to it; UserError where there is none."""
        ...

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """(Meta's name, tensor) for every entry of `config.shapes()`, shards merged, in any order.

        A tensor may be a view of the mapped file: copy it before asking for the next.
        """
        ...


def open_checkpoint(layout: Layout) -> Checkpoint:
    """The reader for what `find` recognised. Raises UserError for anything that is not whole."""
    if layout.kind is Kind.GGUF:
        from core.checkpoint.gguf import GGUFCheckpoint

        return GGUFCheckpoint(layout)
    from core.checkpoint.meta import MetaCheckpoint

    return MetaCheckpoint(layout)
