// Products with one to eight rows of x, bound by reading the weights.
#pragma once

#include "matrix_shared.h"

namespace {

// ---- Weights as floats ---------------------------------------------------------------------------------

// A row of a row-major format as float32 vectors.
template <class T>
struct PlainRow {
    const T *values;
    PlainRow(const Matrix &matrix, int64_t row)
        : values(static_cast<const T *>(matrix.values) + row * matrix.columns) {}
    Floats at(int64_t k) const { return load(values + k); }
    Floats part(int64_t k, int64_t count) const { return load_part(values + k, count); }
};

struct GroupedRow {  // Q8_0
    const int8_t *values;
    const Half *scales;
    GroupedRow(const Matrix &matrix, int64_t row)
        : values(static_cast<const int8_t *>(matrix.values) + row * matrix.columns),
          scales(static_cast<const Half *>(matrix.scales) + row * (matrix.columns / GROUP)) {}
    Floats at(int64_t k) const { return load(values + k) * spread(value_of(scales[k / GROUP])); }
    Floats part(int64_t, int64_t) const { return Floats{}; }  // groups are whole vectors
};

// Products of R rows of the weight with M rows of x. Sums have the same order whatever R is.
template <class Row, int M, int R>
void dot_rows(const Matrix &matrix, int64_t row, const Input &x, float (&sums)[R][M]) {
    const auto rows = [&](int r) { return Row(matrix, row + r); };
    Floats sum[R][M] = {};
    const int64_t whole = x.columns / LANES * LANES;
    for (int64_t k = 0; k < whole; k += LANES) {
        Floats weights[R];
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            soon(rows(r).values + k);
            weights[r] = rows(r).at(k);
        }
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const Floats values = load(x.data + m * x.stride + k);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) sum[r][m] = fma(weights[r], values, sum[r][m]);
        }
    }
    if (whole < x.columns) {
        const int64_t rest = x.columns - whole;
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const Floats values = load_part(x.data + m * x.stride + whole, rest);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) sum[r][m] = fma(rows(r).part(whole, rest), values, sum[r][m]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) sums[r][m] = total(sum[r][m]);
}

// Rows from..to of a row-major weight, R at a time; dot(row, sums[R][M]) multiplies.
template <int M, int R, class Dot>
void each_rows(const Matrix &matrix, int64_t from, int64_t to, const Output &out, const Dot &dot) {
    const float *scales = matrix.format == INT8 ? static_cast<const float *>(matrix.scales) : nullptr;
    const auto store_row = [&](int64_t row, const float (&sums)[M]) {
        const float scale = scales == nullptr ? 1.0f : scales[row] * INT8_STEP;
        for (int m = 0; m < M; m++) out.data[m * out.stride + row] = sums[m] * scale;
    };
    int64_t row = from;
    for (; row + R <= to; row += R) {
        float sums[R][M];
        dot(row, sums);
        for (int r = 0; r < R; r++) store_row(row + r, sums[r]);
    }
    for (; row < to; row++) {
        float sums[1][M];
        dot(row, sums);
        store_row(row, sums[0]);
    }
}

template <class Row, int M>
void float_rows(const Matrix &matrix, int64_t from, int64_t to, const Input &x, const Output &out) {
    constexpr int R = M == 1 ? 1 : LANES == 16 ? 4 : 2;
    each_rows<M, R>(matrix, from, to, out, [&](int64_t row, auto &sums) {
        dot_rows<Row>(matrix, row, x, sums);
    });
}

// ---- Nibbles as floats ---------------------------------------------------------------------------------

constexpr int PARTS = BLOCK / LANES;  // vectors for the rows of a block

// What the low four bits of each lane stand for; the bits above them do not matter.
struct Unsigned {
    static Floats values(Bits codes) { return as_floats((Ints)(codes & 15)); }
};
struct Signed {  // Q4_0
    static Floats values(Bits codes) { return as_floats((Ints)(codes & 15) - 8); }
};
struct Normal {  // NF4
    static Floats values(Bits codes) {
#if defined(WITH_AVX512)
        return _mm512_permutexvar_ps((__m512i)codes, _mm512_loadu_ps(NF4_VALUES));
#elif defined(WITH_AVX2)
        const __m256 low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(NF4_VALUES), (__m256i)codes);
        const __m256 high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(NF4_VALUES + 8), (__m256i)codes);
        return _mm256_blendv_ps(low, high, (__m256)(codes << 28));
