"""What a model needs, in bytes: arithmetic on its sizes, without torch.

Weights go by short names: "layers.3.wq", "layers.3.w2", "embeddings", "output". Norms are so small that
they always stay where the model is computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from core.model.config import ModelConfig

ALIGN = 256  # bytes; where a weight begins in the flat bytes of its unit
_LEAST_TILE = 32 * 10**6  # bytes; smaller tiles of the output head would cost more calls than they save room

FLOAT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def aligned(nbytes: int) -> int:
    """`nbytes` rounded up to where the next weight may begin."""
    return -(-nbytes // ALIGN) * ALIGN


@dataclass(frozen=True, slots=True)
class WeightNeed:
    """One matrix: its short name, its place in a unit's flat bytes, and its own size."""

    name: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class UnitNeed:
    """A unit of the model, "layers.3.attention", and its matrices in the order of their bytes."""

    name: str
    weights: tuple[WeightNeed, ...]


@dataclass(frozen=True, slots=True)
class Needs:
    """A model in its final format with a context. All sizes in bytes.

    `units` are computed in this order, the tiles of the output head last ("output.0", …, each with one
    weight of the same name, rows `tile_rows[i]` to `tile_rows[i + 1]`). A tied model's embedding is its
    output head: `embeddings` is 0 then. A pass over T rows takes `workspace + T * workspace_row` besides.
    """

    dtype: str
    quant: str
    kv_type: str
    context: int
    units: tuple[UnitNeed, ...]
    tile_rows: tuple[int, ...]
    embeddings: int
    embedding_row: int
    norms: int
    kv: int
    workspace: int
    workspace_row: int
    max_rows: int  # most rows that one pass may have

    @property
    def tied(self) -> bool:
        """True where embedding and output head are the same bytes."""
        return self.embeddings == 0

    @property
    def weights(self) -> int:
        """All matrices and norms."""
        return sum(w.nbytes for unit in self.units for w in unit.weights) + self.embeddings + self.norms


def needs_of(
    config: ModelConfig, dtype: str, context: int, max_rows: int, *, kv_type: str | None = None
) -> Needs:
    """The needs of a model whose weights are of the float type `dtype`; `kv_type` as `dtype` if not given."""
    kv_type = kv_type or dtype
    item, kv_item = FLOAT_BYTES[dtype], FLOAT_BYTES[kv_type]
    sizes = {name: _numel(shape) * item for name, shape in config.shapes().items()}
    units = []
    for i in range(config.n_layers):
        for part, names in (("attention", ("wq", "wk", "wv", "wo")), ("feed_forward", ("w1", "w2", "w3"))):
            unit = f"layers.{i}.{part}"
            needs = (WeightNeed(f"layers.{i}.{w}", sizes[f"{unit}.{w}.weight"]) for w in names)
            units.append(UnitNeed(unit, tuple(needs)))
    rows = tile_rows(config, item)
    for i, (start, stop) in enumerate(pairwise(rows)):
        tile = WeightNeed(f"output.{i}", (stop - start) * config.dim * item)
        units.append(UnitNeed(tile.name, (tile,)))
    group, kv_width = config.n_heads // config.n_kv_heads, config.n_kv_heads * config.head_dim
    # Alive at once in the widest moment of each part of a pass, for one row: states, their float32 copies
    # in a norm, what the matrices give, and the mask with its float form.
    residual = config.dim * (2 * item + 8)
    attention = (3 * config.n_heads * config.head_dim + 3 * kv_width) * max(item, kv_item)
    attention += context * group * (1 + kv_item)
    feed_forward = 4 * config.hidden_dim * item
    return Needs(
        dtype=dtype,
        quant="none",
        kv_type=kv_type,
        context=context,
        units=tuple(units),
        tile_rows=rows,
        embeddings=0 if config.tied else sizes["tok_embeddings.weight"],
        embedding_row=config.dim * item,
        norms=sum(aligned(size) for name, size in sizes.items() if "norm" in name),
        kv=2 * config.n_layers * context * kv_width * kv_item,
        workspace=config.vocab_size * (4 + item) + context * config.head_dim * 4,
        workspace_row=residual + max(attention, feed_forward),
        max_rows=max_rows,
    )


def tile_rows(config: ModelConfig, itemsize: int) -> tuple[int, ...]:
    """Where the row tiles of the output head begin, and its end: 0, …, vocabulary.

    From the sizes alone, so that a head gives the same bits wherever its tiles are. No tile is larger than
    an attention unit (or 32 MB), so tiles never decide how large a slot is; and there is an even number of
    them, since otherwise the last and the first unit of a pass would share one of two slots.
    """
    attention = (2 * config.n_heads + 2 * config.n_kv_heads) * config.head_dim * config.dim * itemsize
    head = config.vocab_size * config.dim * itemsize
    count = -(-head // max(attention, _LEAST_TILE))
    count = min(count + count % 2 if count > 1 else 1, config.vocab_size)
    return tuple(config.vocab_size * i // count for i in range(count + 1))


def _numel(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count
