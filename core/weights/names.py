"""Which weights of a model a name means. No torch."""

from __future__ import annotations

from collections.abc import Iterable

from core.weights.name_grammar import ATTENTION, ENDS, FEED_FORWARD, MATRICES, read_name, split_names
from core.weights.needs import Needs

__all__ = ["ATTENTION", "FEED_FORWARD", "MATRICES", "layer_count", "select", "split_names"]


def select(names: Iterable[str], needs: Needs, flag: str = "--offload-exclusion") -> frozenset[str]:
    """The short names of the weights that `names` mean: "layers.3.wq", "output", "embeddings".

    A tied model's embedding is its "output". Raises UserError for an unknown name or layer.
    """
    layers = layer_count(needs)
    chosen: set[str] = set()
    for name in names:
        first, last, parts = read_name(name, flag, layers)
        chosen.update(f"layers.{i}.{part}" for i in range(first, last + 1) for part in parts)
        if name in ENDS:
            chosen.add("output" if needs.tied else name)
    return frozenset(chosen)


def layer_count(needs: Needs) -> int:
    """How many layers a model has."""
    return sum(unit.name.endswith(".attention") for unit in needs.units)
