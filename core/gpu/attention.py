"""Attention of one new row over the KV cache: rotation, the new row's place in the cache, and the products.

H query heads, K key/value heads, G = H / K, D head size. Each key head's rows are cut into SPLITS parts for
programs of their own, whose results are put together behind (Dao et al. 2023, "Flash-Decoding"). How many
rows there are stands in device memory, so that one CUDA graph serves every position.
"""

from __future__ import annotations

import triton
import triton.language as tl

_LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def _rotated(x, at, d, mask, rope, start, D: tl.constexpr):
    """Values d of rows of x that begin at `at`, rotated for position `start`: pairs (2i, 2i + 1), float32."""
    angle = (start.to(tl.int64) * (D // 2) + d // 2) * 2
    inside = d < D
    cos = tl.load(rope + angle, mask=inside, other=0.0)
    sin = tl.load(rope + angle + 1, mask=inside, other=0.0)
    own = tl.load(x + at + d, mask=mask, other=0.0).to(tl.float32)
    other = tl.load(x + at + (d ^ 1), mask=mask, other=0.0).to(tl.float32)
    return own * cos + tl.where(d % 2 == 0, -other, other) * sin


@triton.jit
def _stored(row, home, scale_home, inside, CODES: tl.constexpr):
    """Put a new row where the cache has it, and give it back as it will be read."""
    if CODES:  # see core.model.cache.quantised
        most = tl.max(tl.abs(row), 0)
        scaled = row * (127.0 / tl.maximum(most, 1e-30))
        # To the nearest, half to even, by where float32 has no fractions any more.
        codes = (scaled + 12582912.0) - 12582912.0
        tl.store(home, codes.to(tl.int8), mask=inside)
        tl.store(scale_home, most / 127.0)
        return codes * (most / 127.0)
    rounded = row.to(home.dtype.element_ty)
    tl.store(home, rounded, mask=inside)
    return rounded.to(tl.float32)


@triton.jit
def _products(q, rows, TYPE: tl.constexpr, ONE: tl.constexpr):
    """q [BG, BD] with rows [BS, BD]: [BG, BS]."""
    if ONE:
        return tl.sum(rows.to(tl.float32) * q, 1)[None, :]
    return tl.dot(q.to(TYPE), tl.trans(rows.to(TYPE)), input_precision="ieee")


@triton.jit
def _weighted(p, rows, TYPE: tl.constexpr, ONE: tl.constexpr):
    """The sums of rows [BS, BD] with weights p [BG, BS]: [BG, BD]."""
    if ONE:
        return tl.sum(rows.to(tl.float32) * tl.trans(p), 0)[None, :]
    return tl.dot(p.to(TYPE), rows.to(TYPE), input_precision="ieee")


@triton.jit
def attend_parts(
    q, k, v, rope, position, keys, values, key_scales, value_scales, parts, stats,
    head_stride, scale_stride, scale,
    G: tl.constexpr, D: tl.constexpr, BG: tl.constexpr, BD: tl.constexpr, BS: tl.constexpr,
    SPLITS: tl.constexpr, CODES: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Program (K, SPLITS): one head's part. `position` is the new row's; whose part it is in stores it.

    Of each query head and part: `parts` float32 [H, SPLITS, D] are weighted sums of values, and `stats`
    [H, SPLITS, 2] the largest score, in powers of two, and the sum of the weights.
    """
    head, split = tl.program_id(0), tl.program_id(1)
    start = tl.load(position)
    length = tl.cdiv(tl.cdiv(start + 1, SPLITS), BS) * BS
    first = split * length
    last = tl.minimum(first + length, start)
    d = tl.arange(0, BD)
    inside = d < D
    g = tl.arange(0, BG)
    query = head * G + g
    mask = (g < G)[:, None] & inside[None, :]
    at = tl.broadcast_to((query * D)[:, None], (BG, BD))
    turned = _rotated(q, at, tl.broadcast_to(d[None, :], (BG, BD)), mask, rope, start, D) * (scale * _LOG2E)
    keys += head.to(tl.int64) * head_stride
    values += head.to(tl.int64) * head_stride
    key_scales += head.to(tl.int64) * scale_stride
    value_scales += head.to(tl.int64) * scale_stride

    most = tl.full((BG,), float("-inf"), tl.float32)
    total = tl.zeros((BG,), tl.float32)
    sums = tl.zeros((BG, BD), tl.float32)
    for at in range(first, last, BS):
        row = at + tl.arange(0, BS)
        there = row < last
        place = row[:, None].to(tl.int64) * D + d[None, :]
        some = there[:, None] & inside[None, :]
        scores = _products(turned, tl.load(keys + place, mask=some, other=0), TYPE, BG == 1)
        if CODES:
            scores *= tl.load(key_scales + row, mask=there, other=0.0)[None, :]
        scores = tl.where(there[None, :], scores, float("-inf"))
        larger = tl.maximum(most, tl.max(scores, 1))
        weights, less = tl.exp2(scores - larger[:, None]), tl.exp2(most - larger)
        total = total * less + tl.sum(weights, 1)
        if CODES:
            weights *= tl.load(value_scales + row, mask=there, other=0.0)[None, :]
        found = _weighted(weights, tl.load(values + place, mask=some, other=0), TYPE, BG == 1)
        sums = sums * less[:, None] + found
        most = larger

    if (start >= first) & (start < first + length):
        place = start.to(tl.int64) * D + d
        row = _rotated(k, head * D, d, inside, rope, start, D)
        key = _stored(row, keys + place, key_scales + start, inside, CODES)
        row = tl.load(v + head * D + d, mask=inside, other=0.0).to(tl.float32)
        value = _stored(row, values + place, value_scales + start, inside, CODES)
        score = tl.sum(turned * key[None, :], 1)
        larger = tl.maximum(most, score)
        weight, less = tl.exp2(score - larger), tl.exp2(most - larger)
        total = total * less + weight
        sums = sums * less[:, None] + weight[:, None] * value[None, :]
        most = larger

    part = query * SPLITS + split
    tl.store(parts + part[:, None] * D + d[None, :], sums, mask=mask)
    tl.store(stats + part * 2, most, mask=g < G)
    tl.store(stats + part * 2 + 1, total, mask=g < G)


@triton.jit
def join_parts(parts, stats, out, D: tl.constexpr, BD: tl.constexpr, SPLITS: tl.constexpr):
    """Program (H): what all parts of a query head come to, [H, D]."""
    head = tl.program_id(0)
    d = tl.arange(0, BD)
    part = head * SPLITS + tl.arange(0, SPLITS)
    most = tl.load(stats + part * 2)
    weight = tl.exp2(most - tl.max(most, 0))
    total = tl.sum(tl.load(stats + part * 2 + 1) * weight, 0)
    sums = tl.load(parts + part[:, None] * D + d[None, :], mask=(d < D)[None, :], other=0.0)
    found = tl.sum(sums * weight[:, None], 0) / total
    tl.store(out + head * D + d, found.to(out.dtype.element_ty), mask=d < D)
