"""What a checkpoint has to tell its user, in one line each."""

from __future__ import annotations

from collections.abc import Sequence

from core.model.config import ModelConfig


def ignored(names: Sequence[str]) -> tuple[str, ...]:
    """Tensors that no Llama has."""
    if not names:
        return ()
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return (f"the checkpoint also holds {names[0]!r:.60}{more}, which a Llama does not have: not used",)


def window(tokens: int | None, config: ModelConfig) -> tuple[str, ...]:
    """A sliding window that limits the context."""
    if tokens is None or tokens > config.max_context:
        return ()
    return (f"this model looks back {tokens} tokens only (sliding window): its context ends there",)
