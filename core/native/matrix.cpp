// Products with weights in every format of core/weights/layouts.py, and their dequantisation.
//
// M rows of x, N outputs (rows of a weight), K columns; groups are 32 columns, G of them, unless a format has
// its own. x [M, K] and out [M, N] are float32; a call may have several weights, whose outputs lie side by
// side.
//
// One to eight rows (decode) are bound by reading the weights: each thread reads one share of them, once, in
// the order of memory. Whole numbers are multiplied as such where the processor has VNNI (dpbusd: four
// products of an unsigned and a signed byte are added to an int32). The unsigned byte is the weight, moved
// by 128 or 8 where its format is signed, which sums of x take back. x gets a scale for each group: for decode
// 16 bits in two digits, x ~ scale * (256 * high + low), as exact as floats; for many rows 8 bits, which is
// twice as fast and costs little, because groups are small, and 8 more for groups with a number that stands out.
// With many rows 16-bit floats and nf4 are multiplied in bfloat16, where the processor does.
#include "matrix_few.h"
#include "matrix_integers.h"
#include "matrix_bfloats.h"

namespace {

// ---- Dequantising --------------------------------------------------------------------------------------

// Floats in a row of memory; `from` and `to` count values.
template <class T, class Out>
void convert(const Matrix &matrix, int64_t from, int64_t to, Out *out) {
    const T *values = static_cast<const T *>(matrix.values);
    int64_t i = from;
    for (; i + LANES <= to; i += LANES) store(out + i - from, load(values + i));
    if (i < to) store_part(out + i - from, load_part(values + i, to - i), to - i);
}

template <class Out>
void unpack_bytes(const Matrix &matrix, int64_t from, int64_t to, Out *out) {
    const int64_t columns = matrix.columns, whole = columns / LANES * LANES;
    for (int64_t row = from; row < to; row++, out += columns) {
        if (matrix.format == Q8_0) {
            const GroupedRow values(matrix, row);
            for (int64_t k = 0; k < columns; k += LANES) store(out + k, values.at(k));
            continue;
        }
        const PlainRow<int8_t> values(matrix, row);
        const Floats scale = spread(static_cast<const float *>(matrix.scales)[row]), step = spread(INT8_STEP);
        for (int64_t k = 0; k < whole; k += LANES) store(out + k, values.at(k) * scale * step);
        if (whole == columns) continue;
        store_part(out + whole, values.part(whole, columns - whole) * scale * step, columns - whole);
    }
}

// Sixteen columns of a row, from its four bytes in each of two lines.
void codes_of(const uint8_t *line, Bits (&codes)[PARTS]) {
    uint32_t first, second;
    std::memcpy(&first, line, 4);
    std::memcpy(&second, line + 64, 4);
#if defined(WITH_AVX512) || defined(WITH_AVX2)
    const __m128i both = _mm_insert_epi32(_mm_cvtsi32_si128(int(first)), int(second), 1);
    const __m128i mask = _mm_set1_epi8(15);
    const __m128i left = _mm_and_si128(both, mask), right = _mm_and_si128(_mm_srli_epi16(both, 4), mask);
    const __m128i bytes = _mm_unpacklo_epi32(left, right);
#if defined(WITH_AVX512)
    codes[0] = (Bits)_mm512_cvtepu8_epi32(bytes);
#else
    codes[0] = (Bits)_mm256_cvtepu8_epi32(bytes);
    codes[1] = (Bits)_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8));
#endif
#else
    for (int column = 0; column < BLOCK; column++) {
        const uint32_t four = column < 8 ? first : second;
        codes[column / LANES][column % LANES] = four >> (column % 4 * 8 + column % 8 / 4 * 4) & 15;
    }
#endif
}

// Product and sum are rounded apart, as torch does.
template <class Code, class Scale, bool MINIMA, class Out>
void unpack_nibbles(const Matrix &matrix, int64_t from, int64_t to, Out *out) {
    const int64_t columns = matrix.columns, group = group_of(matrix.format), groups = columns / group;
    for (int64_t row = from; row < to; row++, out += columns) {
        const int64_t block = row / BLOCK, lane = row % BLOCK;
        const auto *lines = static_cast<const uint8_t *>(matrix.values) + block * columns * 8 + lane * 4;
        const auto *scales = static_cast<const Scale *>(matrix.scales) + block * groups * BLOCK + lane;
        const auto *minima = static_cast<const Half *>(matrix.minima) + block * groups * BLOCK + lane;
        for (int64_t g = 0; g < groups; g++) {
            const Floats scale = spread(value_of(scales[g * BLOCK]));
            const Floats minimum = MINIMA ? spread(value_of(minima[g * BLOCK])) : Floats{};
            for (int64_t k = g * group; k < (g + 1) * group; k += 16) {
                Bits codes[PARTS] = {};
                codes_of(lines + k * 8, codes);
                for (int p = 0; p < PARTS; p++) {
                    const Floats product = Code::values(codes[p]) * scale;
                    store(out + k + p * LANES, MINIMA ? rounded(product) + minimum : product);
                }
            }
        }
    }
}

