// Spectral norms of several weights, each a matrix (O, K) of rows that follow each other in memory.
//
// Every row, and every span of columns, is one thread's: no result depends on how many threads there are.
#include <vector>

#include "maps.h"

namespace {

// A weight, what is read beside it, what is written, and its parts of all weights' vectors.
template <class R> struct Weight {
    int64_t O, K;
    const R *W, *beside;
    R *to, *u, *v;
};

template <class R> struct Weights {
    std::vector<Weight<R>> each;
    int64_t size = 0, rows = 0;

    // O, K and three addresses of each of them; where vectors begin.
    Weights(const int64_t *table, int64_t count, R *u, R *v) {
        for (; count; count--, table += 5) {
            const int64_t O = table[0], K = table[1];
            const auto where = [=](int i) { return reinterpret_cast<R *>(table[i]); };
            each.push_back({O, K, where(2), where(3), where(4), u, v});
            u += O, v += K, size += O * K, rows += O;
        }
    }
    int64_t count() const { return int64_t(each.size()); }
};

template <class R> R product(const R *a, const R *b, int64_t count) {
    R sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

// Columns whose sums stay in the nearest cache.
constexpr int64_t SPAN = 256;

// W^T u, of a span of columns.
template <class R> void of_columns(const Weight<R> &w, const R *u, int64_t begin) {
    const int64_t width = std::min(SPAN, w.K - begin);
    R sums[SPAN] = {};
    for (int64_t o = 0; o < w.O; o++) {
        const R *const row = w.W + o * w.K + begin;
#pragma omp simd
        for (int64_t k = 0; k < width; k++) sums[k] += u[o] * row[k];
    }
    std::copy_n(sums, width, w.v + begin);
}

// Divide a vector by its norm, and eps: the two together, or the larger one. What is left of the norm is the vector's
// product with what it was.
template <class R> R normalized(R *a, int64_t count, R eps, bool added) {
    const R norm = std::sqrt(product(a, a, count)), divisor = added ? norm + eps : std::max(norm, eps);
    for (int64_t i = 0; i < count; i++) a[i] /= divisor;
    return norm * norm / divisor;
}

template <class R>
void iterated(const Weights<R> &weights, bool u_first, int64_t iterations, R eps, bool added, R *sigma, int threads) {
#pragma omp parallel num_threads(threads) if (weights.size > FEW)
    for (int64_t half = 0; half < 2 * iterations; half++) {
        const bool to_v = half % 2 != u_first;
        for (const auto &w : weights.each) {
            const R *const from = half == 0 ? w.beside : to_v ? w.u : w.v;
            if (to_v) {
#pragma omp for schedule(static) nowait
                for (int64_t k = 0; k < w.K; k += SPAN) of_columns(w, from, k);
            } else {
#pragma omp for schedule(static) nowait
                for (int64_t o = 0; o < w.O; o++) w.u[o] = product(w.W + o * w.K, from, w.K);
            }
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t i = 0; i < weights.count(); i++) {
            const auto &w = weights.each[i];
            sigma[i] = normalized(to_v ? w.v : w.u, to_v ? w.K : w.O, eps, added);
        }
    }
}

template <class R> void divided_by(const Weights<R> &weights, const R *sigma, int threads) {
#pragma omp parallel num_threads(threads) if (weights.size > FEW)
    for (int64_t i = 0; i < weights.count(); i++) {
        const auto &w = weights.each[i];
#pragma omp for schedule(static) nowait
        for (int64_t o = 0; o < w.O; o++)
#pragma omp simd
            for (int64_t k = o * w.K; k < (o + 1) * w.K; k++) w.to[k] = w.W[k] / sigma[i];
    }
}

// (g - <g, W> / sigma u v^T) / sigma
template <class R> void through_division(const Weights<R> &weights, const R *sigma, int threads) {
    std::vector<R> of_rows(weights.rows);
    const R *const first = weights.each[0].u;
#pragma omp parallel num_threads(threads) if (weights.size > FEW)
    {
        for (const auto &w : weights.each) {
#pragma omp for schedule(static) nowait
            for (int64_t o = 0; o < w.O; o++)
                of_rows[w.u - first + o] = product(w.beside + o * w.K, w.W + o * w.K, w.K);
        }
#pragma omp barrier
        for (int64_t i = 0; i < weights.count(); i++) {
            const auto &w = weights.each[i];
            R inner = 0;
            for (int64_t o = 0; o < w.O; o++) inner += of_rows[w.u - first + o];
#pragma omp for schedule(static) nowait
            for (int64_t o = 0; o < w.O; o++) {
                const R along = inner / sigma[i] * w.u[o];
                const R *const g = w.beside + o * w.K;
                R *const to = w.to + o * w.K;
#pragma omp simd
                for (int64_t k = 0; k < w.K; k++) to[k] = (g[k] - along * w.v[k]) / sigma[i];
            }
        }
    }
}

} // namespace

// Samples are weights; a dtype is float32's or float64's number.
#define FOR_WEIGHTS(...)                                                                                               \
    const auto compute = [=](auto zero) {                                                                              \
        using R = decltype(zero);                                                                                      \
        const auto of = [](void *vector) { return static_cast<R *>(vector); };                                         \
        const Weights<R> weights(static_cast<const int64_t *>(table), samples, of(u), of(v));                          \
        __VA_ARGS__;                                                                                                   \
    };                                                                                                                 \
    dtype ? compute(double()) : compute(float())

// Rows of the table: O, K, W, the vector that the iteration begins with, nothing.
EXPORT void power_iteration(
    SHAPE, const void *table, void *u, void *v, void *sigma, int u_first, int64_t iterations, double eps, int added
) {
    FOR_WEIGHTS(iterated(weights, u_first, iterations, R(eps), added, of(sigma), threads));
}

// O, K, W, nothing, the quotient.
EXPORT void divide(SHAPE, const void *table, void *u, void *v, void *sigma) {
    FOR_WEIGHTS(divided_by(weights, of(sigma), threads));
}

// O, K, W, the gradient of the quotient, that of W.
EXPORT void divide_backward(SHAPE, const void *table, void *u, void *v, void *sigma) {
    FOR_WEIGHTS(through_division(weights, of(sigma), threads));
}
