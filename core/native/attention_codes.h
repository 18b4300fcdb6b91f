// As attention_rows.h, over keys and values that are codes of 8 bits, without making floats of them: queries
// and weights become codes of 16 bits, whose products with those of 8 are whole numbers of 32. What that
// loses is a hundredth of what the 8 bits have lost before.
#pragma once

#include <cstdint>

#include "attention_rows.h"
#include "codes.h"

namespace ops {

#if LANES > 4
// A query [P], zeros from D on, becomes codes [2 * P] in its place; their scale. No sum of D products with
// codes of 8 bits leaves 32 bits.
static float encode(float *row, int64_t D, int64_t P) {
    int16_t *codes = (int16_t *)row;
    const float scale = quantise(row, D, smaller(32767, (1 << 24) / D), codes);
    std::memset(codes + D, 0, (2 * P - D) * sizeof *codes);
    return scale;
}

// See `score`: of `rows` <= R of N rows, which is what products are saved by.
template <int N, int R = N> static void score_codes(const Part &part, float *scores) {
    if constexpr (R > 1)
        if (part.rows < R) return score_codes<N, R - 1>(part, scores);
    constexpr int M = W / N;
    const int64_t D = part.D;
    const int16_t *q = (const int16_t *)part.q;
    const Vector q_scales = repeated<N>(part.q_scales);
    float *to = scores;
    for (int64_t p = 0; p < part.count; p += M, to += W) {
        const char *keys[M];
        for (int m = 0; m < M; m++) keys[m] = part.keys + smaller(p + m, part.count - 1) * D;
        if (part.next_values) {
            fetch(part.keys + p * D + AHEAD, M * D);
            fetch(part.next_values + p * D, M * D);
        }
        Ints sums[W / 2] = {};
        const auto add = [&](int64_t d, auto load_at) __attribute__((always_inline)) {
            Shorts x[R];
#pragma GCC unroll 8
            for (int n = 0; n < R; n++) x[n] = load_twice(q + n * 2 * part.P + d);
#pragma GCC unroll 8
            for (int m = 0; m < M / 2; m++) {
                const Shorts k = load_at(keys[m] + d, keys[m + M / 2] + d);
#pragma GCC unroll 8
                for (int n = 0; n < R; n++) sums[m * N + n] = dot(sums[m * N + n], x[n], k);
            }
        };
        int64_t d = 0;
        for (; d + W <= D; d += W) add(d, load_halves);
        if (d < D)
            add(d, [&](const char *a, const char *b) {
                const Bytes x = load_codes(a, D - d), y = load_codes(b, D - d);
                return load_halves((const char *)&x, (const char *)&y);
            });
        write(to, as_floats(sums_of_halves(sums)) * q_scales);
    }
    multiply<N, ROUND>(part.key_scales, part.count, scores);
}

// Weights [count][N] of values, times the scales of these, become codes of 16 bits in pairs
// [(count + 1) / 2][N][2]: of each position in the first half, and of the one as far behind it as the half is
// long. `scales` [N] are theirs.
template <int N> static void encode_weights(const Part &part, float *weights, int32_t *pairs, float *scales) {
    const int64_t length = part.count * N, half = (part.count + 1) / 2 * N;
    multiply<N, ROUND>(part.value_scales, part.count, weights);
    for (int64_t i = length; i < half * 2 + W; i++) weights[i] = 0;
    Vector most = {}, faults = {}, inverse;
    for (int64_t i = 0; i < length; i += W) {
        const Vector w = read<Vector>(weights + i);
        most = larger(w, most), faults += w * 0;
    }
    for (int n = 0; n < N; n++) {
        float largest = 1e-30f, fault = 0;
        for (int i = n; i < W; i += N) largest = most[i] > largest ? most[i] : largest, fault += faults[i];
        scales[n] = largest / 32767 + fault;
        for (int i = n; i < W; i += N) inverse[i] = 32767 / largest;
    }
    const auto code = [&](int64_t i) {
        return __builtin_convertvector(fma(read<Vector>(weights + i), inverse, splat(.5f)), Ints);
    };
    for (int64_t i = 0; i < half; i += W) {
        const Ints both = code(i) | code(i + half) << 16;
        std::memcpy(pairs + i, &both, sizeof both);
    }
}

// See `gather`: the dimensions d to d + 2 * W.
template <int N>
static void gather_pairs(const Part &part, int64_t d, const int32_t *pairs, const float *scales,
                         int64_t step) {
    if constexpr (N > 1)
        if (part.rows < N) return gather_pairs<N - 1>(part, d, pairs, scales, step);
    Ints s[N][2] = {};
    const int64_t D = part.D, half = (part.count + 1) / 2;
    const auto add = [&](auto load_at) __attribute__((always_inline)) {
        for (int64_t p = 0; p < half; p++) {
            const int64_t row = p * D + d, other = smaller(p + half, part.count - 1) * D + d;
            if (part.next_keys && d % 64 == 0)
                fetch(part.next_keys + row, 64), fetch(part.next_keys + other, 64);
            Shorts first, second;
            pair(load_at(part.values + row), load_at(part.values + other), first, second);
#pragma GCC unroll 8
            for (int n = 0; n < N; n++) {
                const Shorts w = cast<Shorts>(pairs[p * step + n] - Ints{});
                s[n][0] = dot(s[n][0], w, first), s[n][1] = dot(s[n][1], w, second);
            }
        }
    };
    if (d + 2 * W <= D) add([](const char *place) { return read<Bytes>(place); });
    else add([&](const char *place) { return load_codes(place, D - d); });
#pragma GCC unroll 8
    for (int n = 0; n < N; n++) {
        in_order(s[n][0], s[n][1]);
        float *sums = part.sums + n * part.P + d;
        write(sums, fma(as_floats(s[n][0]), splat(scales[n]), read<Vector>(sums)));
        if (d + W < part.P)
            write(sums + W, fma(as_floats(s[n][1]), splat(scales[n]), read<Vector>(sums + W)));
    }
}

template <int N> static void gather_codes(const Part &part, float *weights) {
    alignas(64) int32_t pairs[ROUND / 2 * N + W];
    float scales[N];
    encode_weights<N>(part, weights, pairs, scales);
    for (int64_t d = 0; d < part.D; d += 2 * W) gather_pairs<N>(part, d, pairs, scales, N);
}
#else
// Without such instructions, as floats.
static float encode(float *, int64_t, int64_t) { return 1; }

template <int N> static void score_codes(const Part &part, float *scores) {
    score<INT8, N>(part, scores);
    multiply<N, ROUND>(part.key_scales, part.count, scores);
}

template <int N> static void gather_codes(const Part &part, float *weights) {
    multiply<N, ROUND>(part.value_scales, part.count, weights);
    for (int64_t d = 0; d < part.D; d += W) gather<INT8, N, 1>(part, d, weights, N);
}
#endif

}  // namespace ops
