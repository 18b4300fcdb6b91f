// Products with many rows of x in whole numbers, where the processor has VNNI: formats of bytes and nibbles.
#pragma once

#include "matrix_many.h"

#if defined(WITH_VNNI)

namespace {

constexpr int FINER = 254;       // a second number counts in steps of the first one's by this
constexpr float STANDS_OUT = 3;    // root mean squares of a row, above which 8 bits of a group are too coarse
constexpr int64_t PANEL_BYTES = 512;  // columns of a panel: 16 KB of codes, half of the first cache

float mean_square(const float *x, int64_t columns) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t k = 0; k < columns; k += 16) {
        const __m512 a = _mm512_maskz_loadu_ps(first_lanes(columns - k), x + k);
        sum = _mm512_fmadd_ps(a, a, sum);
    }
    return _mm512_reduce_add_ps(sum) / float(columns);
}

void put_bytes(int8_t *to, __m512i first, __m512i second) {
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8(first));
    _mm_storeu_si128((__m128i *)(to + 16), _mm512_cvtepi32_epi8(second));
}

struct GroupOfX {
    float scale, sum;                // sum: of what the numbers stand for
    int32_t negated, finer_negated;  // minus the sums of the numbers
};

// x as bytes: values [M, stride], a whole number of groups and zeros behind; groups [M, G]. A group is
// scale * values, or scale * (values + finer / FINER) where it has a bit in fine [M, panels], the lowest for a
// panel's first group.
struct Bytes {
    int8_t *values, *finer;
    GroupOfX *groups;
    uint32_t *fine;
    int64_t columns, stride, count, panels;  // count: G

    explicit Bytes(int64_t all) : columns(all) {
        count = (columns + GROUP - 1) / GROUP;
        panels = (columns + PANEL_BYTES - 1) / PANEL_BYTES;
        stride = count * GROUP + 64;  // no power of two: rows would share the same few cache lines
    }
    int64_t bytes_of_row() const {
        return 2 * stride + count * int64_t(sizeof(GroupOfX)) + panels * int64_t(sizeof(uint32_t));
    }
    void lie_in(char *memory) {
        values = reinterpret_cast<int8_t *>(memory);
        finer = values + TALL * stride;
        groups = reinterpret_cast<GroupOfX *>(finer + TALL * stride);
        fine = reinterpret_cast<uint32_t *>(groups + TALL * count);
    }
    void take(int64_t m, const float *x);
};

// Row m. A few numbers that stand out set the step of the 31 beside them, which then says too little of these:
// such groups get second numbers.
void Bytes::take(int64_t m, const float *x) {
    int8_t *first_values = values + m * stride, *first_finer = finer + m * stride;
    uint32_t *bits = fine + m * panels;
    std::fill(bits, bits + panels, 0);
    const float most = STANDS_OUT * STANDS_OUT * mean_square(x, columns);
    for (int64_t k = 0; k < columns; k += GROUP) {
        const Numbers numbers = numbers_of<127>(x + k, columns - k);
        put_bytes(first_values + k, numbers.first, numbers.second);
        GroupOfX &group = groups[m * count + k / GROUP];
        group = {numbers.scale, numbers.scale * float(numbers.sum), -numbers.sum, 0};
        const float largest = numbers.scale * 127;
        if (!(largest * largest > most)) continue;
        const __m512 inverse = _mm512_set1_ps(FINER / numbers.scale), steps = _mm512_set1_ps(FINER);
        const auto rest = [&](int64_t from, __m512i number) {
            const __m512 value = _mm512_maskz_loadu_ps(first_lanes(columns - from), x + from);
            return _mm512_cvtps_epi32(_mm512_fmsub_ps(value, inverse, _mm512_cvtepi32_ps(number) * steps));
        };
        const __m512i first = rest(k, numbers.first), second = rest(k + 16, numbers.second);
        put_bytes(first_finer + k, first, second);
        const int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
        group.sum += numbers.scale / FINER * float(sum);
        group.finer_negated = -sum;
        bits[k / PANEL_BYTES] |= 1u << k % PANEL_BYTES / GROUP;
    }
}

// What one thread works on. codes: columns 4k..4k+3 of output n at [k][n]. Scales and minima as float32.
struct alignas(64) IntegerPanel {
    uint8_t codes[PANEL_BYTES / 4][WIDE][4];
    float scales[PANEL_BYTES / GROUP][WIDE], minima[PANEL_BYTES / GROUP][WIDE];
    float sums[TALL][WIDE];
};