#else
        Floats result;
        for (int lane = 0; lane < LANES; lane++) result[lane] = NF4_VALUES[codes[lane] & 15];
        return result;
#endif
    }
};

// One block of 16 rows with M rows of x. x_sums [M, K / group] where the format has minima.
template <class Code, class Scale, int M>
void float_block(const Matrix &matrix, int64_t block, const Input &x, const float *x_sums, const Output &out) {
    const int64_t group = group_of(matrix.format), groups = matrix.columns / group;
    const auto *lines = static_cast<const uint8_t *>(matrix.values) + block * matrix.columns * 8;
    const auto *scales = static_cast<const Scale *>(matrix.scales) + block * groups * BLOCK;
    const auto *minima = static_cast<const Half *>(matrix.minima) + block * groups * BLOCK;
    // One row of x alone would wait for each sum before the next.
    constexpr int CHAINS = PARTS * M < 4 ? 4 / (PARTS * M) : 1;
    Floats sum[M][PARTS] = {};
    for (int64_t g = 0; g < groups; g++) {
        Floats parts[CHAINS][M][PARTS] = {};
        for (int64_t k = g * group; k < (g + 1) * group; k += 8) {
            Bits codes[PARTS];
            soon(lines + k * 8);
            std::memcpy(codes, lines + k * 8, sizeof codes);
#pragma GCC unroll 8
            for (int column = 0; column < 8; column++) {
#pragma GCC unroll 4
                for (int p = 0; p < PARTS; p++) {
                    const Floats values = Code::values(codes[p] >> (column % 4 * 8 + column / 4 * 4));
#pragma GCC unroll 8
                    for (int m = 0; m < M; m++) {
                        Floats &part = parts[column % CHAINS][m][p];
                        part = fma(values, spread(x.data[m * x.stride + k + column]), part);
                    }
                }
            }
        }
        for (int p = 0; p < PARTS; p++) {
            const Floats scale = load(scales + g * BLOCK + p * LANES);
            for (int m = 0; m < M; m++) {
                Floats part = parts[0][m][p];
                for (int chain = 1; chain < CHAINS; chain++) part += parts[chain][m][p];
                sum[m][p] = fma(part, scale, sum[m][p]);
            }
            if (x_sums == nullptr) continue;
            const Floats minimum = load(minima + g * BLOCK + p * LANES);
            for (int m = 0; m < M; m++) sum[m][p] = fma(minimum, spread(x_sums[m * groups + g]), sum[m][p]);
        }
    }
    const int64_t row = block * BLOCK, rows = std::min<int64_t>(BLOCK, matrix.rows - row);
    for (int m = 0; m < M; m++) {
        float *to = out.data + m * out.stride + row;
        for (int p = 0; p < PARTS; p++)
            store_part(to + p * LANES, sum[m][p], std::clamp<int64_t>(rows - p * LANES, 0, LANES));
    }
}

template <class Code, class Scale, int M>
void float_blocks(const Matrix &matrix, int64_t from, int64_t to, const Input &x, const Output &out) {
    static thread_local Scratch scratch;
    const int64_t group = group_of(matrix.format), groups = matrix.columns / group;
    float *x_sums = nullptr;
    if (matrix.format == INT4 || matrix.format == INT4_128) {
        x_sums = reinterpret_cast<float *>(scratch.of(M * groups * sizeof(float)));
        for (int m = 0; m < M; m++)
            for (int64_t g = 0; g < groups; g++) {
                Floats sum = {};
                for (int64_t k = 0; k < group; k += LANES) sum += load(x.data + m * x.stride + g * group + k);
                x_sums[m * groups + g] = total(sum);
            }
    }
    for (int64_t row = from; row < to; row += BLOCK)
        float_block<Code, Scale, M>(matrix, row / BLOCK, x, x_sums, out);
}

