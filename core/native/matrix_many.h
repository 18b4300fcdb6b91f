// Products with many rows of x, bound by multiplying: whole numbers, where the processor has VNNI.
#pragma once

#include "matrix_shared.h"

#if defined(WITH_VNNI)

namespace {

constexpr int TILE = 6;         // rows of x that a kernel multiplies at once: 2 * 6 sums of each kind
constexpr int WIDE = 32;        // outputs of a panel
constexpr int PANELS = WIDE / 16;
constexpr int64_t DEEP = 512;   // columns of a panel: 16 KB of codes, half of the first cache
constexpr int64_t OUTER = 2048;  // columns and
constexpr int64_t TALL = 256;    // rows of x that stay in the second cache while panels pass

constexpr int FINER = 254;       // a second number counts in steps of the first one's by this
constexpr float STANDS_OUT = 6;  // root mean squares of a row, above which 8 bits of a group are too coarse

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
    int64_t stride, count, panels;  // count: G
};

// What one thread works on. codes: columns 4k..4k+3 of output n at [k][n]. Scales and minima as float32.
struct alignas(64) Panel {
    uint8_t codes[DEEP / 4][WIDE][4];
    float scales[DEEP / GROUP][WIDE], minima[DEEP / GROUP][WIDE];
    float sums[TALL][WIDE];
};

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

// Row m. A few numbers that stand out set the step of the 31 beside them, which then says too little of these:
// such groups get second numbers.
void to_bytes(const float *x, int64_t columns, int64_t m, const Bytes &bytes) {
    int8_t *values = bytes.values + m * bytes.stride, *finer = bytes.finer + m * bytes.stride;
    uint32_t *fine = bytes.fine + m * bytes.panels;
    std::fill(fine, fine + bytes.panels, 0);
    const float most = STANDS_OUT * STANDS_OUT * mean_square(x, columns);
    for (int64_t k = 0; k < columns; k += GROUP) {
        const Numbers numbers = numbers_of<127>(x + k, columns - k);
        put_bytes(values + k, numbers.first, numbers.second);
        GroupOfX &group = bytes.groups[m * bytes.count + k / GROUP];
        group = {numbers.scale, numbers.scale * float(numbers.sum), -numbers.sum, 0};
        const float largest = numbers.scale * 127;
        if (!(largest * largest > most)) continue;
        const __m512 inverse = _mm512_set1_ps(FINER / numbers.scale), steps = _mm512_set1_ps(FINER);
        const auto rest = [&](int64_t from, __m512i number) {
            const __m512 value = _mm512_maskz_loadu_ps(first_lanes(columns - from), x + from);
            return _mm512_cvtps_epi32(_mm512_fmsub_ps(value, inverse, _mm512_cvtepi32_ps(number) * steps));
        };
        const __m512i first = rest(k, numbers.first), second = rest(k + 16, numbers.second);
        put_bytes(finer + k, first, second);
        const int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(first, second));
        group.sum += numbers.scale / FINER * float(sum);
        group.finer_negated = -sum;
        fine[k / DEEP] |= 1u << k % DEEP / GROUP;
    }
}

// 16 rows of 16 four-byte items become columns.
void transpose(__m512i (&rows)[16]) {
    __m512i a[16], b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512i even_left = _mm512_shuffle_i32x4(b[i], b[4 + i], 0x88);
        const __m512i odd_left = _mm512_shuffle_i32x4(b[i], b[4 + i], 0xdd);
        const __m512i even_right = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0x88);
        const __m512i odd_right = _mm512_shuffle_i32x4(b[8 + i], b[12 + i], 0xdd);
        rows[i] = _mm512_shuffle_i32x4(even_left, even_right, 0x88);
        rows[4 + i] = _mm512_shuffle_i32x4(odd_left, odd_right, 0x88);
        rows[8 + i] = _mm512_shuffle_i32x4(even_left, even_right, 0xdd);
        rows[12 + i] = _mm512_shuffle_i32x4(odd_left, odd_right, 0xdd);
    }
}