// Columns from..to of 16 rows of bytes, moved by 128, into outputs first..first + 15 of the panel.
void fill_bytes(const Matrix &matrix, int64_t row, int64_t from, int64_t to, int first, IntegerPanel &panel) {
    const auto *values = static_cast<const int8_t *>(matrix.values);
    const __m512i flip = _mm512_set1_epi8(-128);
    for (int64_t k = from; k < to; k += 64) {
        const uint64_t there = to - k >= 64 ? ~0ull : (1ull << (to - k)) - 1;
        __m512i rows[16];
#pragma GCC unroll 16
        for (int r = 0; r < 16; r++) {
            const int64_t at = std::min(row + r, matrix.rows - 1);
            rows[r] = _mm512_xor_si512(_mm512_maskz_loadu_epi8(there, values + at * matrix.columns + k), flip);
        }
        transpose(rows);
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) _mm512_store_si512(panel.codes[(k - from) / 4 + i][first], rows[i]);
    }
    if (matrix.format != Q8_0) return;
    const auto *scales = static_cast<const Half *>(matrix.scales);
    for (int r = 0; r < 16; r++) {
        const int64_t at = std::min(row + r, matrix.rows - 1) * (matrix.columns / GROUP);
        for (int64_t k = from; k < to; k += GROUP)
            panel.scales[(k - from) / GROUP][first + r] = _cvtsh_ss(scales[at + k / GROUP].bits);
    }
}

void fill_nibbles(const Matrix &matrix, int64_t row, int64_t from, int64_t to, int first, IntegerPanel &panel) {
    const auto *lines = static_cast<const uint8_t *>(matrix.values) + row * (matrix.columns / 2);
    const __m512i mask = _mm512_set1_epi8(15);
    for (int64_t k = from; k < to; k += 8) {
        const __m512i codes = _mm512_loadu_si512(lines + k * 8);
        _mm512_store_si512(panel.codes[(k - from) / 4][first], _mm512_and_si512(codes, mask));
        const __m512i right = _mm512_and_si512(_mm512_srli_epi16(codes, 4), mask);
        _mm512_store_si512(panel.codes[(k - from) / 4 + 1][first], right);
    }
    const int64_t group = group_of(matrix.format), before = row * (matrix.columns / group);
    for (int64_t k = from; k < to; k += GROUP) {
        const int64_t at = before + k / group * BLOCK;
        store(panel.scales[(k - from) / GROUP] + first, load(static_cast<const Half *>(matrix.scales) + at));
        if (matrix.format == Q4_0) continue;
        store(panel.minima[(k - from) / GROUP] + first, load(static_cast<const Half *>(matrix.minima) + at));
    }
}

// How much of a scale the kernel applies: none (a row's is applied when sums are stored), a group's, or a
// group's and its minimum.
enum Scaling { NONE, SCALE, SCALE_AND_MINIMUM };

// Adds M rows of x times the outputs of the panel to sums [M, WIDE]. `shift`: weights were moved by
// 2^shift, or not if negative. Largest: 32 * 255 * 127 < 2^21.
template <Scaling SCALING, int M>
void multiply(const IntegerPanel &panel, int64_t groups, const int8_t *values, int64_t stride,
              const GroupOfX *x_groups, int64_t x_stride, int shift, float (*sums)[WIDE]) {
    constexpr int P = VECTORS;
    const __m128i places = _mm_cvtsi32_si128(shift);
    __m512 sum[M][P];
#pragma GCC unroll 6
    for (int m = 0; m < M; m++)
#pragma GCC unroll 2
        for (int p = 0; p < P; p++) sum[m][p] = _mm512_load_ps(sums[m] + p * 16);
    for (int64_t g = 0; g < groups; g++) {
        __m512i products[M][P];
#pragma GCC unroll 6
        for (int m = 0; m < M; m++)
#pragma GCC unroll 2
            for (int p = 0; p < P; p++)
                products[m][p] = SCALING == SCALE_AND_MINIMUM
                    ? ZERO : _mm512_sll_epi32(_mm512_set1_epi32(x_groups[m * x_stride + g].negated), places);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            __m512i weights[P];
#pragma GCC unroll 2
            for (int p = 0; p < P; p++) weights[p] = _mm512_load_si512(panel.codes[g * 8 + i][p * 16]);
#pragma GCC unroll 6
            for (int m = 0; m < M; m++) {
                const __m512i four = every_four_bytes(values + m * stride + g * GROUP + i * 4);
#pragma GCC unroll 2
                for (int p = 0; p < P; p++)
                    products[m][p] = _mm512_dpbusd_epi32(products[m][p], weights[p], four);
            }
        }
#pragma GCC unroll 6
        for (int m = 0; m < M; m++) {
            const GroupOfX &group = x_groups[m * x_stride + g];
            const __m512 scale = _mm512_set1_ps(group.scale);
#pragma GCC unroll 2
            for (int p = 0; p < P; p++) {
                const __m512 factor =
                    SCALING == NONE ? scale : scale * _mm512_load_ps(panel.scales[g] + p * 16);
                sum[m][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[m][p]), factor, sum[m][p]);
                if (SCALING == SCALE_AND_MINIMUM) {
                    const __m512 minimum = _mm512_load_ps(panel.minima[g] + p * 16);
                    sum[m][p] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(group.sum), sum[m][p]);
                }
            }
        }
    }
