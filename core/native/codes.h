// Rows of numbers as codes and a scale, value = code * scale, and products of codes.
#pragma once

#include <cstdint>

#include "vectors.h"

namespace ops {

// Codes -top to top of a row x [D], and its scale. What is not finite makes the scale so. They may lie where
// x does: what is read is overwritten afterwards. Codes of 8 bits are those of core/model/cache.py.
template <class Code> static float quantise(const float *x, int64_t D, float top, Code *codes) {
    typedef Code Codes __attribute__((vector_size(W * sizeof(Code))));
    Vector most = {}, faults = {};
    for (int64_t d = 0; d < D; d += W) {
        const Vector v = load_some<FLOAT32>(x + d, D - d);
        most = larger(cast<Vector>(cast<Bits>(v) & 0x7fffffff), most);
        faults += v * 0;
    }
    float largest = 0;
    for (int i = 0; i < W; i++) largest = most[i] > largest ? most[i] : largest;
    const Vector inverse = splat(top / (largest > 1e-30f ? largest : 1e-30f));
    const Vector magic = splat(12582912.f);  // 1.5 * 2^23: adding it rounds
    for (int64_t d = 0; d < D; d += W) {
        const Vector shifted = rounded(load_some<FLOAT32>(x + d, D - d) * inverse) + magic;
        const Codes row = __builtin_convertvector(cast<Ints>(cast<Bits>(shifted) - cast<Bits>(magic)), Codes);
        std::memcpy(codes + d, &row, smaller(D - d, W) * sizeof(Code));
    }
    return largest / top + sum(faults);
}

// Lane i is v's lane i / N.
template <int N> static inline Vector each(Vector v) {
#if LANES == 16
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(lanes, N == 8 ? 3 : N / 2), v);
#elif LANES == 8
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_permutevar8x32_ps(v, _mm256_srli_epi32(lanes, N / 2));
#else
    Vector result;
    for (int i = 0; i < W; i++) result[i] = v[i / N];
    return result;
#endif
}

// Lane i is x[i % N].
template <int N> static inline Vector repeated(const float *x) {
    Vector result;
    for (int i = 0; i < W; i++) result[i] = x[i % N];
    return result;
}

// x [count][N], up to a vector of them too many, times the scale of each [count], MOST at most.
template <int N, int MOST> static void multiply(const float *scales, int64_t count, float *x) {
    alignas(64) float padded[MOST + W] = {};
    std::memcpy(padded, scales, count * sizeof *scales);
    for (int64_t p = 0; p < count; p += W / N, x += W)
        write(x, read<Vector>(x) * each<N>(read<Vector>(padded + p)));
}

#if LANES > 4
typedef int16_t Shorts __attribute__((vector_size(W * 4)));
typedef int8_t Bytes __attribute__((vector_size(W * 2)));

static inline Shorts widened(Bytes codes) {
#if LANES == 16
    return cast<Shorts>(_mm512_cvtepi8_epi16(cast<__m256i>(codes)));
#else
    return cast<Shorts>(_mm256_cvtepi8_epi16(cast<__m128i>(codes)));
#endif
}

// W codes of one row and W of another.
static inline Shorts load_halves(const char *a, const char *b) {
#if LANES == 16
    return widened(cast<Bytes>(_mm256_set_m128i(read<__m128i>(b), read<__m128i>(a))));
#else
    return widened(cast<Bytes>(_mm_set_epi64x(read<int64_t>(b), read<int64_t>(a))));
#endif
}

// W codes of 16 bits, twice.
static inline Shorts load_twice(const int16_t *place) {
#if LANES == 16
    return cast<Shorts>(_mm512_broadcast_i64x4(read<__m256i>(place)));
#else
    return cast<Shorts>(_mm256_broadcastsi128_si256(read<__m128i>(place)));
#endif
}

