// Products with many rows of x in bfloat16, summed in float32, where the processor multiplies such pairs.
#pragma once

#include "matrix_many.h"

#if defined(WITH_BF16)

namespace {

constexpr int64_t PANEL_PAIRS = 128;  // of columns, in a panel: 16 KB, half of the first cache

// x: pairs of columns [M, stride], zeros behind.
struct Pairs {
    uint32_t *values;
    int64_t columns, stride;

    explicit Pairs(int64_t all) : columns(all) {
        stride = (columns + 31) / 32 * 16 + 16;  // no power of two: rows would share the same few cache lines
    }
    int64_t bytes_of_row() const { return stride * int64_t(sizeof(uint32_t)); }
    void lie_in(char *memory) { values = reinterpret_cast<uint32_t *>(memory); }
    void take(int64_t m, const float *x) {
        for (int64_t k = 0; k < columns; k += 32) {
            const __m512 low = _mm512_maskz_loadu_ps(first_lanes(columns - k), x + k);
            const __m512 high = _mm512_maskz_loadu_ps(first_lanes(columns - k - 16), x + k + 16);
            _mm512_storeu_si512(values + m * stride + k / 2, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
    }
};

// What one thread works on. pairs: columns 2k and 2k + 1 of output n at [k][n].
struct alignas(64) PairPanel {
    uint32_t pairs[PANEL_PAIRS][WIDE];
    float sums[TALL][WIDE];
};

// Columns from..to of 16 rows of floats into outputs first..first + 15 of the panel.
void fill_floats(const Matrix &matrix, int64_t row, int64_t from, int64_t to, int first, PairPanel &panel) {
    const auto *values = static_cast<const uint16_t *>(matrix.values);
    for (int64_t k = from; k < to; k += 32) {
        const __mmask32 there = to - k >= 32 ? ~0u : (1u << (to - k)) - 1;
        __m512i rows[16];
#pragma GCC unroll 16
        for (int r = 0; r < 16; r++) {
            const int64_t at = std::min(row + r, matrix.rows - 1);
            const __m512i raw = _mm512_maskz_loadu_epi16(there, values + at * matrix.columns + k);
            if (matrix.format == BFLOAT16) {
                rows[r] = raw;
                continue;
            }
            const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(raw));
            const __m512 high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(raw, 1));
            rows[r] = (__m512i)_mm512_cvtne2ps_pbh(high, low);
        }
        transpose(rows);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) _mm512_store_si512(panel.pairs[(k - from) / 2 + i] + first, rows[i]);
    }
}

// The same from a block of nf4: a line has four columns of each row in its low nibbles, four in its high ones.
void fill_normal(const Matrix &matrix, int64_t row, int64_t from, int64_t to, int first, PairPanel &panel) {
    const int64_t group = group_of(NF4);
    const auto *lines = static_cast<const uint8_t *>(matrix.values) + row * (matrix.columns / 2);
    const auto *scales = static_cast<const float *>(matrix.scales) + row * (matrix.columns / group);
    const __m512 table = _mm512_loadu_ps(NF4_VALUES);
    const __m512i mask = _mm512_set1_epi32(15);
    for (int64_t k = from; k < to; k += 8) {
        const __m512i codes = _mm512_loadu_si512(lines + k * 8);
        const __m512 scale = _mm512_loadu_ps(scales + k / group * BLOCK);
        const auto value = [&](int place) {
            const __m512i code = _mm512_and_si512(_mm512_srli_epi32(codes, place), mask);
            return _mm512_mul_ps(_mm512_permutexvar_ps(code, table), scale);
        };
        const auto pair = [&](int place) {
            const __m512i left = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(value(place)));
            const __m512i right = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(value(place + 8)));
            return _mm512_or_si512(left, _mm512_slli_epi32(right, 16));
        };
        const int places[] = {0, 16, 4, 20};
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) _mm512_store_si512(panel.pairs[(k - from) / 2 + i] + first, pair(places[i]));
    }
}

// Adds M rows of x times the outputs of the panel to sums [M, WIDE].
template <int M>
void multiply_pairs(const PairPanel &panel, int64_t count, const uint32_t *x, int64_t stride,
                    float (*sums)[WIDE]) {
    __m512 sum[M][VECTORS];
#pragma GCC unroll 6
    for (int m = 0; m < M; m++)
#pragma GCC unroll 2
        for (int p = 0; p < VECTORS; p++) sum[m][p] = _mm512_load_ps(sums[m] + p * 16);
    for (int64_t i = 0; i < count; i++) {
        __m512i weights[VECTORS];
#pragma GCC unroll 2
        for (int p = 0; p < VECTORS; p++) weights[p] = _mm512_load_si512(panel.pairs[i] + p * 16);
#pragma GCC unroll 6
        for (int m = 0; m < M; m++) {
            const __m512i both = _mm512_set1_epi32(int(x[m * stride + i]));
#pragma GCC unroll 2
            for (int p = 0; p < VECTORS; p++)
                sum[m][p] = _mm512_dpbf16_ps(sum[m][p], (__m512bh)weights[p], (__m512bh)both);
        }
    }
#pragma GCC unroll 6
    for (int m = 0; m < M; m++)
#pragma GCC unroll 2
        for (int p = 0; p < VECTORS; p++) _mm512_store_ps(sums[m] + p * 16, sum[m][p]);
}

struct Bfloats {
    using X = Pairs;
    using Panel = PairPanel;
    static constexpr int64_t DEEP = 2 * PANEL_PAIRS, OUTER = 1024;

    static void fill(const Matrix &matrix, int64_t row, int64_t from, int64_t to, int first, Panel &panel) {
        if (matrix.format == NF4) fill_normal(matrix, row, from, to, first, panel);
        else fill_floats(matrix, row, from, to, first, panel);
    }

    static void multiply(int32_t, Panel &panel, const X &x, int64_t rows, int64_t from, int64_t to,
                         const Next &next) {
        const int64_t count = (to - from + 1) / 2;
        for_tiles(rows, next, [&](int64_t first, auto tile) {
            multiply_pairs<tile>(panel, count, x.values + first * x.stride + from / 2, x.stride,
                                 panel.sums + first);
        });
    }

    static __m512 scale_of(const Matrix &, int64_t, __mmask16) { return _mm512_set1_ps(1.0f); }
};

}  // namespace

#endif
