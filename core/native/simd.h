// What the kernels share: the structures that Python fills, and vectors of this processor.
//
// Vectors are the compiler's own (g++ and clang++: operators work on them, on every processor); intrinsics
// stand only where the compiler has no good code for what we mean. PLAIN forces the code for the rest.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__GNUC__) && !defined(__clang__)
// g++ 12 warns of its own headers: their "undefined" vectors are initialised with themselves.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#if defined(__x86_64__) && !defined(PLAIN)
#include <immintrin.h>
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define WITH_AVX512 1
#if defined(__AVX512VNNI__)
#define WITH_VNNI 1
#if defined(__AVX512BF16__)
#define WITH_BF16 1
#endif
#endif
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define WITH_AVX2 1
#endif
#endif

// Numbers as in library.py.
enum Format : int32_t { FLOAT32, FLOAT16, BFLOAT16, INT8, Q8_0, INT4, INT4_128, Q4_0, NF4 };

// One weight, N rows by K columns, laid out as core/weights/layouts.py says. `minima` only where the format
// has them; `reserved` is 0.
struct Matrix {
    int32_t format;
    int32_t reserved;
    int64_t rows, columns;
    const void *values, *scales, *minima;
};

// float16 and bfloat16 as they lie in memory.
struct Half {
    uint16_t bits;
};
struct Bfloat {
    uint16_t bits;
};

#if defined(WITH_AVX512)
constexpr int LANES = 16;
#elif defined(WITH_AVX2)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));

template <class To, class From>
static inline To same_bits(const From &value) {
    static_assert(sizeof(To) == sizeof(From), "");
    To result;
    std::memcpy(&result, &value, sizeof result);
    return result;
}

static inline float value_of(float x) { return x; }
static inline float value_of(int8_t x) { return x; }
static inline float value_of(uint8_t x) { return x; }
static inline float value_of(Bfloat x) { return same_bits<float>(uint32_t(x.bits) << 16); }
static inline float value_of(Half x) {
    // Shifted into place the exponent is 112 short; a product with 2^112 makes normal and subnormal right.
    const uint32_t magnitude = uint32_t(x.bits & 0x7fff) << 13, sign = uint32_t(x.bits & 0x8000) << 16;
    const float scaled = same_bits<float>(magnitude) * 0x1p112f;
    const uint32_t bits = x.bits & 0x7c00;
    return same_bits<float>((bits == 0x7c00 ? magnitude | 0x7f800000 : same_bits<uint32_t>(scaled)) | sign);
}

static inline Floats spread(float x) { return x - Floats{}; }
static inline Floats load(const float *from) {
    Floats result;
    std::memcpy(&result, from, sizeof result);
    return result;
}

template <class T>
static inline Floats load_each(const T *from) {
    Floats result;
    for (int lane = 0; lane < LANES; lane++) result[lane] = value_of(from[lane]);
    return result;
}

#if defined(WITH_AVX512)
static inline Floats load(const Half *from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}
static inline Floats load(const Bfloat *from) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from));
    return (Floats)_mm512_slli_epi32(wide, 16);
}
static inline Floats load(const int8_t *from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
}
static inline Floats load(const uint8_t *from) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)from)));
}
static inline Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
static inline Floats as_floats(Ints x) { return _mm512_cvtepi32_ps((__m512i)x); }
static inline float total(Floats x) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
static inline void store(Half *to, Floats x) {
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline void store_upper_halves(Bfloat *to, Bits x) {
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16((__m512i)(x >> 16)));
}
#elif defined(WITH_AVX2)
static inline Floats load(const Half *from) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)from)); }
static inline Floats load(const Bfloat *from) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from));
    return (Floats)_mm256_slli_epi32(wide, 16);
}
static inline Floats load(const int8_t *from) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)from)));
}
static inline Floats load(const uint8_t *from) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)from)));
}
static inline Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
static inline Floats as_floats(Ints x) { return _mm256_cvtepi32_ps((__m256i)x); }
static inline float total(Floats x) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
static inline void store(Half *to, Floats x) {
    _mm_storeu_si128((__m128i *)to, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline void store_upper_halves(Bfloat *to, Bits x) {
    const __m256i wide = (__m256i)(x >> 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(wide, wide), 0x08);
    _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(packed));
}
#else
static inline Floats load(const Half *from) { return load_each(from); }
static inline Floats load(const Bfloat *from) { return load_each(from); }
static inline Floats load(const int8_t *from) { return load_each(from); }
static inline Floats load(const uint8_t *from) { return load_each(from); }
static inline Floats fma(Floats a, Floats b, Floats c) { return a * b + c; }  // contracted where there is one
static inline Floats as_floats(Ints x) { return __builtin_convertvector(x, Floats); }
static inline float total(Floats x) { return (x[0] + x[2]) + (x[1] + x[3]); }
static inline void store(Half *to, Floats x) {
    for (int lane = 0; lane < LANES; lane++) {
        const uint32_t bits = same_bits<uint32_t>(float(x[lane])), sign = bits >> 16 & 0x8000;
        const uint32_t magnitude = bits & 0x7fffffff;
        uint32_t half;
        if (magnitude > 0x7f800000) {
            half = 0x7e00;
        } else if (magnitude >= 0x38800000) {  // normal as float16; a carry out of the fraction is right too
            const uint32_t rounded = magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1);
            half = rounded >= 0x0f800000 ? 0x7c00 : rounded >> 13;
        } else {  // the sum with 0.5 rounds to multiples of 2^-24, as subnormals are
            half = same_bits<uint32_t>(same_bits<float>(magnitude) + 0.5f) - 0x3f000000;
        }
        to[lane].bits = uint16_t(half | sign);
    }
}
static inline void store_upper_halves(Bfloat *to, Bits x) {
    for (int lane = 0; lane < LANES; lane++) to[lane].bits = uint16_t(x[lane] >> 16);
}
#endif

static inline void store(float *to, Floats x) { std::memcpy(to, &x, sizeof x); }
static inline void store(Bfloat *to, Floats x) {
    // To the nearest, ties to even, as torch. NaN must not round up to infinity.
    const Bits bits = (Bits)x, rounded = bits + 0x7fff + (bits >> 16 & 1);
    store_upper_halves(to, (bits & 0x7fffffff) > 0x7f800000 ? (bits | 0x400000) : rounded);
}

// The first `count` (0..LANES) of a vector; beyond them zeros are read and nothing is written.
template <class T>
static inline Floats load_part(const T *from, int64_t count) {
    T buffer[LANES] = {};
    std::memcpy(buffer, from, sizeof(T) * count);
    return load(buffer);
}
template <class T>
static inline void store_part(T *to, Floats x, int64_t count) {
    T buffer[LANES];
    store(buffer, x);
    std::memcpy(to, buffer, sizeof(T) * count);
}

// The value, rounded: compilers do not make one multiply-add of it and what follows.
static inline Floats rounded(Floats x) {
#if defined(WITH_AVX512)
    asm("" : "+v"(x));
#elif defined(WITH_AVX2)
    asm("" : "+x"(x));
#else
    asm("" : "+m"(x));
#endif
    return x;
}