// a0 + a2, a1 + a3, b0 + b2, b1 + b3 of each four lanes.
static inline Ints fold_pairs(Ints a, Ints b) {
#if LANES == 16
    const __m512i x = cast<__m512i>(a), y = cast<__m512i>(b);
    return cast<Ints>(_mm512_unpacklo_epi64(x, y)) + cast<Ints>(_mm512_unpackhi_epi64(x, y));
#else
    const __m256i x = cast<__m256i>(a), y = cast<__m256i>(b);
    return cast<Ints>(_mm256_unpacklo_epi64(x, y)) + cast<Ints>(_mm256_unpackhi_epi64(x, y));
#endif
}

// a0 + a1, a2 + a3, b0 + b1, b2 + b3 of each four lanes.
static inline Ints fold_lanes(Ints a, Ints b) {
    const Vector x = cast<Vector>(a), y = cast<Vector>(b);
#if LANES == 16
    return cast<Ints>(_mm512_shuffle_ps(x, y, 0x88)) + cast<Ints>(_mm512_shuffle_ps(x, y, 0xdd));
#else
    return cast<Ints>(_mm256_shuffle_ps(x, y, 0x88)) + cast<Ints>(_mm256_shuffle_ps(x, y, 0xdd));
#endif
}

// Lane i is the sum of the lower half of v[i], lane W / 2 + i of its upper half.
static inline Ints sums_of_halves(const Ints (&v)[W / 2]) {
    const Ints a = fold_lanes(fold_pairs(v[0], v[1]), fold_pairs(v[2], v[3]));
#if LANES == 16
    const Ints b = fold_lanes(fold_pairs(v[4], v[5]), fold_pairs(v[6], v[7]));
    const __m512i x = cast<__m512i>(a), y = cast<__m512i>(b);
    const __m512i even = _mm512_shuffle_i64x2(x, y, 0x88), odd = _mm512_shuffle_i64x2(x, y, 0xdd);
    const __m512i sums = cast<__m512i>(cast<Ints>(even) + cast<Ints>(odd));
    return cast<Ints>(_mm512_shuffle_i64x2(sums, sums, 0xd8));
#else
    return a;
#endif
}

// The first `count` codes, and zeros.
static inline Bytes load_codes(const char *place, int64_t count) {
    Bytes some = {};
    std::memcpy(&some, place, count);
    return some;
}

// sums + the products of each two neighbours.
static inline Ints dot(Ints sums, Shorts a, Shorts b) {
#if defined(WITH_VNNI)
    return cast<Ints>(_mm512_dpwssd_epi32(cast<__m512i>(sums), cast<__m512i>(a), cast<__m512i>(b)));
#elif LANES == 16
    return sums + cast<Ints>(_mm512_madd_epi16(cast<__m512i>(a), cast<__m512i>(b)));
#else
    return sums + cast<Ints>(_mm256_madd_epi16(cast<__m256i>(a), cast<__m256i>(b)));
#endif
}

// Codes of two rows as neighbours: those of lanes 0 to W, then of W to 2 W, in the order of `in_order`.
static inline void pair(Bytes a, Bytes b, Shorts &first, Shorts &second) {
#if LANES == 16
    const __m256i x = cast<__m256i>(a), y = cast<__m256i>(b);
    first = widened(cast<Bytes>(_mm256_unpacklo_epi8(x, y)));
    second = widened(cast<Bytes>(_mm256_unpackhi_epi8(x, y)));
#else
    const __m128i x = cast<__m128i>(a), y = cast<__m128i>(b);
    first = widened(cast<Bytes>(_mm_unpacklo_epi8(x, y)));
    second = widened(cast<Bytes>(_mm_unpackhi_epi8(x, y)));
#endif
}

static inline void in_order(Ints &first, Ints &second) {
#if LANES == 16
    const __m512i x = cast<__m512i>(first), y = cast<__m512i>(second);
    first = cast<Ints>(_mm512_shuffle_i64x2(x, y, 0x44));
    second = cast<Ints>(_mm512_shuffle_i64x2(x, y, 0xee));
#endif
}
#endif

}  // namespace ops