// ---- Whole numbers -------------------------------------------------------------------------------------

#if defined(WITH_VNNI)

// x for decode. high, low [M, columns] with columns rounded up to whole lines of 64 bytes, zeros behind;
// scales [M, columns / 4]: the scale of a group eight times, as the lanes of a line need it;
// sums [M, groups], rounded up to 16: scale times the sum of the numbers; totals [M]: the sum of these.
struct Digits {
    int64_t columns, groups;
    int8_t *high, *low;
    float *scales, *sums, *totals;
    Digits from(int64_t m) const {
        return {columns, groups, high + m * columns, low + m * columns, scales + m * columns / 4,
                sums + m * groups, totals + m};
    }
};

Digits digits_of(const Input &x, Scratch &scratch) {
    Digits d;
    d.columns = round_up(x.columns, 64);
    d.groups = round_up(d.columns / GROUP, 16);
    char *memory = scratch.of(x.rows * (3 * d.columns + 4 * d.groups) + 4 * FEW);
    d.scales = reinterpret_cast<float *>(memory);
    d.sums = d.scales + x.rows * d.columns / 4;
    d.high = reinterpret_cast<int8_t *>(d.sums + x.rows * d.groups);
    d.low = d.high + x.rows * d.columns;
    d.totals = reinterpret_cast<float *>(d.low + x.rows * d.columns);
    const __m512i half = _mm512_set1_epi32(128);
    for (int64_t m = 0; m < x.rows; m++) {
        float *sums = d.sums + m * d.groups, all = 0.0f;
        for (int64_t g = 0; g < d.groups; g++) sums[g] = 0.0f;
        for (int64_t k = 0; k < d.columns; k += GROUP) {
            // 32639 = 127 * 256 + 127: both digits fit into a signed byte.
            const Numbers numbers = numbers_of<32639>(x.data + m * x.stride + k, x.columns - k);
            const auto put = [&](int64_t at, __m512i values) {
                const __m512i high = _mm512_srai_epi32(_mm512_add_epi32(values, half), 8);
                _mm_store_si128((__m128i *)(d.high + at), _mm512_cvtepi32_epi8(high));
                _mm_store_si128((__m128i *)(d.low + at), _mm512_cvtepi32_epi8(values));
            };
            put(m * d.columns + k, numbers.first);
            put(m * d.columns + k + 16, numbers.second);
            _mm256_store_ps(d.scales + (m * d.columns + k) / 4, _mm256_set1_ps(numbers.scale));
            sums[k / GROUP] = numbers.scale * float(numbers.sum);
            all += sums[k / GROUP];
        }
        d.totals[m] = all;
    }
    return d;
}

