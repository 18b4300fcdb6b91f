"""Gives the model its weights: every parameter becomes a view of the bytes where a plan has them.

Bound once for each plan; the hot loop rebinds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from core.checkpoint.reader import Reader
from core.checkpoint.source import Weight, rows_of
from core.engine.embedding import EmbeddingRows, Read, RowEmbedding
from core.engine.filling import start_filling
from core.model.config import ModelConfig
from core.model.ops import Ops
from core.model.transformer import Transformer, Unit, Units
from core.weights.host_modules import OnHost
from core.weights.kernels import Kernels
from core.weights.matrix import Matrix
from core.weights.needs import Needs, UnitNeed, aligned, matrix_bytes
from core.weights.plan import Place, Plan
from core.weights.store import Home, flat
from core.weights.streaming import Stream

if TYPE_CHECKING:
    from core.gpu.units import FastUnits

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

    `read` finds bytes of the embedding where they are in no memory, and `arrived` is told how many bytes of
    it come to the device.
    """

    homes: Mapping[str, Home]
    norms: Tensor
    slots: Mapping[str, Tensor]
    read: Callable[[str, int, Tensor], None]
    arrived: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Compute:
    """What multiplies and what is computed between: on the device, and on the CPU where weights lie there.

    `fast` makes units for one row out of a model's own, where the device has kernels for whole units.
    """

    kernels: Kernels
    ops: Ops
    host_kernels: Kernels
    host_ops: Ops
    fast: Callable[[Transformer, torch.dtype], FastUnits] | None = None


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
    """A model on a device, and the sizes and formats of its weights."""

    def __init__(self, model: Transformer, needs: Needs, device: torch.device, compute: Compute) -> None:
        self._model, self._needs, self._device, self._compute = model, needs, device, compute
        self._dtype = getattr(torch, needs.dtype)
        self._shapes = shapes = model.config.shapes()
        self._units, self._tiles = tuple(model.units), tuple(model.tiles)
        model.ops = compute.ops
        self.fast = None if compute.fast is None else compute.fast(model, getattr(torch, needs.states))
        """What makes the units of one row; None where they are the model's own."""
        self._matrices = {
            w.name: _matrix(shapes[checkpoint_name(w.name)], w.format)
            for need in needs.units[: len(self._units)]
            for w in need.weights
        }
        self._formats = {name: matrix.format for name, matrix in self._matrices.items()}
        self._heads = [
            Matrix(stop - start, model.config.dim, need.weights[0].format)
            for (start, stop), need in zip(
                pairwise(needs.tile_rows), needs.units[len(self._units) :], strict=True
            )
        ]
        model.output = nn.ModuleList(self._heads)
        self._norms = {name: _module(model, name) for name in shapes if "norm" in name}
        self._feed_forwards: list[nn.Module] = [block.get_submodule("feed_forward") for block in model.layers]

    def start(self, short: str, weights: Mapping[str, Weight], memory: Tensor, reader: Reader) -> None:
        """Begin to fill `memory`, of a weight's size, out of a file; the reader's `finish` ends it."""
        weight = weights[self._name(short)]
        if short != "output":
            format = self._formats.get(short, self._needs.dtype)
            start_filling(reader, weight, format, memory)
            return
        at = 0
        for head, (first, last) in zip(self._heads, pairwise(self._needs.tile_rows), strict=True):
            nbytes = matrix_bytes(head.format, head.rows, head.columns)
            tile = weight if len(self._heads) == 1 else rows_of(weight, first, last)
            start_filling(reader, tile, head.format, memory[at : at + nbytes])
            at += nbytes

    def size_in(self, weights: Mapping[str, Weight], short: str) -> int:
        """The bytes of a weight in a file, which may have them in another type."""
        return weights[self._name(short)].nbytes

    def _name(self, short: str) -> str:
        if short == "output" and self._needs.tied:
            return "tok_embeddings.weight"
        return checkpoint_name(short)

    def release(self) -> None:
        """Let go of all memory but the norms; the model cannot run until it is bound again."""
        for matrix in (*self._matrices.values(), *self._heads):
            matrix.release()
        self._compute.kernels.forget()
        self._compute.host_kernels.forget()
        self._model.tok_embeddings = nn.Module()
        # They hold the stream, and with it the slots.
        self._model.units, self._model.tiles = Units(self._units), Units(self._tiles)

    def bind(self, plan: Plan, memory: Memory, stream: Stream) -> None:
        """Make every matrix a view of `memory`, and have the units walk with `stream`."""
        model = self._model
        for name, view in norm_views(memory.norms, model.config, self._dtype).items():
            self._norms[name].weight = _parameter(view)
        for need in self._needs.units[: len(self._units)]:
            self._bind_unit(need, plan, memory)
        for i, block in enumerate(model.layers):
            self._wrap(i, block, plan)
        tiles = self._bind_head(plan, memory)
        self._bind_embedding(plan, memory)
        units = self._units if self.fast is None else self.fast.of(self._units)
        model.units = StreamedUnits.of(units, stream, first=True)
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
            self._matrices[weight.name].bind(view, self._kernels(plan.places[weight.name]))

    def _kernels(self, place: Place) -> Kernels:
        return self._compute.host_kernels if self._is_foreign(place) else self._compute.kernels

    def _wrap(self, i: int, block: nn.Module, plan: Plan) -> None:
        """Have what is placed on the CPU computed there; a whole feed-forward goes there and back once."""
        names = {last: f"layers.{i}.{last}" for last in (*_ATTENTION, "w1", "w2", "w3")}
        foreign = {last for last, name in names.items() if self._is_foreign(plan.places[name])}
        feed_forward = self._feed_forwards[i]
        whole = {"w1", "w2", "w3"} <= foreign
        there = OnHost(feed_forward, self._device, self._compute.host_ops)
        block.feed_forward = there if whole else feed_forward
        for last, name in names.items():
            module = self._matrices[name]
            parent = block.attention if last in _ATTENTION else feed_forward
            alone = last in foreign and not (whole and last not in _ATTENTION)
            setattr(parent, last, OnHost(module, self._device) if alone else module)

    def _bind_head(self, plan: Plan, memory: Memory) -> list[Unit]:
        """The tiles of the output head, computed on the CPU where they are placed there."""
        place, units, at = plan.places["output"], [], 0
        for unit, head in zip(self._tiles, self._heads, strict=True):
            if place in _STREAMED:
                view = memory.slots[unit.name]
            else:
                home = memory.homes["output"].memory
                assert home is not None
                view = home[at:]
            head.bind(view, self._kernels(place))
            at += matrix_bytes(head.format, head.rows, head.columns)
            module = OnHost(head, self._device) if self._is_foreign(place) else head
            units.append(Unit(unit.name, (head,), _only_states(module)))
        return units

    def _bind_embedding(self, plan: Plan, memory: Memory) -> None:
        """Rows of it, from wherever it is; what is streamed as the head is read where it waits."""
        name, config = "output" if self._needs.tied else "embeddings", self._model.config
        there = plan.places[name] not in _STREAMED and not self._is_foreign(plan.places[name])

        def arrived(nbytes: int) -> None:
            if not there:
                memory.arrived(nbytes)

        rows = EmbeddingRows(
            self._needs, config.dim, config.vocab_size, memory.homes[name].memory, _reader(memory, name)
        )
        states = getattr(torch, self._needs.states)
        self._model.tok_embeddings = RowEmbedding(rows, self._device, states, arrived)

    def _is_foreign(self, place: Place) -> bool:
        """True for what is computed on the CPU while the states live elsewhere."""
        return place is Place.CPU and self._device.type != "cpu"


def _module(model: Transformer, name: str) -> nn.Module:
    return model.get_submodule(name.removesuffix(".weight"))


def _matrix(shape: tuple[int, ...], format: str) -> Matrix:
    rows, columns = shape
    return Matrix(rows, columns, format)


def _only_states(module: nn.Module) -> Callable[[Tensor, Any], Tensor]:
    return lambda x, step: module(x)


def _reader(memory: Memory, name: str) -> Read:
    return lambda start, home: memory.read(name, start, home)


def _parameter(view: Tensor) -> nn.Parameter:
    return nn.Parameter(view, requires_grad=False)
