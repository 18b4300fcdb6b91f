// Some rows of attention over some positions: products with the keys, softmax, sums of the values.
//
// Names of sizes as in attention.h.
#pragma once

#include <cmath>
#include <cstdint>

#include "vectors.h"

namespace ops {

constexpr int TILE = W == 16 ? 8 : 4;  // rows computed at a time: two vectors of each fill the registers
constexpr int ROUND = 128;  // positions between two corrections of the softmax's maximum
constexpr int AHEAD = 4096;  // bytes from which keys are fetched; less came too late

// What is known of one row so far: the largest score, and the sum of e^(score - largest).
struct Total {
    float largest, sum;
};

// Some rows of one key head, and some positions.
struct Part {
    const float *q;  // [rows][P], zeros up to a whole tile
    const float *q_scales;  // [rows], zeros up to a whole tile, where q is codes of 16 bits: [rows][2 * P]
    const char *keys, *values;  // [count][D]
    const float *key_scales, *value_scales;  // [count], of codes
    const char *next_values, *next_keys;  // read afterwards, as long as these; null: nothing to fetch
    int64_t D, P, rows, count;
    float *sums;  // [rows][P] of weights x values
    Total *totals;  // [rows]
};

// Asks for memory that is read next, while this is computed.
static inline void fetch(const char *from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i, 0, 2);
}

// scores [count][N], up to a vector of them, which are not to be used, too many.
template <int TYPE, int N> static void score(const Part &part, float *scores) {
    constexpr int M = W / N;  // positions at a time: W sums, which become one vector of scores
    const int64_t D = part.D, P = part.P, line = D * BYTES<TYPE>;
    for (int64_t p = 0; p < part.count; p += M, scores += W) {
        const char *keys[M];
        for (int m = 0; m < M; m++) keys[m] = part.keys + smaller(p + m, part.count - 1) * line;
        if (part.next_values) {
            fetch(part.keys + p * line + AHEAD, M * line);
            fetch(part.next_values + p * line, M * line);
        }
        Vector sums[W] = {};
        const auto add = [&](int64_t d, auto load_at) __attribute__((always_inline)) {
            Vector x[N];
#pragma GCC unroll 8
            for (int n = 0; n < N; n++) x[n] = read<Vector>(part.q + n * P + d);
#pragma GCC unroll 16
            for (int m = 0; m < M; m++) {
                const Vector k = load_at(keys[m] + d * BYTES<TYPE>);
#pragma GCC unroll 8
                for (int n = 0; n < N; n++) sums[m * N + n] = fma(x[n], k, sums[m * N + n]);
            }
        };
        int64_t d = 0;
        for (; d + W <= D; d += W) add(d, load<TYPE>);
        if (d < D) add(d, [&](const char *place) { return load_some<TYPE>(place, D - d); });
        write(scores, sums_of(sums));
    }
}

// Scores [count][N] become weights e^(score - largest), 0 where a row does not see the position, and what was
// summed up with another largest score is corrected.
template <int N> static void soften(const Part &part, const int64_t *visible, float *scores) {
    const int64_t length = (part.count * N + W - 1) / W * W;
    for (int64_t n = 0; n < N; n++)
        for (int64_t i = visible[n] * N + n; i < length; i += N) scores[i] = -INFINITY;
    Vector most = read<Vector>(scores), bases, sums = {};
    for (int64_t i = W; i < length; i += W) {
        most = larger(read<Vector>(scores + i), most);
    }
    for (int n = 0; n < N; n++) {
        const float before = n < part.rows ? part.totals[n].largest : -INFINITY;
        float top = before;
        for (int i = n; i < W; i += N) top = most[i] > top ? most[i] : top;
        const float base = top == -INFINITY ? 0 : top;
        for (int i = n; i < W; i += N) bases[i] = base;
        if (n >= part.rows || top == before) continue;
        part.totals[n].largest = top;
        if (before == -INFINITY) continue;  // nothing is summed up yet
        const float keep = exponential(splat(before - base))[0];
        part.totals[n].sum *= keep;
        for (float *x = part.sums + n * part.P; x < part.sums + (n + 1) * part.P; x += W)
            write(x, read<Vector>(x) * keep);
    }
    for (int64_t i = 0; i < length; i += W) {
        const Vector e = exponential(read<Vector>(scores + i) - bases);
        write(scores + i, e);
        sums += e;
    }
    for (int i = 0; i < W; i++)
        if (i % N < part.rows) part.totals[i % N].sum += sums[i];
}

// sums += weights [count][step] x values: `rows` <= N rows, V vectors of the dimensions from d on.
template <int TYPE, int N, int V>
static void gather(const Part &part, int64_t d, const float *weights, int64_t step) {
    if constexpr (N > 1)
        if (part.rows < N) return gather<TYPE, N - 1, V>(part, d, weights, step);
    float *sums = part.sums + d;
    Vector s[N][V];
#pragma GCC unroll 8
    for (int n = 0; n < N; n++)
        for (int j = 0; j < V; j++) s[n][j] = read<Vector>(sums + n * part.P + j * W);
    for (int64_t p = 0; p < part.count; p++) {
        const int64_t at = (p * part.D + d) * BYTES<TYPE>;
        if (part.next_keys) fetch(part.next_keys + at, V * W * BYTES<TYPE>);
        Vector v[V];
        for (int j = 0; j < V; j++)
            v[j] = load_some<TYPE>(part.values + at + j * W * BYTES<TYPE>, V > 1 ? W : part.D - d);
#pragma GCC unroll 8
        for (int n = 0; n < N; n++) {
            const Vector x = splat(weights[p * step + n]);
            for (int j = 0; j < V; j++) s[n][j] = fma(x, v[j], s[n][j]);
        }
    }
#pragma GCC unroll 8
    for (int n = 0; n < N; n++)
        for (int j = 0; j < V; j++) write(sums + n * part.P + j * W, s[n][j]);
}

}  // namespace ops
