// What the products with few and with many rows share: their sizes, work for each thread, x as whole numbers.
#pragma once

#include "simd.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <omp.h>
#include <type_traits>

namespace {

constexpr int BLOCK = 16;      // rows that lie beside each other in formats of nibbles
constexpr int GROUP = 32;      // columns of x that have one scale
constexpr int FEW = 8;         // rows of x that count as decode,
constexpr int AT_ONCE = 4;     // of which the kernels take so many
constexpr int64_t NEAR = 1 << 18;  // bytes of weights that the second cache keeps for the next rows of x
constexpr int64_t FAR_AHEAD = 24576, NEAR_AHEAD = 2048;  // bytes: best of what was measured on Zen 4
constexpr int64_t PART = 1 << 18;  // bytes of weights that a thread takes at once
constexpr int64_t SMALL = 1 << 16;  // bytes times rows; below that one thread is faster than waking others
constexpr float INT8_STEP = 0.007874015718698502f;  // 1 / 127 as bitsandbytes has it

constexpr float NF4_VALUES[16] = {
    -1.0f, -0.69619280099868774414f, -0.52507305145263671875f, -0.39491748809814453125f,
    -0.28444138169288635254f, -0.1847734302282333374f, -0.091050036251544952393f, 0.0f,
    0.079580299556255340576f, 0.16093020141124725342f, 0.24611230194568634033f, 0.33791524171829223633f,
    0.44070982933044433594f, 0.5626170039176940918f, 0.72295683622360229492f, 1.0f,
};

struct Input {  // x: row m begins at data + m * stride
    const float *data;
    int64_t rows, columns, stride;
};

struct Output {  // where a matrix's first output of the first row goes
    float *data;
    int64_t stride;
};

// Memory of one thread that stays for its next call.
class Scratch {
  public:
    Scratch() = default;
    Scratch(const Scratch &) = delete;
    ~Scratch() { std::free(memory_); }
    char *of(int64_t bytes) {
        if (bytes > bytes_) {
            std::free(memory_);
            bytes_ = (bytes + 4095) / 4096 * 4096;
            memory_ = static_cast<char *>(std::aligned_alloc(4096, bytes_));
            if (memory_ == nullptr) std::abort();
        }
        return memory_;
    }

  private:
    char *memory_ = nullptr;
    int64_t bytes_ = 0;
};

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

bool in_nibbles(int32_t format) { return format >= INT4; }

// Columns of a scale; 0 where a row has one or none.
int64_t group_of(int32_t format) {
    switch (format) {
        case Q8_0: case INT4: case Q4_0: return 32;
        case INT4_128: return 128;
        case NF4: return 64;
        default: return 0;
    }
}

// Asks for what will be read soon, first into the second cache, then into the first: where a page ends the
// processor's own guess does, and there is too much to compute between two reads for it to read far ahead.
void soon(const void *from) {
    __builtin_prefetch(static_cast<const char *>(from) + FAR_AHEAD, 0, 2);
    __builtin_prefetch(static_cast<const char *>(from) + NEAR_AHEAD, 0, 3);
}

// Bytes of `BLOCK` rows, near enough to share work out.
int64_t weight_of(const Matrix &matrix) {
    const int32_t format = matrix.format;
    const int64_t bits = format == FLOAT32 ? 32 : format <= BFLOAT16 ? 16 : format <= Q8_0 ? 8 : 4;
    return BLOCK * matrix.columns * bits / 8 + 1;
}

int64_t bytes_of(const Matrix *matrices, int count) {
    int64_t bytes = 0;
    for (int i = 0; i < count; i++) bytes += round_up(matrices[i].rows, BLOCK) / BLOCK * weight_of(matrices[i]);
    return bytes;
}

// Calls work(matrix, from, to, first output) with part `index` of `parts` of all rows, in bytes; `step` rows are
// never divided.
template <class Work>
void share(const Matrix *matrices, int count, int64_t step, int64_t index, int64_t parts, const Work &work) {
    int64_t all = 0, before = 0, first_output = 0;
    for (int i = 0; i < count; i++) all += round_up(matrices[i].rows, step) / step * weight_of(matrices[i]);
    const int64_t low = all * index / parts, high = all * (index + 1) / parts;
    for (int i = 0; i < count; i++) {
        const Matrix &matrix = matrices[i];
        const int64_t weight = weight_of(matrix), steps = round_up(matrix.rows, step) / step;
        const auto at = [&](int64_t byte) {
            return std::min(std::max((byte - before + weight - 1) / weight, int64_t(0)), steps) * step;
        };
        const int64_t from = at(low), to = std::min(at(high), matrix.rows);
        if (from < to) work(matrix, from, to, first_output);
        before += steps * weight;
        first_output += matrix.rows;
    }
}

// Work in parts, of which each thread has a row of its own; who has done his helps the others. A thread that
// the system gives less of a processor would otherwise keep all others waiting.
class Queue {
  public:
    explicit Queue(int64_t parts) : parts_(parts) {}