// Columns from..to of 16 rows of bytes, moved by 128, into outputs first..first + 15 of the panel.
void fill_bytes(const Matrix &matrix, int64_t row, int64_t from, int64_t to, int first, Panel &panel) {
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

void fill_nibbles(const Matrix &matrix, int64_t row, int64_t from, int64_t to, int first, Panel &panel) {
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

void fill(const Matrix &matrix, int64_t row, int64_t from, int64_t to, Panel &panel) {
    for (int first = 0; first < WIDE && row + first < matrix.rows; first += BLOCK) {
        if (in_nibbles(matrix.format)) fill_nibbles(matrix, row + first, from, to, first, panel);
        else fill_bytes(matrix, row + first, from, to, first, panel);
    }
}

// How much of a scale the kernel applies: none (a row's is applied when sums are stored), a group's, or a
// group's and its minimum.
enum Scaling { NONE, SCALE, SCALE_AND_MINIMUM };

// Adds M rows of x times the outputs of the panel to sums [M, WIDE]. `shift`: weights were moved by
// 2^shift, or not if negative. Largest: 32 * 255 * 127 < 2^21.
template <Scaling SCALING, int M>
void multiply(const Panel &panel, int64_t groups, const int8_t *values, int64_t stride,
              const GroupOfX *x_groups, int64_t x_stride, int shift, float (*sums)[WIDE]) {
    constexpr int P = PANELS;
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
void multiply_finer(const Panel &panel, uint32_t fine, const int8_t *finer, const GroupOfX *x_groups, int shift,
                    float (&sums)[WIDE]) {
    const __m128i places = _mm_cvtsi32_si128(shift);
    __m512 sum[PANELS];
#pragma GCC unroll 2
    for (int p = 0; p < PANELS; p++) sum[p] = _mm512_load_ps(sums + p * 16);
    for (; fine != 0; fine &= fine - 1) {
        const int g = __builtin_ctz(fine);
        const __m512i start = SCALING == SCALE_AND_MINIMUM
            ? ZERO : _mm512_sll_epi32(_mm512_set1_epi32(x_groups[g].finer_negated), places);
        const __m512 scale = _mm512_set1_ps(x_groups[g].scale / FINER);
#pragma GCC unroll 2
        for (int p = 0; p < PANELS; p++) {
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
    for (int p = 0; p < PANELS; p++) _mm512_store_ps(sums + p * 16, sum[p]);
}

// What the next fill will read, if anything.
struct Next {
    const Matrix *matrix;
    int64_t row, from, to;
};

// Part `part` of `parts` of that, into the second cache.
void prefetch(const Next &next, int64_t part, int64_t parts) {
    if (next.matrix == nullptr) return;
    const bool nibbles = in_nibbles(next.matrix->format);
    const int64_t step = nibbles ? BLOCK : 1, width = nibbles ? 8 : 1;
    const int64_t lines = (next.to - next.from) * width / 64;
    const int64_t all = lines * ((std::min<int64_t>(WIDE, next.matrix->rows - next.row) + step - 1) / step);
    const auto *values = static_cast<const char *>(next.matrix->values) + next.from * width;
    for (int64_t i = all * part / parts; i < all * (part + 1) / parts; i++) {
        const int64_t at = (next.row / step + i / lines) * next.matrix->columns * width + i % lines * 64;
        __builtin_prefetch(values + at, 0, 2);
    }
}

// All `rows` of x with the panel.
template <Scaling SCALING>
void multiply_tiles(Panel &panel, const Bytes &x, int64_t rows, int64_t from, int64_t to, int shift,
                    const Next &next_panel) {
    const int64_t tiles = (rows + TILE - 1) / TILE, groups = (to - from + GROUP - 1) / GROUP;
    for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t first = rows * tile / tiles, next = rows * (tile + 1) / tiles;
        const int8_t *values = x.values + first * x.stride + from;
        const GroupOfX *x_groups = x.groups + first * x.count + from / GROUP;
        prefetch(next_panel, tile, tiles);
        with_constant(next - first, [&](auto constant) {
            constexpr int M = std::max<int>(constant, 4);  // more than FEW rows are divided into 4 to 6
            multiply<SCALING, M>(panel, groups, values, x.stride, x_groups, x.count, shift, panel.sums + first);
        });
    }
    for (int64_t m = 0; m < rows; m++) {
        const uint32_t fine = x.fine[m * x.panels + from / DEEP];
        if (fine == 0) continue;
        const GroupOfX *x_groups = x.groups + m * x.count + from / GROUP;
        multiply_finer<SCALING>(panel, fine, x.finer + m * x.stride + from, x_groups, shift, panel.sums[m]);
    }
}

// Sums of a panel's outputs to `out`: added to what is there, or not if they are the first.
void put(const Matrix &matrix, int64_t row, const Panel &panel, int64_t rows, bool add, const Output &out) {
    for (int first = 0; first < WIDE && row + first < matrix.rows; first += BLOCK) {
        const __mmask16 there = first_lanes(matrix.rows - row - first);
        __m512 scale = _mm512_set1_ps(1.0f);
        if (matrix.format == INT8) {
            const float *scales = static_cast<const float *>(matrix.scales) + row + first;
            scale = _mm512_maskz_loadu_ps(there, scales) * INT8_STEP;
        }
        for (int64_t m = 0; m < rows; m++) {
            float *to = out.data + m * out.stride + row + first;
            const __m512 before = add ? _mm512_maskz_loadu_ps(there, to) : _mm512_setzero_ps();
            const __m512 sums = _mm512_load_ps(panel.sums[m] + first);
            _mm512_mask_storeu_ps(to, there, add ? _mm512_fmadd_ps(sums, scale, before) : sums * scale);
        }
    }
}

// One panel's outputs for columns from..to; the rows behind `stop` are not this thread's.
void multiply_panel(const Matrix &matrix, int64_t row, int64_t stop, const Bytes &x, int64_t rows, int64_t from,
                    int64_t to, Panel &panel, const Output &out) {
    std::memset(panel.sums, 0, sizeof(float) * WIDE * rows);
    for (int64_t k = from; k < to; k += DEEP) {
        const int64_t end = std::min(k + DEEP, to);
        fill(matrix, row, k, end, panel);
        Next next{&matrix, row, end, std::min(end + DEEP, to)};
        if (end == to)
            next = {row + WIDE < stop ? &matrix : nullptr, row + WIDE, from, std::min(from + DEEP, to)};
        switch (matrix.format) {
            case INT8: multiply_tiles<NONE>(panel, x, rows, k, end, 7, next); break;
            case Q8_0: multiply_tiles<SCALE>(panel, x, rows, k, end, 7, next); break;
            case Q4_0: multiply_tiles<SCALE>(panel, x, rows, k, end, 3, next); break;
            default: multiply_tiles<SCALE_AND_MINIMUM>(panel, x, rows, k, end, 0, next); break;
        }
    }
    put(matrix, row, panel, rows, from > 0, out);
}

Panel &own_panel() {
    static thread_local Scratch scratch;
    return *reinterpret_cast<Panel *>(scratch.of(sizeof(Panel)));
}

void many_rows(const Matrix *matrices, int count, const Input &x, const Output &out) {
    static thread_local Scratch shared;
    const int64_t blocks = (x.rows + TALL - 1) / TALL;
    Bytes bytes;
    bytes.count = (x.columns + GROUP - 1) / GROUP;
    bytes.panels = (x.columns + DEEP - 1) / DEEP;
    bytes.stride = bytes.count * GROUP + 64;  // no power of two: rows would share the same few cache lines
    const int64_t each = 2 * bytes.stride + bytes.count * int64_t(sizeof(GroupOfX)) + bytes.panels * 4;
    bytes.values = reinterpret_cast<int8_t *>(shared.of(TALL * each));
    bytes.finer = bytes.values + TALL * bytes.stride;
    bytes.groups = reinterpret_cast<GroupOfX *>(bytes.finer + TALL * bytes.stride);
    bytes.fine = reinterpret_cast<uint32_t *>(bytes.groups + TALL * bytes.count);
#pragma omp parallel
    {
        const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
        Panel &panel = own_panel();
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t first = x.rows * block / blocks, rows = x.rows * (block + 1) / blocks - first;
            for (int64_t m = rows * thread / threads; m < rows * (thread + 1) / threads; m++)
                to_bytes(x.data + (first + m) * x.stride, x.columns, m, bytes);
#pragma omp barrier
            for (int64_t k = 0; k < x.columns; k += OUTER) {
                const int64_t end = std::min(k + OUTER, x.columns);
                const auto panels = [&](const Matrix &matrix, int64_t from, int64_t to, int64_t output) {
                    const Output home{out.data + first * out.stride + output, out.stride};
                    for (int64_t row = from; row < to; row += WIDE)
                        multiply_panel(matrix, row, to, bytes, rows, k, end, panel, home);
                };
                share(matrices, count, WIDE, panels);
            }
#pragma omp barrier
        }
    }
}

}  // namespace

#endif
