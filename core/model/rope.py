"""Rotary positions (arXiv 2104.09864), and the ways in which releases stretch them.

T tokens, D head size. A stretched model differs from a plain one only in what its D/2 frequencies
theta^(-2i/D) are divided by.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from core.model.config import ModelConfig


def llama3_divisors(
    theta: float, head_dim: int, *, factor: float, low: float, high: float, original: int
) -> tuple[float, ...]:
    """Llama 3.1's: `factor` for waves that do not fit `low` times in the `original` context, 1 for
    those that fit more than `high` times, and a blend of the frequencies between (llama_models,
    models/llama3/model.py). Raises ValueError.
    """
    if not 0 < low < high:
        raise ValueError(f"the rotary bounds {low:g} and {high:g} are not in order")
    divisors = []
    for i in range(head_dim // 2):
        turns = original * theta ** (-2 * i / head_dim) / (2 * math.pi)
        share = min(1.0, max(0.0, (turns - low) / (high - low)))  # of the frequency that stays
        divisors.append(1 / (share + (1 - share) / factor))
    return tuple(divisors)


def linear_divisors(head_dim: int, factor: float) -> tuple[float, ...]:
    """Position interpolation (arXiv 2306.15595): all alike."""
    return (factor,) * (head_dim // 2)


def rope_table(config: ModelConfig, length: int) -> Tensor:
    """Rotations [length, D/2], unit complex: angle = position * theta^(-2i/D) / divisor."""
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    frequencies = config.rope_theta**-exponent
    if config.rope_divisors:
        frequencies /= torch.tensor(config.rope_divisors, dtype=torch.float64)
    angles = torch.outer(torch.arange(length, dtype=torch.float64), frequencies)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """Rotate adjacent pairs (2i, 2i+1) of [T, heads, D], Meta's layout, in float32."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rope[:, None]).flatten(-2).type_as(x)
