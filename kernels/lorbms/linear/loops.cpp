// A fully connected layer of few samples, and its gradients: x W^T, g W and g^T x of a W, (out, in), far larger than x and g.
//
// W is read where it lies, once, and its gradient written once; what is multiplied with a piece of it lies in a core's own
// cache. No result depends on how many threads there are.
#include "product.h"
#include "transpose.h"

namespace {

// Add to sums: sums of parts of them are off by less than sums of all one after another.
void add(float *sums, const float *part, int64_t size) {
    for (int64_t i = 0; i < size; i += LANES) store(sums + i, load(sums + i) + load(part + i));
}

} // namespace

// (samples, in) to (samples, out); these two are multiples of LANES.
#define LINEAR int, int threads, int64_t samples, int64_t in, int64_t out
#define IN_THREADS _Pragma("omp parallel num_threads(threads) if (samples * in > FEW)")
#define DIVIDED _Pragma("omp for schedule(static)")

// y = x W^T + b.
EXPORT void forward(LINEAR, const float *x, const float *W, const float *b, float *y) {
    constexpr int64_t ROWS = 64, DEPTH = 256; // of W at once
    const int64_t width = divided(samples, LANES) * LANES;
    const auto turned = unwritten<float>(in * width); // x
    IN_THREADS {
        DIVIDED for (int64_t k = 0; k < in; k += LANES) {
            // Nothing becomes of columns behind the last sample, but what lies in memory may take long to multiply.
            if (samples < width) std::fill_n(turned.get() + k * width, LANES * width, 0.f);
            transpose_maps(samples, LANES, const_cast<float *>(x) + k, in, turned.get() + k * width, width, true);
        }
        const auto sums = unwritten<float>(ROWS * width), part = unwritten<float>(ROWS * width);
        DIVIDED for (int64_t o = 0; o < out; o += ROWS) {
            const int64_t rows = std::min(ROWS, out - o);
            std::fill_n(sums.get(), rows * width, 0.f);
            for (int64_t k = 0; k < in; k += DEPTH) {
                const int64_t depth = std::min(DEPTH, in - k);
                product<false>(rows, width, depth, W + o * in + k, in, 1, turned.get() + k * width, part.get());
                add(sums.get(), part.get(), rows * width);
            }
            for (int64_t n = 0; n < samples; n++)
                for (int64_t r = 0; r < rows; r++) y[n * out + o + r] = sums[r * width + n] + b[o + r];
        }
    }
}

// The gradient of x from g, that of y.
EXPORT void backward_input(LINEAR, const float *g, const float *W, float *to_x) {
    constexpr int64_t ROWS = 128, COLUMNS = 256; // of W at once
    IN_THREADS {
        const auto piece = unwritten<float>(ROWS * COLUMNS);
        const auto sums = unwritten<float>(samples * COLUMNS), part = unwritten<float>(samples * COLUMNS);
        DIVIDED for (int64_t column = 0; column < in; column += COLUMNS) {
            const int64_t columns = std::min(COLUMNS, in - column);
            std::fill_n(sums.get(), samples * columns, 0.f);
            for (int64_t o = 0; o < out; o += ROWS) {
                const int64_t rows = std::min(ROWS, out - o);
                for (int64_t r = 0; r < rows; r++)
                    std::copy_n(W + (o + r) * in + column, columns, piece.get() + r * columns);
                product<false>(samples, columns, rows, g + o, out, 1, piece.get(), part.get());
                add(sums.get(), part.get(), samples * columns);
            }
            for (int64_t n = 0; n < samples; n++) std::copy_n(sums.get() + n * columns, columns, to_x + n * in + column);
        }
    }
}

// The gradient of W.
EXPORT void backward_weight(LINEAR, const float *g, const float *x, float *to_W) {
    constexpr int64_t ROWS = 12; // so few that they are written almost one after another
    IN_THREADS {
        DIVIDED for (int64_t o = 0; o < out; o += ROWS)
            product<false>(std::min(ROWS, out - o), in, samples, g + o, 1, out, x, to_W + o * in);
    }
}
