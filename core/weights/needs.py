"""What a model needs, in bytes: arithmetic on its sizes, without torch.

Weights go by short names: "layers.3.wq", "layers.3.w2", "embeddings", "output". Norms are so small that
they always stay where the model is computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from core.model.cache_size import cache_bytes
from core.model.config import ModelConfig
from core.weights.layouts import FLOATS, fits, size_of

ALIGN = 256  # bytes; where a weight begins in the flat bytes of its unit
_LEAST_TILE = 32 * 10**6  # bytes; smaller tiles of the output head would cost more calls than they save room

FLOAT_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def aligned(nbytes: int) -> int:
    """`nbytes` rounded up to where the next weight may begin."""
    return -(-nbytes // ALIGN) * ALIGN


@dataclass(frozen=True, slots=True)
class WeightNeed:
    """One matrix: its short name, its size in bytes, its format (see `core.weights.layouts`), and its shape
    as rows and columns, (0, 0) where that is of no interest.
    """

    name: str
    nbytes: int
    format: str = "float16"
    shape: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class UnitNeed:
    """A unit of the model, "layers.3.attention", and its matrices in the order of their bytes."""

    name: str
    weights: tuple[WeightNeed, ...]


@dataclass(frozen=True, slots=True)
class Needs:
    """A model in its final formats with a context. All sizes in bytes.

    `dtype` is the float type of what is in no packed format, `quant` what was asked for, `states` the type
    of what goes from unit to unit; `embedding_format` is the head's where tied.

    `units` are computed in this order, the tiles of the output head last ("output.0", …, each with one
    weight of the same name, rows `tile_rows[i]` to `tile_rows[i + 1]`). A tied model's embedding is its
    output head: `embeddings` is 0 then. A pass over T rows takes `workspace + T * workspace_row` besides.
    """

    dtype: str
    quant: str
    states: str
    kv_type: str
    context: int
    units: tuple[UnitNeed, ...]
    tile_rows: tuple[int, ...]
    embeddings: int
    embedding_row: int
    embedding_format: str
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
    def format(self) -> str:
        """The format that most bytes of the layers are in."""
        sizes: dict[str, int] = {}
        for weight in (weight for unit in self.units for weight in unit.weights):
            if weight.name.startswith("layers."):
                sizes[weight.format] = sizes.get(weight.format, 0) + weight.nbytes
        return max(sizes, key=sizes.__getitem__)

    @property
    def product(self) -> str:
        """What most bytes of the layers are multiplied as, by which rates are known: their format, or
        "int8-mixed".
        """
        return MIXED if self.quant == MIXED else self.format

    @property
    def weights(self) -> int:
        """All matrices and norms."""
        return sum(w.nbytes for unit in self.units for w in unit.weights) + self.embeddings + self.norms


MIXED = "int8-mixed"
"""The weights of "int8", byte for byte, multiplied by bitsandbytes' mixed decomposition."""

_INSTEAD = {"int4-128": "int4", "int4": "int8", "nf4": "int8"}  # where a row cannot be cut into groups
TILE_VALUES = 4 * 2**20
"""Weights that are made floats at once, where a kernel needs floats: the workspace of a matrix."""
_TILE_BYTES = 10  # of each of them: as float32 and in 16 bits, and what it was made of


def needs_of(
    config: ModelConfig,
    dtype: str,
    context: int,
    max_rows: int,
    *,
    kv_type: str | None = None,
    states: str | None = None,
    quant: str = "none",
    kept: Mapping[str, str] | None = None,
    beside: int = 0,
) -> Needs:
    """The needs of a model whose floats are of the type `dtype`.

    `kv_type` and `states` are as `dtype` if not given. Matrices are quantised to `quant`; with "none",
    those in `kept` (Meta's name: format) are left as their file has them. `beside` is what the device needs
    of workspace for more than the pass itself.
    """
    kv_type, states = kv_type or dtype, states or dtype
    item = FLOAT_BYTES[dtype]
    shapes = config.shapes()
    formats = formats_of(config, dtype, quant, kept or {})

    def need(short: str, name: str) -> WeightNeed:
        shape = (shapes[name][0], shapes[name][-1])
        return WeightNeed(short, matrix_bytes(formats[name], *shape), formats[name], shape)

    units = []
    for i in range(config.n_layers):
        for part, names in (("attention", ("wq", "wk", "wv", "wo")), ("feed_forward", ("w1", "w2", "w3"))):
            unit = f"layers.{i}.{part}"
            needs = tuple(need(f"layers.{i}.{w}", f"{unit}.{w}.weight") for w in names)
            units.append(UnitNeed(unit, needs))
    head = formats["tok_embeddings.weight" if config.tied else "output.weight"]
    attention = sum(weight.nbytes for weight in units[0].weights)
    rows = tile_rows(config.vocab_size, matrix_bytes(head, config.vocab_size, config.dim), attention)
    for i, (start, stop) in enumerate(pairwise(rows)):
        shape = (stop - start, config.dim)
        tile = WeightNeed(f"output.{i}", matrix_bytes(head, *shape), head, shape)
        units.append(UnitNeed(tile.name, (tile,)))
    workspace, workspace_row = _workspace(config, context, formats, states, kv_type)
    return Needs(
        dtype=dtype,
        quant=quant,
        states=states,
        kv_type=kv_type,
        context=context,
        units=tuple(units),
        tile_rows=rows,
        embeddings=0 if config.tied else matrix_bytes(dtype, config.vocab_size, config.dim),
        embedding_row=config.dim * item,
        embedding_format=head if config.tied else dtype,
        norms=sum(aligned(shape[0] * item) for shape in shapes.values() if len(shape) == 1),
        kv=cache_bytes(config, context, kv_type),
        workspace=workspace + beside,
        workspace_row=workspace_row,
        max_rows=max_rows,
    )


