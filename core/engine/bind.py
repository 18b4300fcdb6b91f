"""Gives the model its weights: every parameter becomes a view of the bytes where a plan has them.

Bound once for each plan; the hot loop rebinds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from core.checkpoint.reader import Reader
from core.checkpoint.source import Weight
from core.model.config import ModelConfig
from core.model.transformer import Embedding, Transformer, Unit, Units
from core.weights.host_modules import HostEmbedding, OnHost, Rows
from core.weights.needs import Needs, UnitNeed, aligned
from core.weights.plan import Place, Plan
from core.weights.store import Home, flat
from core.weights.streaming import Stream

_STREAMED = (Place.RAM, Place.DISK)
_ATTENTION = ("wq", "wk", "wv", "wo")


class StreamedUnits(Units):
    """Units whose weights arrive just in time."""

    _stream: Stream
    _first: bool

    @classmethod
    def of(cls, units: Iterable[Unit], stream: Stream, *, first: bool) -> Self:
        """`first` for the units that a pass begins with: the slots are made ready for them."""
        made = cls(units)
        made._stream, made._first = stream, first
        return made

    def walk(self, cancelled: Callable[[], bool]) -> Iterator[Unit]:
        """See Stream.walk."""
        if self._first:
            self._stream.prime()
        return self._stream.walk(self, cancelled)


@dataclass(frozen=True, slots=True)
class Memory:
    """Where bytes are under a plan: homes of the weights, norms, and the slot of each streamed unit.

    `rows` reads the embedding where it does not lie on the device.
    """

    homes: Mapping[str, Home]
    norms: Tensor
    slots: Mapping[str, Tensor]
    rows: Rows


def checkpoint_name(short: str) -> str:
    """Meta's name of a matrix: "layers.3.wq" is "layers.3.attention.wq.weight"."""
    if short == "embeddings":
        return "tok_embeddings.weight"
    layer, _, last = short.rpartition(".")
    if not layer:
        return f"{short}.weight"
    return f"{layer}.{'attention' if last in _ATTENTION else 'feed_forward'}.{last}.weight"