template <class Out>
void unpack_rows(const Matrix &matrix, int64_t from, int64_t to, Out *out) {
    switch (matrix.format) {
        case FLOAT32: return convert<float>(matrix, from * matrix.columns, to * matrix.columns, out);
        case FLOAT16: return convert<Half>(matrix, from * matrix.columns, to * matrix.columns, out);
        case BFLOAT16: return convert<Bfloat>(matrix, from * matrix.columns, to * matrix.columns, out);
        case INT8: case Q8_0: return unpack_bytes(matrix, from, to, out);
        case INT4: case INT4_128: return unpack_nibbles<Unsigned, Half, true>(matrix, from, to, out);
        case Q4_0: return unpack_nibbles<Signed, Half, false>(matrix, from, to, out);
        case NF4: return unpack_nibbles<Normal, float, false>(matrix, from, to, out);
    }
}

template <class Out>
void unpack_shares(const Matrix &matrix, int64_t start, int64_t stop, Out *out) {
#pragma omp parallel if ((stop - start) * matrix.columns > SMALL)
    {
        const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
        const int64_t blocks = (stop - start + BLOCK - 1) / BLOCK;
        const int64_t from = start + blocks * thread / threads * BLOCK;
        const int64_t to = std::min(stop, start + blocks * (thread + 1) / threads * BLOCK);
        if (from < to) unpack_rows(matrix, from, to, out + (from - start) * matrix.columns);
    }
}

enum KindOfMany { NONE_SUCH, IN_INTEGERS, IN_BFLOATS };

// What many rows of x are multiplied as, with a format.
KindOfMany kind_of(int32_t format) {
#if defined(WITH_VNNI)
    if (needs_digits(format)) return IN_INTEGERS;
#endif
#if defined(WITH_BF16)
    if (format == FLOAT16 || format == BFLOAT16 || format == NF4) return IN_BFLOATS;
#endif
    return NONE_SUCH;
}

}  // namespace

// What these kernels were compiled for.
extern "C" const char *instructions() {
#if defined(WITH_BF16)
    return "AVX-512 VNNI BF16";
#elif defined(WITH_VNNI)
    return "AVX-512 VNNI";
#elif defined(WITH_AVX512)
    return "AVX-512";
#elif defined(WITH_AVX2)
    return "AVX2";
#else
    return "plain";
#endif
}

// out[m][n] = sum over k of x[m][k] * weight[n][k], for the outputs n of all matrices, which have the same
// columns. Strides count floats. Returns 1, and writes nothing, where there is no kernel.
extern "C" int matmul(const Matrix *matrices, int count, const float *x, int64_t rows_x, int64_t x_stride,
                      float *out, int64_t out_stride) {
    for (int i = 0; i < count; i++) {
        const int64_t group = group_of(matrices[i].format);
        if (matrices[i].format < FLOAT32 || matrices[i].format > NF4) return 1;
        if (matrices[i].columns != matrices[0].columns) return 1;
        if (group != 0 && matrices[i].columns % group != 0) return 1;
        if (rows_x > FEW && kind_of(matrices[i].format) == NONE_SUCH) return 1;
    }
    if (count == 0 || rows_x == 0) return 0;
    const Input input{x, rows_x, matrices[0].columns, x_stride};
    if (rows_x <= FEW) {
        const int64_t bytes = bytes_of(matrices, count);
        const bool alone = bytes * rows_x < SMALL;
        const int64_t threads = alone ? 1 : omp_get_max_threads();
        const int64_t parts = std::max(int64_t(1), bytes / PART / threads) * threads;  // as many for each
        Queue queue(parts);
#pragma omp parallel if (!alone)
        few_rows(matrices, count, input, Output{out, out_stride}, parts, queue);
        return 0;
    }
    for (int first = 0, next; first < count; first = next) {  // neighbours of one kind together
        const KindOfMany kind = kind_of(matrices[first].format);
        int64_t outputs = 0;
        for (next = first; next < count && kind_of(matrices[next].format) == kind; next++)
            outputs += matrices[next].rows;
        const Output home{out, out_stride};
#if defined(WITH_VNNI)
        if (kind == IN_INTEGERS) many_rows<Integers>(matrices + first, next - first, input, home);
#endif
#if defined(WITH_BF16)
        if (kind == IN_BFLOATS) many_rows<Bfloats>(matrices + first, next - first, input, home);
#endif
        out += outputs;
    }
    return 0;
}

// Rows start..stop as out [stop - start, K] of type 0 (float32), 1 (float16) or 2 (bfloat16). `start` is a
// multiple of 16 for formats of nibbles. Returns 1, and writes nothing, for what it does not know.
extern "C" int unpack(const Matrix *matrix, int64_t start, int64_t stop, void *out, int32_t type) {
    if (matrix->format < FLOAT32 || matrix->format > NF4 || type < 0 || type > 2) return 1;
    if (start < 0 || start > stop || stop > matrix->rows) return 1;
    if (in_nibbles(matrix->format) && start % BLOCK != 0) return 1;
    if (type == 0) unpack_shares(*matrix, start, stop, static_cast<float *>(out));
    else if (type == 1) unpack_shares(*matrix, start, stop, static_cast<Half *>(out));
    else unpack_shares(*matrix, start, stop, static_cast<Bfloat *>(out));
    return 0;
}