def _workspace(
    config: ModelConfig, context: int, formats: Mapping[str, str], states: str, kv_type: str
) -> tuple[int, int]:
    """What a pass takes besides the weights and the cache: once, and for each of its rows."""
    item = FLOAT_BYTES[states]
    kv_item = FLOAT_BYTES.get(kv_type, item)  # codes are computed in the type of the states
    group, kv_width = config.n_heads // config.n_kv_heads, config.n_kv_heads * config.head_dim
    # Alive at once in the widest moment of each part of a pass, for one row: states, their float32 copies
    # in a norm, what the matrices give, and the mask with its float form.
    residual = config.dim * (2 * item + 8)
    attention = (3 * config.n_heads * config.head_dim + 3 * kv_width) * max(item, kv_item)
    attention += context * group * (1 + kv_item)
    feed_forward = 4 * config.hidden_dim * item
    shapes = config.shapes()
    widest = max(math.prod(shapes[name]) for name in formats)
    tile = 0 if set(formats.values()) == {states} else min(widest, TILE_VALUES) * _TILE_BYTES
    # Attention over many rows wants keys and values in the type of the states.
    cast = 0 if kv_type == states else 2 * context * kv_width * item
    if kv_type == "int8":  # the values of codes have a place of their own
        tile, cast = tile + cast, 0
    logits = config.vocab_size * (4 + item)
    return logits + context * config.head_dim * 4 + max(tile, cast), residual + max(attention, feed_forward)


def format_of(quant: str) -> str:
    """The format that weights are quantised to; "none" for "none"."""
    return "int8" if quant == MIXED else quant


def formats_of(config: ModelConfig, dtype: str, quant: str, kept: Mapping[str, str]) -> dict[str, str]:
    """The format of every matrix, by Meta's name.

    The output head is in 8 bits where others have 4, since it alone decides between tokens that are close;
    an embedding of its own stays in `dtype`: only a row of it is read. A matrix whose rows cannot be cut
    into groups is in the next finer format.
    """
    formats = {}
    for name, shape in config.shapes().items():
        *_, columns = shape
        if len(shape) < 2:
            continue
        is_head = name == ("tok_embeddings.weight" if config.tied else "output.weight")
        if name == "tok_embeddings.weight" and not is_head:
            formats[name] = dtype
        elif quant == "none":
            format = kept.get(name, dtype)
            formats[name] = format if fits(format, columns) else dtype
        else:
            format = "int8" if is_head else format_of(quant)
            while not fits(format, columns):
                format = _INSTEAD[format]
            formats[name] = format
    return formats


def matrix_bytes(format: str, rows: int, columns: int) -> int:
    """What a matrix takes: floats exactly, so that tiles of one matrix have no gap; others aligned."""
    size = size_of(format, rows, columns)
    return size if format in FLOATS else aligned(size)


def tile_rows(rows: int, head: int, attention: int) -> tuple[int, ...]:
    """Where the row tiles of an output head of `head` bytes begin, and its end: 0, …, `rows`.

    From the sizes alone, so that a head gives the same bits wherever its tiles are. No tile is larger than
    an attention unit (or 32 MB), so tiles never decide how large a slot is; and there is an even number of
    them, since otherwise the last and the first unit of a pass would share one of two slots.
    """
    count = -(-head // max(attention, _LEAST_TILE))
    count = min(count + count % 2 if count > 1 else 1, rows)
    return tuple(rows * i // count for i in range(count + 1))
