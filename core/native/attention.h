// Attention over the cache.
//
// T new tokens, S all tokens so far (start + T), H query heads, K key heads, G = H / K, D head size.
// W lanes of a vector, P = D rounded up to whole vectors. R = T * G rows: the queries (t, g) that share a
// key head, row t * G + g; up to ROWS are computed together, so that the cache is read once for all of them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "attention_codes.h"
#include "attention_rows.h"
#include "vectors.h"

// Everything that attention needs, as ops_calls.py packs it: eight bytes each.
struct Attention {
    const float *q, *k, *v;  // T rows of H * D, K * D and K * D
    int64_t q_stride, k_stride, v_stride;  // elements from row to row
    const float *rope;  // [T][D / 2] pairs of cosine and sine
    void *keys, *values;  // [K][capacity][D], `head_stride` elements from head to head
    float *key_scales, *value_scales;  // of codes: [K][capacity], `scale_stride` elements from head to head
    int64_t head_stride, scale_stride, type;
    float *out;  // [T][H * D]
    int64_t T, H, K, D, start;
};

namespace ops {

constexpr int64_t UNITS = 64;  // into which positions are divided at most; bounds what waits to be merged
constexpr int64_t ROWS = 64;  // of a unit at most; whole tiles
// Multiplications, and elements, from which a second thread earns the microseconds that it takes to wake it.
constexpr int64_t PARALLEL = 200000, PARALLEL_ELEMENTS = 16384;

// Adjacent pairs of one head, turned and scaled.
static void rotate(const float *x, const float *rope, int64_t D, float scale, float *out) {
    for (int64_t d = 0; d < D; d += 2) {
        out[d] = (x[d] * rope[d] - x[d + 1] * rope[d + 1]) * scale;
        out[d + 1] = (x[d] * rope[d + 1] + x[d + 1] * rope[d]) * scale;
    }
}

// The new key of one head and token, rotated, and its value, into the cache. `row` has room for P floats.
template <int TYPE> static void append(const Attention &a, int64_t head, int64_t t, float *row) {
    const float *v = a.v + t * a.v_stride + head * a.D;
    const int64_t to = head * a.head_stride + (a.start + t) * a.D;
    rotate(a.k + t * a.k_stride + head * a.D, a.rope + t * a.D, a.D, 1, row);
    if constexpr (TYPE == INT8) {
        const int64_t at = head * a.scale_stride + a.start + t;
        a.key_scales[at] = quantise(row, a.D, 127, (int8_t *)a.keys + to);
        a.value_scales[at] = quantise(v, a.D, 127, (int8_t *)a.values + to);
    } else {
        for (int64_t d = 0; d < a.D; d += W) {
            const int64_t at = (to + d) * BYTES<TYPE>, left = a.D - d;
            store<TYPE>((char *)a.keys + at, load_some<FLOAT32>(row + d, left), left);
            store<TYPE>((char *)a.values + at, load_some<FLOAT32>(v + d, left), left);
        }
    }
}

// `rows` <= N rows, which see `visible` of the positions, at most ROUND.
template <int TYPE, int N> static void tile(const Part &part, const int64_t *visible) {
    if constexpr (N > 1)
        if (part.rows <= N / 2) return tile<TYPE, N / 2>(part, visible);
    alignas(64) float scores[ROUND * N + W];
    if constexpr (TYPE == INT8) {
        score_codes<N>(part, scores);
        soften<N>(part, visible, scores);
        return gather_codes<N>(part, scores);
    }
    score<TYPE, N>(part, scores);
    soften<N>(part, visible, scores);
    int64_t d = 0;
    for (; d + 2 * W <= part.D; d += 2 * W) gather<TYPE, N, 2>(part, d, scores, N);
    for (; d < part.D; d += W) gather<TYPE, N, 1>(part, d, scores, N);
}

// One part of the work: rows of a head, from `row` on, over the positions `first` to `stop`.
struct Unit {
    int64_t head, row, first, stop;
};

// sums [rows][P] and totals [rows] of a unit.
template <int TYPE> static void attend_unit(const Attention &a, const Unit &unit, Part part) {
    const int64_t G = a.H / a.K, rows = part.rows, line = a.D * BYTES<TYPE>;
    const Part whole = part;
    std::memset(part.sums, 0, rows * part.P * sizeof *part.sums);
    for (int64_t r = 0; r < rows; r++) part.totals[r] = {-INFINITY, 0};
    const int64_t stop = smaller(unit.stop, a.start + (unit.row + rows - 1) / G + 1);  // what the last row sees
    for (int64_t first = unit.first; first < stop; first += ROUND) {
        const int64_t at = unit.head * a.head_stride * BYTES<TYPE> + first * line;
        part.keys = (const char *)a.keys + at, part.values = (const char *)a.values + at;
        if constexpr (TYPE == INT8) {
            const int64_t scale = unit.head * a.scale_stride + first;
            part.key_scales = a.key_scales + scale, part.value_scales = a.value_scales + scale;
        }
        part.next_values = part.values;
        part.next_keys = part.keys + ROUND * line;  // maybe another unit's, or beyond them all, which is no harm
        for (int64_t row = 0; row < rows; row += TILE) {
            // How many of the positions from `first` on a row sees.
            const auto seen = [&](int64_t r) { return a.start + (unit.row + r) / G + 1 - first; };
            part.rows = smaller(rows - row, TILE);
            part.count = smaller(smaller(stop - first, ROUND), seen(row + part.rows - 1));
            if (part.count <= 0) continue;
            int64_t visible[TILE];
            for (int n = 0; n < TILE; n++) {
                const int64_t all = seen(row + n);
                visible[n] = all < 0 ? 0 : smaller(all, part.count);
            }
            part.q = whole.q + row * part.P, part.sums = whole.sums + row * part.P;
            part.totals = whole.totals + row;
            if (whole.q_scales) part.q_scales = whole.q_scales + row;
            tile<TYPE, TILE>(part, visible);
            part.next_values = part.next_keys = nullptr;
        }
    }
}

// Puts the `splits` parts of a row together: sums `stride` floats apart, totals R apart.
static void merge(const Total *totals, int64_t R, const float *sums, int64_t stride, int64_t splits,
                  int64_t D, float *out) {
    float most = -INFINITY, whole = 0, shares[UNITS];
    for (int64_t i = 0; i < splits; i++) most = totals[i * R].largest > most ? totals[i * R].largest : most;
    for (int64_t i = 0; i < splits; i++) {
        shares[i] = exponential(splat(totals[i * R].largest - most))[0];
        whole += totals[i * R].sum * shares[i];
    }
    for (int64_t d = 0; d < D; d += W) {
        Vector total = {};
        for (int64_t i = 0; i < splits; i++) total += read<Vector>(sums + i * stride + d) * shares[i];
        store<FLOAT32>(out + d, total / whole, D - d);
    }
}

// Memory of the calling thread, kept from call to call.
struct Scratch {
    float *memory = nullptr;
    size_t size = 0;
    ~Scratch() { std::free(memory); }
    float *room(size_t floats) {
        if (floats > size) {
            std::free(memory);
            memory = (float *)std::aligned_alloc(64, (floats + 15) / 16 * 64);
            size = memory ? floats : 0;
        }
        return memory;
    }
};

template <int TYPE> static int attend(const Attention &a) {
    const int64_t D = a.D, P = (D + W - 1) / W * W, G = a.H / a.K, R = a.T * G, S = a.start + a.T;
    // By the work and not by the number of threads, on which the result must not depend.
    const int64_t blocks = (R + ROWS - 1) / ROWS, rows = (R + blocks * TILE - 1) / (blocks * TILE) * TILE;
    const int64_t heads = a.K * blocks;
    const int64_t wanted = smaller((S + ROUND - 1) / ROUND, heads < UNITS ? UNITS / heads : 1);
    const int64_t length = (S + wanted - 1) / wanted, splits = (S + length - 1) / length;
    const int64_t queries = (R + TILE) * P;  // of one head, and zeros behind them
    static thread_local Scratch scratch;
    float *q = scratch.room(a.K * queries + a.K * splits * R * (P + 2) + a.K * (R + TILE));
    if (q == nullptr) return 1;
    float *sums = q + a.K * queries;
    Total *totals = (Total *)(sums + a.K * splits * R * P);
    float *q_scales = (float *)(totals + a.K * splits * R);  // of each head's queries, and zeros behind them
    std::memset(q, 0, a.K * queries * sizeof *q);
    if (TYPE == INT8) std::memset(q_scales, 0, a.K * (R + TILE) * sizeof *q_scales);
#pragma omp parallel for if (a.T * a.H * D > PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < a.T * a.K; i++) {
        const int64_t t = i / a.K, head = i % a.K;
        const float *rope = a.rope + t * D;
        float *to = q + head * queries + t * G * P;
        append<TYPE>(a, head, t, to);  // the room is taken afterwards
        for (int64_t g = 0; g < G; g++) {
            float *row = to + g * P;
            rotate(a.q + t * a.q_stride + (head * G + g) * D, rope, D, 1 / std::sqrt(float(D)), row);
            if (TYPE == INT8) q_scales[head * (R + TILE) + t * G + g] = encode(row, D, P);
        }
    }
#pragma omp parallel if (S * a.K * P * (R + 4) > PARALLEL)
    {
        const auto run = [&](int64_t i) {
            const int64_t head = i / (blocks * splits), split = i / blocks % splits, row = i % blocks * rows;
            const int64_t first = split * length, at = (head * splits + split) * R + row;
            Part part = {};
            part.q = q + head * queries + row * P, part.sums = sums + at * P, part.totals = totals + at;
            part.D = D, part.P = P, part.rows = smaller(R - row, rows);
            if (TYPE == INT8) part.q_scales = q_scales + head * (R + TILE) + row;
            attend_unit<TYPE>(a, {head, row, first, smaller(first + length, S)}, part);
        };
        // The units of one token are short: whoever takes some in a row has the next one's keys at hand.
        if (a.T == 1) {
#pragma omp for schedule(guided)
            for (int64_t i = 0; i < heads * splits; i++) run(i);
        } else {
#pragma omp for schedule(dynamic)
            for (int64_t i = 0; i < heads * splits; i++) run(i);
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < a.T * a.H; i++) {
            const int64_t h = i % a.H, first = h / G * splits, r = i / a.H * G + h % G;
            merge(totals + first * R + r, R, sums + (first * R + r) * P, R * P, splits, D, a.out + i * D);
        }
    }
    return 0;
}

}  // namespace ops
