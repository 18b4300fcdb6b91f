"""Norm, gate and attention as one compiled call each; the C side is ops.cpp.

T new tokens, H query heads, K key heads, D head size. All tensors lie on the CPU. A small model makes
hundreds of these calls a token: what a tensor says of itself is looked up once where it can be, and shapes
are checked by asserts alone.
"""

from __future__ import annotations

import ctypes
from struct import Struct

import torch
from torch import Tensor

_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.int8: 3}
_ATTENTION = Struct("=20q").pack  # `struct Attention`: packing costs less than as many arguments


class OpsCalls:
    """The functions of ops.cpp in a loaded library, which other Python threads run beside."""

    def __init__(self, library: ctypes.CDLL) -> None:
        number, pointer, small = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int32
        self._norm = library.rms_norm
        self._norm.argtypes = (pointer, number, number, pointer, small, ctypes.c_float, pointer)
        self._norm.restype = None
        self._gate = library.gate
        self._gate.argtypes = (pointer, number, pointer, number, number, number, pointer)
        self._gate.restype = None
        self._attend = library.attend
        self._attend.argtypes = (ctypes.c_char_p,)

    def norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / rms(x) * weight: float32 [T, dim] from contiguous float32 [T, dim] and a weight [dim]."""
        rows, columns = x.shape
        assert x.dtype is torch.float32 and x.is_contiguous() and weight.shape == (columns,)
        out = torch.empty_like(x)
        self._norm(x.data_ptr(), rows, columns, weight.data_ptr(), _TYPES[weight.dtype], eps, out.data_ptr())
        return out

    def gate(self, a: Tensor, b: Tensor) -> Tensor:
        """silu(a) * b: float32 [T, F] of the same, whose rows may lie apart."""
        rows, columns = a.shape
        assert a.dtype is b.dtype is torch.float32 and b.shape == (rows, columns)
        a_stride, a_step = a.stride()
        b_stride, b_step = b.stride()
        assert a_step == b_step == 1
        out = torch.empty(rows, columns)
        self._gate(a.data_ptr(), a_stride, b.data_ptr(), b_stride, rows, columns, out.data_ptr())
        return out

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, rope: Tensor, keys: Tensor, values: Tensor,
        start: int, head_dim: int, key_scales: Tensor | None = None, value_scales: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Rotate q and k, write k and v behind the `start` tokens of the cache, and attend: [T, H * D].

        q [T, H * D], k and v [T, K * D] in float32, their rows apart as they like; rope [T, D / 2] complex,
        contiguous; keys and values [K, capacity, D], the whole memory of a layer, alike in strides and in
        type, which is any float or int8: codes, with their scales [K, capacity] in float32. Every new token
        sees those before it and itself. Raises MemoryError.
        """
        T, width = q.shape
        K, capacity, D = keys.shape
        apart, line, _ = keys.stride()
        assert line == D == head_dim and start + T <= capacity and keys.shape == values.shape
        assert k.shape == v.shape == (T, K * D) and rope.shape == (T, D // 2) and width % (K * D) == 0
        assert q.dtype is k.dtype is v.dtype is torch.float32
        scales, scales_apart = (0, 0), 0
        if key_scales is not None and value_scales is not None:
            scales, scales_apart = (key_scales.data_ptr(), value_scales.data_ptr()), key_scales.stride(0)
            assert key_scales.dtype is value_scales.dtype is torch.float32
            assert key_scales.stride() == value_scales.stride() == (scales_apart, 1)
        assert (scales_apart > 0) is (keys.dtype is torch.int8)
        out = torch.empty(T, width)
        packed = _ATTENTION(
            q.data_ptr(), k.data_ptr(), v.data_ptr(), q.stride(0), k.stride(0), v.stride(0),
            rope.data_ptr(), keys.data_ptr(), values.data_ptr(), *scales, apart, scales_apart,
            _TYPES[keys.dtype], out.data_ptr(), T, width // D, K, D, start,
        )  # fmt: skip
        if self._attend(packed):
            raise MemoryError(f"attention of {T} tokens behind {start}")
        return out
