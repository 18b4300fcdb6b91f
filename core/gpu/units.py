"""The units of a model for one row, each in a few launches; for more rows they are the model's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from core.gpu.attend import Attender
from core.gpu.launch import MOST_ROWS, gated, norm, product, takes
from core.model.transformer import Block, Step, Transformer, Unit
from core.weights.matrix import Matrix

_NAMES = ("wq", "wk", "wv", "wo"), ("w1", "w2", "w3")


class FastUnits:
    """What is put in the place of a model's units."""

    def __init__(self, model: Transformer, states: torch.dtype) -> None:
        self._model, self.states = model, states
        self.names: frozenset[str] = frozenset()
        """The units whose place it took last: their launches do not depend on the position."""
        self._attender: Attender | None = None

    @property
    def attender(self) -> Attender:
        """Made when it is first needed, since the model is prepared by then."""
        if self._attender is None:
            config = self._model.config
            self._attender = Attender(config.n_heads, config.n_kv_heads, self._model.rope, self.states)
        return self._attender

    def of(self, units: Sequence[Unit]) -> list[Unit]:
        """Units for those whose matrices all lie on the device; the others as they are."""
        made = [self._fast(unit, self._model.layers[i // 2], i) for i, unit in enumerate(units)]
        self.names = frozenset(new.name for new, own in zip(made, units, strict=True) if new is not own)
        return made

    def _fast(self, unit: Unit, block: nn.Module, i: int) -> Unit:
        assert isinstance(block, Block)
        part = (block.attention, block.feed_forward)[i % 2]
        matrices = [one for name in _NAMES[i % 2] if type(one := getattr(part, name, None)) is Matrix]
        if len(matrices) < len(_NAMES[i % 2]) or not all(takes(one.format, one.columns) for one in matrices):
            return unit
        run = (self._attend, self._feed)[i % 2]
        return Unit(unit.name, unit.modules, partial(run, block, matrices, unit.run))

    def _attend(
        self, block: Block, matrices: Sequence[Matrix], own: Callable[[Tensor, Any], Tensor], x: Tensor,
        step: Step,
    ) -> Tensor:  # fmt: skip
        if x.shape[0] != 1:
            return own(x, step)
        wq, wk, wv, wo = matrices
        kv = step.cache.layer(block.attention.layer, 1)
        normed = norm(x, block.attention_norm.weight, block.attention_norm.eps)
        if wq.format == wk.format == wv.format:
            q, k, v = product((wq, wk, wv), normed).split((wq.rows, wk.rows, wv.rows), dim=-1)
        else:
            q, k, v = (product((one,), normed) for one in (wq, wk, wv))
        self.attender.move_to(step.cache.length)
        return product((wo,), self.attender(q, k, v, kv), x)

    def _feed(
        self, block: Block, matrices: Sequence[Matrix], own: Callable[[Tensor, Any], Tensor], x: Tensor,
        step: Step,
    ) -> Tensor:  # fmt: skip
        if x.shape[0] != 1:
            return own(x, step)
        w1, w2, w3 = matrices
        normed = norm(x, block.ffn_norm.weight, block.ffn_norm.eps)
        if w1.format == w3.format:
            hidden = gated(w1, w3, normed)
        else:
            hidden = step.ops.gate(product((w1,), normed), product((w3,), normed))
        return product((w2,), hidden, x)


class TritonKernel:
    """Packed weights and floats for 1 to 8 rows, each byte read once."""

    name = "triton"

    def takes(self, format: str, columns: int, rows: int) -> bool:
        """Few rows."""
        return rows <= MOST_ROWS and takes(format, columns)

    def product(self, matrix: Matrix, x: Tensor) -> Tensor:
        """See Kernel."""
        return product((matrix,), x)

    def release(self) -> None:
        """See Kernel."""
