"""The plain steps between the matrices against float64."""

from __future__ import annotations

import math

import pytest
import torch

from core.model.ops import attend


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize(("rows", "before"), [(2, 0), (128, 0), (129, 0), (300, 0), (300, 1), (150, 700)])
def test_attention_of_a_prompt(heads: int, key_heads: int, rows: int, before: int) -> None:
    """Every row sees the keys up to its own, in whatever parts the rows are computed."""
    torch.manual_seed(rows)
    group, size, length = heads // key_heads, 16, before + rows
    q, (keys, values) = torch.randn(rows, heads, size), torch.randn(2, key_heads, length, size)
    future = torch.ones(rows, length, dtype=torch.bool).triu(before + 1)
    expected = torch.empty(rows, heads, size, dtype=torch.float64)
    for head in range(heads):
        scores = q[:, head].double() @ keys[head // group].double().T / math.sqrt(size)
        expected[:, head] = scores.masked_fill(future, -math.inf).softmax(-1) @ values[head // group].double()
    mask = (~future).repeat_interleave(group, 0)
    out = attend(q, keys, values, mask)
    assert (out - expected.flatten(1)).abs().max() < 2e-6