// Products of R rows of INT8 or Q8_0 (SCALED). Largest: 4 * 255 * 128 * 256 < 2^25.
template <bool SCALED, int M, int R>
void dot_bytes(const Matrix &matrix, int64_t row, const Digits &x, float (&sums)[R][M]) {
    const auto *values = static_cast<const int8_t *>(matrix.values) + row * matrix.columns;
    const auto *scales = static_cast<const Half *>(matrix.scales) + row * (matrix.columns / GROUP);
    const __m512i flip = _mm512_set1_epi8(-128), two = _mm512_set1_epi32(2);
    const __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    __m512 sum[R][M] = {}, row_scales[R];
    __m512i line_groups = lanes;
    for (int64_t k = 0; k < matrix.columns; k += 64) {
        if (SCALED && k % (16 * GROUP) == 0) {
            const int64_t g = k / GROUP;
            const __mmask16 there = first_lanes(matrix.columns / GROUP - g);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const Half *from = scales + r * (matrix.columns / GROUP) + g;
                row_scales[r] = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(there, from));
                const __m512 moved = _mm512_mul_ps(row_scales[r], _mm512_set1_ps(-128.0f));
#pragma GCC unroll 8
                for (int m = 0; m < M; m++)
                    sum[r][m] = _mm512_fmadd_ps(moved, _mm512_load_ps(x.sums + m * x.groups + g), sum[r][m]);
            }
            line_groups = lanes;
        }
        __m512i weights[R];
        __m512 line_scales[R];
        const int64_t rest = matrix.columns - k;
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const int8_t *from = values + r * matrix.columns + k;
            soon(from);
            weights[r] = rest >= 64 ? _mm512_loadu_si512(from)
                                    : _mm512_maskz_loadu_epi8((1ull << rest) - 1, from);
            weights[r] = _mm512_xor_si512(weights[r], flip);
            if (SCALED) line_scales[r] = _mm512_permutexvar_ps(line_groups, row_scales[r]);
        }
        line_groups = _mm512_add_epi32(line_groups, two);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const __m512i high = _mm512_load_si512(x.high + m * x.columns + k);
            const __m512i low = _mm512_load_si512(x.low + m * x.columns + k);
            const __m512 scale = _mm512_load_ps(x.scales + (m * x.columns + k) / 4);
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) {
                const __m512i upper = _mm512_slli_epi32(_mm512_dpbusd_epi32(ZERO, weights[r], high), 8);
                const __m512 product = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(upper, weights[r], low));
                const __m512 factor = SCALED ? _mm512_mul_ps(scale, line_scales[r]) : scale;
                sum[r][m] = _mm512_fmadd_ps(product, factor, sum[r][m]);
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int m = 0; m < M; m++)
            sums[r][m] = total(sum[r][m]) - (SCALED ? 0.0f : 128.0f * x.totals[m]);
}

template <bool SCALED, int M>
void byte_rows(const Matrix &matrix, int64_t from, int64_t to, const Digits &x, const Output &out) {
    constexpr int R = M == 1 ? 1 : 2;
    each_rows<M, R>(matrix, from, to, out, [&](int64_t row, auto &sums) {
        dot_bytes<SCALED>(matrix, row, x, sums);
    });
}

// Blocks of INT4, INT4_128 and Q4_0. Largest: 32 * 15 * 128 * 256 < 2^24.
template <int FORMAT, int M>
void nibble_blocks(const Matrix &matrix, int64_t from, int64_t to, const Digits &x, const Output &out) {
    constexpr bool MINIMA = FORMAT != Q4_0;
    constexpr int SHARED = FORMAT == INT4_128 ? 4 : 1;  // groups of x that share a weight's scale
    const int64_t groups = matrix.columns / GROUP;
    const __m512i mask = _mm512_set1_epi8(15);
    for (int64_t row = from; row < to; row += BLOCK) {
        const auto *line = static_cast<const uint8_t *>(matrix.values) + row * (matrix.columns / 2);
        const auto *scales = static_cast<const Half *>(matrix.scales) + row * (groups / SHARED);
        const auto *minima = static_cast<const Half *>(matrix.minima) + row * (groups / SHARED);
        __m512 sum[M] = {}, scale = {}, minimum = {};
        for (int64_t g = 0; g < groups; g++) {
            if (SHARED == 1 || g % SHARED == 0) {
                scale = load(scales + g / SHARED * BLOCK);
                minimum = MINIMA ? __m512(load(minima + g / SHARED * BLOCK)) : scale * -8.0f;
            }
            __m512i high[M] = {}, low[M] = {};
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++, line += 64) {
                soon(line);
                const __m512i codes = _mm512_loadu_si512(line);
                const __m512i left = _mm512_and_si512(codes, mask);
                const __m512i right = _mm512_and_si512(_mm512_srli_epi16(codes, 4), mask);
#pragma GCC unroll 8
                for (int m = 0; m < M; m++) {
                    const int64_t at = m * x.columns + g * GROUP + i * 8;
                    high[m] = add_products(high[m], left, x.high + at);
                    low[m] = add_products(low[m], left, x.low + at);
                    high[m] = add_products(high[m], right, x.high + at + 4);
                    low[m] = add_products(low[m], right, x.low + at + 4);
                }
            }
#pragma GCC unroll 8
            for (int m = 0; m < M; m++) {
                const __m512i both = _mm512_add_epi32(_mm512_slli_epi32(high[m], 8), low[m]);
                const __m512 product = _mm512_cvtepi32_ps(both);
                const __m512 factor = scale * x.scales[(m * x.columns + g * GROUP) / 4];
                sum[m] = _mm512_fmadd_ps(product, factor, sum[m]);
                sum[m] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(x.sums[m * x.groups + g]), sum[m]);
            }
        }
