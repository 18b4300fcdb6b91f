"""Products of a few rows with matrices as they lie in memory: Triton kernels that read each byte once.

M rows of x, 1 to 8; N rows of a matrix (outputs), K columns (inputs). The layouts are those of
core/weights/layouts.py. Up to three matrices of one format and width are multiplied in one launch: the
pointers are the first one's, and `to1`, `to2` the distances to the others in elements, so that the compiler
still knows how all of them are aligned. For one row SwiGLU's gate behind two matrices and a residual to be
added are part of the launch, since on a fast card a launch costs as much as some megabytes.

The arithmetic is float32; what is rounded is the result.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _one_of(second, third, a, b, c):
    """What belongs to the matrix of this program: the first, the second or the third."""
    return tl.where(third, c, tl.where(second, b, a))


@triton.jit
def _own_rows(n0, n1, n2, BN: tl.constexpr):
    """This program's block of BN rows: its number in its matrix, the rows' numbers there [BN] and which of
    them there are, how many outputs lie before that matrix's, and whether it is the second or third one.
    """
    block, b0, b1 = tl.program_id(0), tl.cdiv(n0, BN), tl.cdiv(n1, BN)
    second, third = block >= b0, block >= b0 + b1
    own = block - _one_of(second, third, 0, b0, b0 + b1)
    n = own * BN + tl.arange(0, BN)
    inside = n < _one_of(second, third, n0, n1, n2)
    return own, n, inside, _one_of(second, third, 0, n0, n0 + n1), second, third


@triton.jit
def _finish(y, other, out, residual, n, inside, GATE: tl.constexpr, RESIDUAL: tl.constexpr):
    """The gate and the residual of the products of one row, which are then stored."""
    if GATE:
        y = y / (1.0 + tl.exp(-y)) * other
    if RESIDUAL:
        y += tl.load(residual + n, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + n, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _row_values(
    w, scales, n, inside, start,
    K: tl.constexpr, GROUP: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Values of rows n, columns from `start` on, without the scale of a whole row: float32 [BN, BK]."""
    k = start + tl.arange(0, BK)
    mask = inside[:, None] & (k < K)[None, :]
    values = tl.load(w + n[:, None].to(tl.int64) * K + k[None, :], mask=mask, other=0).to(tl.float32)
    if GROUP:
        group = start // GROUP + tl.arange(0, BK // GROUP)
        mask = inside[:, None] & (group < K // GROUP)[None, :]
        scale = tl.load(scales + n[:, None].to(tl.int64) * (K // GROUP) + group[None, :], mask=mask, other=0)
        values = tl.reshape(values, (BN, BK // GROUP, GROUP)) * scale.to(tl.float32)[:, :, None]
        values = tl.reshape(values, (BN, BK))
    return values


@triton.jit
def rows_product(
    x, residual, out, w, scales, to1, to2, scale_to1, scale_to2, n0, n1, n2,
    M: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr, ROW_SCALE: tl.constexpr,
    GATE: tl.constexpr, RESIDUAL: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Of rows that lie behind each other: floats, "int8" (a ROW_SCALE) and "q8_0" (a scale for each GROUP).

    Each program has BN rows of one matrix. With GATE the second matrix belongs to the first, row by row.
    """
    _, n, inside, before, second, third = _own_rows(n0, n1, n2, BN)
    w += _one_of(second, third, 0, to1, to2)
    scales += _one_of(second, third, 0, scale_to1, scale_to2)
    if M == 1:
        total = tl.zeros((BN, BK), tl.float32)
        other = tl.zeros((BN, BK), tl.float32)
        for start in range(0, K, BK):
            k = start + tl.arange(0, BK)
            some = tl.load(x + k, mask=k < K, other=0.0).to(tl.float32)
            total += _row_values(w, scales, n, inside, start, K, GROUP, BN, BK) * some[None, :]
            if GATE:
                more = _row_values(w + to1, scales + scale_to1, n, inside, start, K, GROUP, BN, BK)
                other += more * some[None, :]
        y, z = tl.sum(total, 1), tl.sum(other, 1)
        if ROW_SCALE:
            y *= tl.load(scales + n, mask=inside, other=0.0) / 127
            if GATE:
                z *= tl.load(scales + scale_to1 + n, mask=inside, other=0.0) / 127
        _finish(y, z, out, residual, n + before, inside, GATE, RESIDUAL)
    else:
        m = tl.arange(0, BM)
        sums = tl.zeros((BM, BN, BK), tl.float32)
        for start in range(0, K, BK):
            k = start + tl.arange(0, BK)
            mask = (m < M)[:, None] & (k < K)[None, :]
            some = tl.load(x + m[:, None] * K + k[None, :], mask=mask, other=0.0)
            values = _row_values(w, scales, n, inside, start, K, GROUP, BN, BK)
            sums += values[None, :, :] * some.to(tl.float32)[:, None, :]
        y = tl.sum(sums, 2)
        if ROW_SCALE:
            y *= (tl.load(scales + n, mask=inside, other=0.0) / 127)[None, :]
        width = n0 + n1 + n2
        place = m[:, None] * width + (n + before)[None, :]
        tl.store(out + place, y.to(out.dtype.element_ty), mask=(m < M)[:, None] & inside[None, :])


@triton.jit
def _four_bits(words, one, PLACE: tl.constexpr):
    """`_extra(PLACE)` + code / 16 as float32, of the codes in this place of words, of which each has eight.

    Their bits become those of a float's mantissa, which takes two operations where a conversion takes many.
    Two places share a shift. What is there besides the code is taken away again at the end, and loses little
    that float32 sums of such products would have had. `one` has the bits of 1.0.
    """
    if PLACE < 4:
        moved = words << (15 - 8 * (PLACE // 2))
    else:
        moved = words >> (8 * (PLACE // 2) - 15)
    if PLACE % 2 == 0:
        bits = (moved & 0x78000) | (one + 0x2000000)
    else:
        bits = (moved & 0x780000) | one
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def _extra(PLACE: tl.constexpr):
    """What `_four_bits` has besides the code."""
    return 16.0 if PLACE % 2 == 0 else 1.0


@triton.jit
def _scaled(part, sums, extras, scales, minima, at, MINIMA: tl.constexpr):
    """Products [.., quads, 16 rows] with what `_four_bits` gave, times their groups' scales and with their
    minima; `sums` are those of x, `extras` of x times what was besides the codes.
    """
    scale = tl.load(scales + at).to(tl.float32)
    if MINIMA:
        least = tl.load(minima + at).to(tl.float32)
    else:
        least = -8.0 * scale
    return (part - extras) * (16.0 * scale) + sums * least


@triton.jit
def nibbles_product(
    x, residual, out, w, scales, minima,
    to1, to2, scale_to1, scale_to2, least_to1, least_to2, n0, n1, n2, one,
    M: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr, MINIMA: tl.constexpr,
    GATE: tl.constexpr, RESIDUAL: tl.constexpr,
    QUADS: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Of blocks of 16 rows by 8 columns, which are 16 words: "int4", "q4_0" and "q4_1".

    Each program has one block of rows, and QUADS times 32 columns at a time. As long as it has more threads
    than QUADS, each of them loads what it needs of x; else they would exchange it, and wait for each other.
    """
    row = tl.arange(0, 16)
    own, n, inside, before, second, third = _own_rows(n0, n1, n2, 16)
    w += _one_of(second, third, 0, to1, to2)
    scales += _one_of(second, third, 0, scale_to1, scale_to2)
    minima += _one_of(second, third, 0, least_to1, least_to2)
    wide: tl.constexpr = K // 32
    first = own.to(tl.int64) * (wide * 64)
    first_group = own.to(tl.int64) * (K // GROUP * 16)
    m = tl.arange(0, BM)
    if M == 1:
        total = tl.zeros((QUADS, 16), tl.float32)
        other = tl.zeros((QUADS, 16), tl.float32)
    else:
        total = tl.zeros((BM, QUADS, 16), tl.float32)
    for start in range(0, wide, QUADS):
        quad = start + tl.arange(0, QUADS)
        there = quad < wide
        quad = tl.where(there, quad, 0)  # beyond the end x is 0, and what it is multiplied with some number
        place = first + quad[:, None] * 64 + row[None, :]
        group = first_group + (quad // (GROUP // 32))[:, None] * 16 + row[None, :]
        if M == 1:
            part = tl.zeros((QUADS, 16), tl.float32)
            part1 = tl.zeros((QUADS, 16), tl.float32)
            # Sums of x for each of the two constants.
            sums1 = tl.zeros((QUADS,), tl.float32)
            sums16 = tl.zeros((QUADS,), tl.float32)
            for j in tl.static_range(4):
                words = tl.load(w + place + j * 16)
                if GATE:
                    words1 = tl.load(w + to1 + place + j * 16)
                for i in tl.static_range(8):
                    column = quad * 32 + j * 8 + i
                    some = tl.load(x + column, mask=there, other=0.0).to(tl.float32)
                    if i < 4:
                        sums16 += some
                    else:
                        sums1 += some
                    part += _four_bits(words, one, 2 * (i % 4) + i // 4) * some[:, None]
                    if GATE:
                        part1 += _four_bits(words1, one, 2 * (i % 4) + i // 4) * some[:, None]
            sums = (sums1 + sums16)[:, None]
            extras = (sums1 + 16.0 * sums16)[:, None]
            total += _scaled(part, sums, extras, scales, minima, group, MINIMA)
            if GATE:
                other += _scaled(part1, sums, extras, scales + scale_to1, minima + least_to1, group, MINIMA)
        else:
            parts = tl.zeros((BM, QUADS, 16), tl.float32)
            all_sums = tl.zeros((BM, QUADS), tl.float32)
            all_extras = tl.zeros((BM, QUADS), tl.float32)
            for j in tl.static_range(4):
                words = tl.load(w + place + j * 16)
                for i in tl.static_range(8):
                    column = quad * 32 + j * 8 + i
                    mask = (m < M)[:, None] & there[None, :]
                    some = tl.load(x + m[:, None] * K + column[None, :], mask=mask, other=0.0).to(tl.float32)
                    all_sums += some
                    all_extras += _extra(2 * (i % 4) + i // 4) * some
                    value = _four_bits(words, one, 2 * (i % 4) + i // 4)
                    parts += value[None, :, :] * some[:, :, None]
            sums, extras = all_sums[:, :, None], all_extras[:, :, None]
            total += _scaled(parts, sums, extras, scales, minima, group[None, :, :], MINIMA)
    if M == 1:
        y, z = tl.sum(total, 0), tl.sum(other, 0)
        _finish(y, z, out, residual, n + before, inside, GATE, RESIDUAL)
    else:
        width = n0 + n1 + n2
        place = m[:, None] * width + (n + before)[None, :]
        y = tl.sum(total, 1)
        tl.store(out + place, y.to(out.dtype.element_ty), mask=(m < M)[:, None] & inside[None, :])


@triton.jit
def table_product(
    x, residual, out, w, scales, table, to1, to2, scale_to1, scale_to2, n0, n1, n2,
    M: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr, RESIDUAL: tl.constexpr, OCTETS: tl.constexpr,
):  # fmt: skip
    """Of blocks as `nibbles_product` has them whose codes stand in a `table` of 16 values: "nf4".

    All codes of a step are looked up at once, since threads meet at each look. M rows one after another.
    """
    row = tl.arange(0, 16)
    own, n, inside, before, second, third = _own_rows(n0, n1, n2, 16)
    w += _one_of(second, third, 0, to1, to2)
    scales += _one_of(second, third, 0, scale_to1, scale_to2)
    wide: tl.constexpr = K // 8
    first = own.to(tl.int64) * (wide * 16)
    first_group = own.to(tl.int64) * (K // GROUP * 16)
    i = tl.arange(0, 8)
    shift = 8 * (i % 4) + 4 * (i // 4)
    values = tl.load(table + row)
    for m in range(M):
        total = tl.zeros((OCTETS, 16), tl.float32)
        for start in range(0, wide, OCTETS):
            octet = start + tl.arange(0, OCTETS)
            there = octet < wide
            octet = tl.where(there, octet, 0)
            words = tl.load(w + first + octet[:, None] * 16 + row[None, :])
            group = first_group + (octet // (GROUP // 8))[:, None] * 16 + row[None, :]
            some = tl.load(x + m * K + octet[None, :] * 8 + i[:, None], mask=there[None, :], other=0.0)
            codes = (words[None, :, :] >> shift[:, None, None]) & 15
            found = tl.gather(values, tl.reshape(codes, (8 * OCTETS * 16,)), 0)
            found = tl.reshape(found, (8, OCTETS, 16)) * some.to(tl.float32)[:, :, None]
            total += tl.sum(found, 0) * tl.load(scales + group)
        y = tl.sum(total, 0)
        _finish(y, y, out + m * (n0 + n1 + n2), residual, n + before, inside, False, RESIDUAL)


@triton.jit
def norm_row(x, gain, out, eps, K: tl.constexpr, WIDE: tl.constexpr):
    """x / rms(x) * gain of one row, by one program: see `core.model.ops.Ops.norm`."""
    k = tl.arange(0, WIDE)
    inside = k < K
    some = tl.load(x + k, mask=inside, other=0.0).to(tl.float32)
    factor = tl.rsqrt(tl.sum(some * some, 0) / K + eps)
    weight = tl.load(gain + k, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + k, (some * factor * weight).to(out.dtype.element_ty), mask=inside)