def norm_views(norms: Tensor, config: ModelConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """Every norm's weight by Meta's name, as a view of their common bytes."""
    views, start = {}, 0
    for name, shape in config.shapes().items():
        if "norm" in name:
            nbytes = shape[0] * dtype.itemsize
            views[name] = norms[start : start + nbytes].view(dtype)
            start += aligned(nbytes)
    return views


class Binder:
    """A model on a device, and the sizes and type of its weights."""

    def __init__(self, model: Transformer, needs: Needs, dtype: torch.dtype, device: torch.device) -> None:
        self._model, self._needs, self._dtype, self._device = model, needs, dtype, device
        self._shapes = model.config.shapes()
        self._units, self._tiles = tuple(model.units), tuple(model.tiles)
        # Found before anything is wrapped, since a wrapped module has another path.
        self._matrices: dict[str, nn.Module] = {
            w.name: _module(model, checkpoint_name(w.name))
            for need in needs.units[: len(self._units)]
            for w in need.weights
        }
        self._norms = {name: _module(model, name) for name in self._shapes if "norm" in name}
        self._feed_forwards: list[nn.Module] = [block.get_submodule("feed_forward") for block in model.layers]

    def start(self, short: str, weights: Mapping[str, Weight], memory: Tensor, reader: Reader) -> None:
        """Begin to fill `memory`, of a weight's size, out of a file; the reader's `finish` ends it."""
        name = self._name(short)
        reader.start(weights[name], memory.view(self._dtype).view(self._shapes[name]))

    def size_in(self, weights: Mapping[str, Weight], short: str) -> int:
        """The bytes of a weight in a file, which may have them in another type."""
        return weights[self._name(short)].nbytes

    def _name(self, short: str) -> str:
        if short == "output" and self._needs.tied:
            return "tok_embeddings.weight"
        return checkpoint_name(short)

    def release(self) -> None:
        """Let go of all memory but the norms; the model cannot run until it is bound again."""
        for module in (*self._matrices.values(), *(tile.modules[0] for tile in self._tiles)):
            module.weight = _parameter(torch.empty(0))
        self._model.tok_embeddings = nn.Module()
        # They hold the stream, and with it the slots.
        self._model.units, self._model.tiles = Units(self._units), Units(self._tiles)

    def bind(self, plan: Plan, memory: Memory, stream: Stream) -> None:
        """Make every parameter a view of `memory`, and have the units walk with `stream`."""
        model = self._model
        for name, view in norm_views(memory.norms, model.config, self._dtype).items():
            self._norms[name].weight = _parameter(view)
        for need in self._needs.units[: len(self._units)]:
            self._bind_unit(need, plan, memory)
        for i, block in enumerate(model.layers):
            self._wrap(i, block, plan)
        tiles = [self._bind_tile(i, plan, memory) for i in range(len(self._tiles))]
        self._bind_embedding(plan, memory)
        model.units = StreamedUnits.of(self._units, stream, first=True)
        model.tiles = StreamedUnits.of(tiles, stream, first=False)

    def _bind_unit(self, need: UnitNeed, plan: Plan, memory: Memory) -> None:
        offsets = flat(w for w in need.weights if plan.places[w.name] in _STREAMED)
        for weight in need.weights:
            if weight.name in offsets:
                start = offsets[weight.name]
                view = memory.slots[need.name][start : start + weight.nbytes]
            else:
                home = memory.homes[weight.name].memory
                assert home is not None, weight.name
                view = home
            shape = self._shapes[checkpoint_name(weight.name)]
            self._matrices[weight.name].weight = _parameter(view.view(self._dtype).view(shape))

    def _wrap(self, i: int, block: nn.Module, plan: Plan) -> None:
        """Have what is placed on the CPU computed there; a whole feed-forward goes there and back once."""
        names = {last: f"layers.{i}.{last}" for last in (*_ATTENTION, "w1", "w2", "w3")}
        foreign = {last for last, name in names.items() if self._is_foreign(plan.places[name])}
        feed_forward = self._feed_forwards[i]
        whole = {"w1", "w2", "w3"} <= foreign
        block.feed_forward = OnHost(feed_forward, self._device) if whole else feed_forward
        for last, name in names.items():
            module = self._matrices[name]
            parent = block.attention if last in _ATTENTION else feed_forward
            alone = last in foreign and not (whole and last not in _ATTENTION)
            setattr(parent, last, OnHost(module, self._device) if alone else module)

    def _bind_tile(self, i: int, plan: Plan, memory: Memory) -> Unit:
        """A tile of the output head, computed on the CPU where it is placed there."""
        unit, place = self._tiles[i], plan.places["output"]
        start, stop = self._needs.tile_rows[i], self._needs.tile_rows[i + 1]
        row = self._model.config.dim * self._dtype.itemsize
        if place in _STREAMED:
            view = memory.slots[unit.name][: (stop - start) * row]
        else:
            home = memory.homes["output"].memory
            assert home is not None
            view = home[start * row : stop * row]
        (module,) = unit.modules
        module.weight = _parameter(view.view(self._dtype).view(stop - start, -1))
        if not self._is_foreign(place):
            return unit
        there = OnHost(module, self._device)
        return Unit(unit.name, unit.modules, lambda x, step: there(x))

    def _bind_embedding(self, plan: Plan, memory: Memory) -> None:
        """A matrix where the device can read it, else rows from wherever they are."""
        name, config = "output" if self._needs.tied else "embeddings", self._model.config
        place, home = plan.places[name], memory.homes[name].memory
        if home is None or place in _STREAMED or self._is_foreign(place):
            embedding: nn.Module = HostEmbedding(memory.rows, config.dim, self._dtype, self._device)
        else:
            with torch.device("meta"):
                embedding = Embedding(config.vocab_size, config.dim)
            embedding.weight = _parameter(home.view(self._dtype).view(config.vocab_size, config.dim))
        self._model.tok_embeddings = embedding

    def _is_foreign(self, place: Place) -> bool:
        """True for what is computed on the CPU while the states live elsewhere."""
        return place is Place.CPU and self._device.type != "cpu"


def _module(model: Transformer, name: str) -> nn.Module:
    return model.get_submodule(name.removesuffix(".weight"))


def _parameter(view: Tensor) -> nn.Parameter:
    return nn.Parameter(view, requires_grad=False)