#pragma GCC unroll 8
        for (int m = 0; m < M; m++)
            _mm512_mask_storeu_ps(out.data + m * out.stride + row, first_lanes(matrix.rows - row), sum[m]);
    }
}

#endif

[[maybe_unused]] bool needs_digits(int32_t format) { return format >= INT8 && format <= Q4_0; }

#if !defined(WITH_VNNI)
struct Digits {  // there are none
    Digits from(int64_t) const { return {}; }
};
#endif

// Rows from..to of a weight with M rows of x.
template <int M>
void multiply_few(const Matrix &matrix, int64_t from, int64_t to, const Input &x,
                  [[maybe_unused]] const Digits &digits, const Output &out) {
    switch (matrix.format) {
        case FLOAT32: return float_rows<PlainRow<float>, M>(matrix, from, to, x, out);
        case FLOAT16: return float_rows<PlainRow<Half>, M>(matrix, from, to, x, out);
        case BFLOAT16: return float_rows<PlainRow<Bfloat>, M>(matrix, from, to, x, out);
        case NF4: return float_blocks<Normal, float, M>(matrix, from, to, x, out);
#if defined(WITH_VNNI)
        case INT8: return byte_rows<false, M>(matrix, from, to, digits, out);
        case Q8_0: return byte_rows<true, M>(matrix, from, to, digits, out);
        case INT4: return nibble_blocks<INT4, M>(matrix, from, to, digits, out);
        case INT4_128: return nibble_blocks<INT4_128, M>(matrix, from, to, digits, out);
        case Q4_0: return nibble_blocks<Q4_0, M>(matrix, from, to, digits, out);
#else
        case INT8: return float_rows<PlainRow<int8_t>, M>(matrix, from, to, x, out);
        case Q8_0: return float_rows<GroupedRow, M>(matrix, from, to, x, out);
        case INT4: case INT4_128: return float_blocks<Unsigned, Half, M>(matrix, from, to, x, out);
        case Q4_0: return float_blocks<Signed, Half, M>(matrix, from, to, x, out);
#endif
    }
}

// What of all parts this thread takes.
void few_rows(const Matrix *matrices, int count, const Input &x, const Output &out, int64_t parts, Queue &queue) {
    Digits digits = {};
#if defined(WITH_VNNI)
    static thread_local Scratch scratch;
    if (std::any_of(matrices, matrices + count, [](const Matrix &one) { return needs_digits(one.format); }))
        digits = digits_of(x, scratch);
#endif
    const auto multiply = [&](const Matrix &matrix, int64_t from, int64_t to, int64_t first) {
        const int64_t near = std::max(int64_t(1), NEAR / weight_of(matrix)) * BLOCK;
        const int64_t step = x.rows > AT_ONCE ? near : to - from;
        for (int64_t row = from; row < to; row += step) {
            for (int64_t m = 0; m < x.rows; m += AT_ONCE) {
                const int64_t rows = std::min<int64_t>(AT_ONCE, x.rows - m);
                const Input some{x.data + m * x.stride, rows, x.columns, x.stride};
                const Output home{out.data + m * out.stride + first, out.stride};
                with_constant(rows, [&](auto constant) {
                    constexpr int M = std::min<int>(constant, AT_ONCE);
                    multiply_few<M>(matrix, row, std::min(row + step, to), some, digits.from(m), home);
                });
            }
        }
    };
    queue.run([&](int64_t index) { share(matrices, count, BLOCK, index, parts, multiply); });
}

}  // namespace