    // Calls work(index) for this thread's parts, then for what others have not begun.
    template <class Work>
    void run(const Work &work) {
        const int64_t thread = omp_get_thread_num(), threads = std::min<int64_t>(omp_get_num_threads(), ROWS);
        for (int64_t i = 0; i < threads; i++) {
            const int64_t row = (thread + i) % threads, first = parts_ * row / threads;
            const int64_t count = parts_ * (row + 1) / threads - first;
            while (true) {
                const int64_t taken = rows_[row].taken.fetch_add(1, std::memory_order_relaxed);
                if (taken >= count) break;
                work(first + taken);
            }
        }
    }

  private:
    static constexpr int64_t ROWS = 64;  // more threads have no row of their own
    struct alignas(64) Row {
        std::atomic<int64_t> taken{0};
    };
    const int64_t parts_;
    Row rows_[ROWS];
};

// Calls work with rows (1..6) as a constant.
template <class Work>
void with_constant(int64_t rows, const Work &work) {
    switch (rows) {
        case 1: return work(std::integral_constant<int, 1>());
        case 2: return work(std::integral_constant<int, 2>());
        case 3: return work(std::integral_constant<int, 3>());
        case 4: return work(std::integral_constant<int, 4>());
        case 5: return work(std::integral_constant<int, 5>());
        case 6: return work(std::integral_constant<int, 6>());
    }
}

#if defined(WITH_VNNI)

const __m512i ZERO = _mm512_setzero_si512();

__mmask16 first_lanes(int64_t count) {
    return count >= 16 ? __mmask16(0xffff) : count <= 0 ? __mmask16(0) : __mmask16((1u << count) - 1);
}

__m512i every_four_bytes(const int8_t *from) {
    int32_t four;
    std::memcpy(&four, from, 4);
    return _mm512_set1_epi32(four);
}

// sum + weights * the four bytes at `from`, in every lane. One instruction, which g++ makes two of: reading
// ahead of memory, the processor holds so many instructions and no more.
__m512i add_products(__m512i sum, __m512i weights, const int8_t *from) {
    const auto &four = *reinterpret_cast<const int8_t(*)[4]>(from);
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(four));
    return sum;
}

// A group of x as whole numbers, x ~ scale * numbers, |numbers| <= LIMIT. Not a number and infinity get a
// scale that is one too, so that products show them.
struct Numbers {
    __m512i first, second;
    float scale;
    int32_t sum;
};

template <int LIMIT>
Numbers numbers_of(const float *x, int64_t count) {
    const __m512 a = _mm512_maskz_loadu_ps(first_lanes(count), x);
    const __m512 b = _mm512_maskz_loadu_ps(first_lanes(count - 16), x + 16);
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);  // as whole numbers floats have the same order
    const __m512i first = _mm512_and_si512((__m512i)a, magnitude);
    const __m512i second = _mm512_and_si512((__m512i)b, magnitude);
    const float largest = same_bits<float>(_mm512_reduce_max_epi32(_mm512_max_epi32(first, second)));
    const __m512 inverse = _mm512_set1_ps(largest > 1e-30f ? LIMIT / largest : 0.0f);
    Numbers result;
    result.first = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse));
    result.second = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
    result.scale = largest / LIMIT;
    result.sum = _mm512_reduce_add_epi32(_mm512_add_epi32(result.first, result.second));
    return result;
}

#endif

}  // namespace