#pragma GCC unroll 6
    for (int m = 0; m < M; m++)
#pragma GCC unroll 2
        for (int p = 0; p < P; p++) _mm512_store_ps(sums[m] + p * 16, sum[m][p]);
}

// Adds what the second numbers of one row stand for; `fine` says which groups have some.
template <Scaling SCALING>
void multiply_finer(const IntegerPanel &panel, uint32_t fine, const int8_t *finer, const GroupOfX *x_groups, int shift,
                    float (&sums)[WIDE]) {
    const __m128i places = _mm_cvtsi32_si128(shift);
    __m512 sum[VECTORS];
#pragma GCC unroll 2
    for (int p = 0; p < VECTORS; p++) sum[p] = _mm512_load_ps(sums + p * 16);
    for (; fine != 0; fine &= fine - 1) {
        const int g = __builtin_ctz(fine);
        const __m512i start = SCALING == SCALE_AND_MINIMUM
            ? ZERO : _mm512_sll_epi32(_mm512_set1_epi32(x_groups[g].finer_negated), places);
        const __m512 scale = _mm512_set1_ps(x_groups[g].scale / FINER);
#pragma GCC unroll 2
        for (int p = 0; p < VECTORS; p++) {
            __m512i even = start, odd = ZERO;  // a shorter chain to wait for
#pragma GCC unroll 4
            for (int i = 0; i < 8; i += 2) {
                even = _mm512_dpbusd_epi32(even, _mm512_load_si512(panel.codes[g * 8 + i][p * 16]),
                                           every_four_bytes(finer + g * GROUP + i * 4));
                odd = _mm512_dpbusd_epi32(odd, _mm512_load_si512(panel.codes[g * 8 + i + 1][p * 16]),
                                          every_four_bytes(finer + g * GROUP + i * 4 + 4));
            }
            const __m512 factor = SCALING == NONE ? scale : scale * _mm512_load_ps(panel.scales[g] + p * 16);
            sum[p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(even, odd)), factor, sum[p]);
        }
    }
#pragma GCC unroll 2
    for (int p = 0; p < VECTORS; p++) _mm512_store_ps(sums + p * 16, sum[p]);
}

// All `rows` of x with the panel.
template <Scaling SCALING>
void multiply_bytes(IntegerPanel &panel, const Bytes &x, int64_t rows, int64_t from, int64_t to, int shift,
                    const Next &next) {
    const int64_t groups = (to - from + GROUP - 1) / GROUP;
    const auto groups_of = [&](int64_t m) { return x.groups + m * x.count + from / GROUP; };
    for_tiles(rows, next, [&](int64_t first, auto count) {
        multiply<SCALING, count>(panel, groups, x.values + first * x.stride + from, x.stride, groups_of(first),
                                 x.count, shift, panel.sums + first);
    });
    for (int64_t m = 0; m < rows; m++) {
        const uint32_t fine = x.fine[m * x.panels + from / PANEL_BYTES];
        if (fine == 0) continue;
        multiply_finer<SCALING>(panel, fine, x.finer + m * x.stride + from, groups_of(m), shift, panel.sums[m]);
    }
}

struct Integers {
    using X = Bytes;
    using Panel = IntegerPanel;
    static constexpr int64_t DEEP = PANEL_BYTES, OUTER = 2048;

    static void fill(const Matrix &matrix, int64_t row, int64_t from, int64_t to, int first, Panel &panel) {
        if (in_nibbles(matrix.format)) fill_nibbles(matrix, row, from, to, first, panel);
        else fill_bytes(matrix, row, from, to, first, panel);
    }

    static void multiply(int32_t format, Panel &panel, const X &x, int64_t rows, int64_t from, int64_t to,
                         const Next &next) {
        switch (format) {
            case INT8: return multiply_bytes<NONE>(panel, x, rows, from, to, 7, next);
            case Q8_0: return multiply_bytes<SCALE>(panel, x, rows, from, to, 7, next);
            case Q4_0: return multiply_bytes<SCALE>(panel, x, rows, from, to, 3, next);
            default: return multiply_bytes<SCALE_AND_MINIMUM>(panel, x, rows, from, to, 0, next);
        }
    }

    static __m512 scale_of(const Matrix &matrix, int64_t row, __mmask16 there) {
        if (matrix.format != INT8) return _mm512_set1_ps(1.0f);
        return _mm512_maskz_loadu_ps(there, static_cast<const float *>(matrix.scales) + row) * INT8_STEP;
    }
};

}  // namespace

#endif
