// What a layer does besides its matrices: norm, gate and attention, one call each.

#include <cmath>
#include <cstdint>

#include "attention.h"

namespace ops {

template <int TYPE>
static void norm_row(const float *x, int64_t columns, const char *weight, float eps, float *out) {
    Vector squares[4] = {};  // several, since one would wait for its own last sum
    int64_t i = 0;
    for (; i + 4 * W <= columns; i += 4 * W)
        for (int j = 0; j < 4; j++) {
            const Vector v = read<Vector>(x + i + j * W);
            squares[j] = fma(v, v, squares[j]);
        }
    for (; i < columns; i += W) {
        const Vector v = load_some<FLOAT32>(x + i, columns - i);
        squares[0] = fma(v, v, squares[0]);
    }
    const float mean = sum((squares[0] + squares[1]) + (squares[2] + squares[3])) / columns;
    const Vector scale = splat(1 / std::sqrt(mean + eps));
    for (i = 0; i < columns; i += W) {
        const Vector w = load_some<TYPE>(weight + i * BYTES<TYPE>, columns - i);
        store<FLOAT32>(out + i, load_some<FLOAT32>(x + i, columns - i) * scale * w, columns - i);
    }
}

}  // namespace ops

extern "C" {

// out = x / rms(x) * weight for `rows` rows that lie one behind the other; `type` is the weight's.
void rms_norm(const float *x, int64_t rows, int64_t columns, const void *weight, int32_t type, float eps,
              float *out) {
    const auto row = type == FLOAT32   ? ops::norm_row<FLOAT32>
                     : type == FLOAT16 ? ops::norm_row<FLOAT16>
                                       : ops::norm_row<BFLOAT16>;
#pragma omp parallel for if (rows > 1 && rows * columns > ops::PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < rows; i++)
        row(x + i * columns, columns, (const char *)weight, eps, out + i * columns);
}

// out [rows][columns] = silu(a) * b; strides in elements from row to row.
void gate(const float *a, int64_t a_stride, const float *b, int64_t b_stride, int64_t rows, int64_t columns,
          float *out) {
    const int64_t piece = 1024, pieces = (columns + piece - 1) / piece;
#pragma omp parallel for if (rows * columns > ops::PARALLEL_ELEMENTS)
    for (int64_t i = 0; i < rows * pieces; i++) {
        const int64_t row = i / pieces, first = i % pieces * piece;
        const int64_t stop = ops::smaller(first + piece, columns);
        for (int64_t j = first; j < stop; j += ops::W) {
            const ops::Vector x = ops::load_some<FLOAT32>(a + row * a_stride + j, stop - j);
            const ops::Vector y = ops::load_some<FLOAT32>(b + row * b_stride + j, stop - j);
            ops::store<FLOAT32>(out + row * columns + j, x / (1 + ops::exponential(-x)) * y, stop - j);
        }
    }
}

// Rotates q and k, appends k and v to the cache and attends. Not zero: there is no memory.
int attend(const Attention *a) {
    if (a->type == FLOAT32) return ops::attend<FLOAT32>(*a);
    if (a->type == INT8) return ops::attend<INT8>(*a);
    return a->type == FLOAT16 ? ops::attend<FLOAT16>(*a) : ops::attend<BFLOAT16>(*a);
}
}
