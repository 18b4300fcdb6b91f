// Vectors of this processor, W lanes of float32, for ops.cpp: sums, e^x, and the types in memory.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // said of the compiler's own headers

#if defined(PLAIN)
#define LANES 4
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define LANES 16
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define LANES 8
#else
#define LANES 4
#endif

namespace ops {

constexpr int W = LANES;

// The compilers' own vectors: one source for every processor, but where the speed hangs on an instruction.
typedef float Vector __attribute__((vector_size(W * 4)));
typedef uint32_t Bits __attribute__((vector_size(W * 4)));
typedef uint16_t Halves __attribute__((vector_size(W * 2)));

template <class To, class From> static inline To cast(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <class Kind> static inline Kind read(const void *place) {
    Kind kind;
    std::memcpy(&kind, place, sizeof kind);
    return kind;
}

static inline void write(float *place, Vector v) { std::memcpy(place, &v, sizeof v); }

static inline Vector splat(float value) { return value - Vector{}; }

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static inline Vector fma(Vector a, Vector b, Vector c) {
#if LANES == 16
    return _mm512_fmadd_ps(a, b, c);
#elif LANES == 8
    return _mm256_fmadd_ps(a, b, c);
#else
    return a * b + c;
#endif
}

static inline float sum(Vector v) {
    float total = 0;
    for (int i = 0; i < W; i++) total += v[i];
    return total;
}

#if LANES > 4
// Halves the vectors to be summed: a's sums in the lower half of the lanes, b's in the upper; then the same
// with pairs of lanes, then with single ones. Blends cost less than the shuffles that they replace.
static inline Vector fold(Vector a, Vector b) {
#if LANES == 16
    return _mm512_mask_blend_ps(0xff00, a, b) + _mm512_shuffle_f32x4(a, b, 0x4e);
#else
    return _mm256_blend_ps(a, b, 0xf0) + _mm256_permute2f128_ps(a, b, 0x21);
#endif
}

static inline Vector fold_pairs(Vector a, Vector b) {
#if LANES == 16
    return _mm512_mask_blend_ps(0xcccc, a, b) + _mm512_shuffle_ps(a, b, 0x4e);
#else
    return _mm256_blend_ps(a, b, 0xcc) + _mm256_shuffle_ps(a, b, 0x4e);
#endif
}

static inline Vector fold_lanes(Vector a, Vector b) {
#if LANES == 16
    return _mm512_shuffle_ps(a, b, 0x88) + _mm512_shuffle_ps(a, b, 0xdd);
#else
    return _mm256_shuffle_ps(a, b, 0x88) + _mm256_shuffle_ps(a, b, 0xdd);
#endif
}

// Sums of v[0 .. 8), v[0] to v[3] in the lower half.
static inline Vector fold_eight(const Vector *v) {
    const Vector a = fold_pairs(fold(v[0], v[4]), fold(v[1], v[5]));
    return fold_lanes(a, fold_pairs(fold(v[2], v[6]), fold(v[3], v[7])));
}
#endif

// Lane i of the result is the sum of vector i.
static inline Vector sums_of(const Vector (&v)[W]) {
#if LANES == 16
    const Vector a = fold_eight(v), b = fold_eight(v + 8);
    return _mm512_shuffle_f32x4(a, b, 0x88) + _mm512_shuffle_f32x4(a, b, 0xdd);
#elif LANES == 8
    return fold_eight(v);
#else
    Vector total = {};
    for (int i = 0; i < W; i++) total[i] = sum(v[i]);
    return total;
#endif
}

// NaN where b is.
static inline Vector larger(Vector a, Vector b) {
#if LANES == 16
    return _mm512_max_ps(a, b);
#elif LANES == 8
    return _mm256_max_ps(a, b);
#else
    return a > b ? a : b;
#endif
}

// e^x to 1e-7, infinity and denormal numbers included; NaN stays NaN.
static inline Vector exponential(Vector x) {
    const Vector magic = splat(12582912.f);  // 1.5 * 2^23: adding it rounds
    x = -larger(splat(-90.f), -larger(splat(-110.f), x));
    const Vector shifted = fma(x, splat(1.44269504f), magic), n = shifted - magic;
    // Less n * log 2, whose first part is exact; then the polynomial that is nearest.
    const Vector r = fma(n, splat(2.12194440e-4f), fma(n, splat(-0.693359375f), x));
    Vector e = fma(r, splat(.001383677f), splat(.008374857f));
    const float terms[] = {.04166823f, .1666642f, .4999999f, 1, 1};
    for (float term : terms) e = fma(e, r, splat(term));
#if LANES == 16
    return _mm512_scalef_ps(e, n);
#else
    // 2^n in two factors: one alone could not hold the ends of the range.
    const Bits power = cast<Bits>(shifted) - cast<Bits>(magic) + 254, half = power >> 1;
    return e * cast<Vector>(half << 23) * cast<Vector>((power - half) << 23);
#endif
}

static inline Vector from_float16(Halves h) {
#if LANES == 16
    return _mm512_cvtph_ps(cast<__m256i>(h));
#elif LANES == 8
    return _mm256_cvtph_ps(cast<__m128i>(h));
#else
    const Bits w = __builtin_convertvector(h, Bits), magnitude = w & 0x7fff;
    const Bits scaled = cast<Bits>(cast<Vector>(magnitude << 13) * 0x1p112f);  // exact, denormal numbers too
    const Bits special = cast<Bits>(magnitude >= 0x7c00) & 0x7f800000;
    return cast<Vector>(scaled | special | (w & 0x8000) << 16);
#endif
}

static inline Halves to_float16(Vector v) {
#if LANES == 16
    return cast<Halves>(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#elif LANES == 8
    return cast<Halves>(_mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
#else
    // Adding a power of two of the right size makes the processor round at float16's last bit.
    const Bits w = cast<Bits>(v), twice = w + w, exponent = twice & 0xff000000;
    const Bits floor = exponent < 0x71000000 ? Bits{} + 0x71000000 : exponent;
    const Vector base = cast<Vector>(w & 0x7fffffff) * 0x1p112f * 0x1p-110f;
    const Bits sum = cast<Bits>(cast<Vector>((floor >> 1) + 0x07800000) + base);
    const Bits magnitude = ((sum >> 13) & 0x7c00) + (sum & 0xfff);
    const Bits rounded = twice > 0xff000000 ? Bits{} + 0x7e00 : magnitude;
    return __builtin_convertvector(rounded | (w >> 16 & 0x8000), Halves);
#endif
}

static inline Halves to_bfloat16(Vector v) {
    const Bits w = cast<Bits>(v), rounded = (w + 0x7fff + (w >> 16 & 1)) >> 16;
    const Bits checked = (w & 0x7fffffff) > 0x7f800000 ? Bits{} + 0x7fc0 : rounded;
    return __builtin_convertvector(checked, Halves);
}

template <int TYPE> constexpr int64_t BYTES = TYPE == FLOAT32 ? 4 : TYPE == INT8 ? 1 : 2;

template <int TYPE> static inline Vector load(const void *place) {
    if constexpr (TYPE == FLOAT32) return read<Vector>(place);
    else if constexpr (TYPE == FLOAT16) return from_float16(read<Halves>(place));
    else if constexpr (TYPE == INT8) return ::load((const int8_t *)place);
    else return cast<Vector>(__builtin_convertvector(read<Halves>(place), Bits) << 16);
}

// The first `count` elements, and zeros.
template <int TYPE> static inline Vector load_some(const void *place, int64_t count) {
    if (count >= W) return load<TYPE>(place);
    char whole[W * 4] = {};
    std::memcpy(whole, place, count * BYTES<TYPE>);
    return load<TYPE>(whole);
}

template <int TYPE> static inline void store(void *place, Vector v, int64_t count) {
    const size_t bytes = smaller(count, W) * BYTES<TYPE>;
    if constexpr (TYPE == FLOAT32) {
        if (count >= W) write((float *)place, v);
        else std::memcpy(place, &v, bytes);
    } else {
        const Halves halves = TYPE == FLOAT16 ? to_float16(v) : to_bfloat16(v);
        std::memcpy(place, &halves, bytes);
    }
}

}  // namespace ops
