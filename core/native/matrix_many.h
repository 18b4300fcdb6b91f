// Products with many rows of x, bound by multiplying: panels of weights, unpacked into the first cache, stay
// there while tiles of x pass. What is multiplied, and how, is a Kind: matrix_integers.h, matrix_bfloats.h.
#pragma once

#include "matrix_shared.h"

#if defined(WITH_VNNI)

namespace {

constexpr int TILE = 6;         // rows of x that a kernel multiplies at once: 2 * 6 sums
constexpr int WIDE = 32;        // outputs of a panel,
constexpr int VECTORS = WIDE / 16;  // of so many vectors
constexpr int64_t TALL = 256;   // rows of x that stay in the second cache while panels pass

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

// What the next fill will read, if anything.
struct Next {
    const Matrix *matrix;
    int64_t row, from, to;
};

// Part `part` of `parts` of that, into the second cache.
void prefetch(const Next &next, int64_t part, int64_t parts) {
    if (next.matrix == nullptr) return;
    const int32_t format = next.matrix->format;
    const int64_t step = in_nibbles(format) ? BLOCK : 1;
    const int64_t width = in_nibbles(format) ? 8 : format == FLOAT16 || format == BFLOAT16 ? 2 : 1;
    const int64_t lines = (next.to - next.from) * width / 64;
    const int64_t all = lines * ((std::min<int64_t>(WIDE, next.matrix->rows - next.row) + step - 1) / step);
    const auto *values = static_cast<const char *>(next.matrix->values) + next.from * width;
    for (int64_t i = all * part / parts; i < all * (part + 1) / parts; i++) {
        const int64_t at = (next.row / step + i / lines) * next.matrix->columns * width + i % lines * 64;
        __builtin_prefetch(values + at, 0, 2);
    }
}

// Calls work(first row of x, constant number of rows) for all rows of x, in tiles as even as can be, and reads
// a part of the next panel's weights ahead before each.
template <class Work>
void for_tiles(int64_t rows, const Next &next_panel, const Work &work) {
    const int64_t tiles = (rows + TILE - 1) / TILE;
    for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t first = rows * tile / tiles, next = rows * (tile + 1) / tiles;
        prefetch(next_panel, tile, tiles);
        with_constant(next - first, [&](auto constant) {
            // More than FEW rows are divided into 4 to 6.
            work(first, std::integral_constant<int, std::max<int>(constant, 4)>());
        });
    }
}

// Sums of a panel's outputs to `out`: added to what is there, or not if they are the first.
template <class Kind>
void put(const Matrix &matrix, int64_t row, const float (*sums)[WIDE], int64_t rows, bool add, const Output &out) {
    for (int first = 0; first < WIDE && row + first < matrix.rows; first += BLOCK) {
        const __mmask16 there = first_lanes(matrix.rows - row - first);
        const __m512 scale = Kind::scale_of(matrix, row + first, there);
        for (int64_t m = 0; m < rows; m++) {
            float *to = out.data + m * out.stride + row + first;
            const __m512 before = add ? _mm512_maskz_loadu_ps(there, to) : _mm512_setzero_ps();
            const __m512 sum = _mm512_load_ps(sums[m] + first);
            _mm512_mask_storeu_ps(to, there, add ? _mm512_fmadd_ps(sum, scale, before) : sum * scale);
        }
    }
}

// One panel's outputs for columns from..to; the rows behind `stop` are not this thread's.
template <class Kind>
void multiply_panel(const Matrix &matrix, int64_t row, int64_t stop, const typename Kind::X &x, int64_t rows,
                    int64_t from, int64_t to, typename Kind::Panel &panel, const Output &out) {
    std::memset(panel.sums, 0, sizeof(float) * WIDE * rows);
    for (int64_t k = from; k < to; k += Kind::DEEP) {
        const int64_t end = std::min(k + Kind::DEEP, to);
        for (int first = 0; first < WIDE && row + first < matrix.rows; first += BLOCK)
            Kind::fill(matrix, row + first, k, end, first, panel);
        Next next{&matrix, row, end, std::min(end + Kind::DEEP, to)};
        if (end == to)
            next = {row + WIDE < stop ? &matrix : nullptr, row + WIDE, from, std::min(from + Kind::DEEP, to)};
        Kind::multiply(matrix.format, panel, x, rows, k, end, next);
    }
    put<Kind>(matrix, row, panel.sums, rows, from > 0, out);
}

template <class Panel>
Panel &own_panel() {
    static thread_local Scratch scratch;
    return *reinterpret_cast<Panel *>(scratch.of(sizeof(Panel)));
}

template <class Kind>
void many_rows(const Matrix *matrices, int count, const Input &x, const Output &out) {
    static thread_local Scratch shared;
    const int64_t blocks = (x.rows + TALL - 1) / TALL;
    typename Kind::X own(x.columns);
    own.lie_in(shared.of(TALL * own.bytes_of_row()));
#pragma omp parallel
    {
        const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
        auto &panel = own_panel<typename Kind::Panel>();
        for (int64_t block = 0; block < blocks; block++) {
            const int64_t first = x.rows * block / blocks, rows = x.rows * (block + 1) / blocks - first;
            for (int64_t m = rows * thread / threads; m < rows * (thread + 1) / threads; m++)
                own.take(m, x.data + (first + m) * x.stride);
#pragma omp barrier
            for (int64_t k = 0; k < x.columns; k += Kind::OUTER) {
                const int64_t end = std::min(k + Kind::OUTER, x.columns);
                const auto panels = [&](const Matrix &matrix, int64_t from, int64_t to, int64_t output) {
                    const Output home{out.data + first * out.stride + output, out.stride};
                    for (int64_t row = from; row < to; row += WIDE)
                        multiply_panel<Kind>(matrix, row, to, own, rows, k, end, panel, home);
                };
                share(matrices, count, WIDE, thread, threads, panels);
            }
#pragma omp barrier
        }
    }
}

}  // namespace

#endif
