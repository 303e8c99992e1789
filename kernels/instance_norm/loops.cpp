// Instance norm, with or without scale and shift, with or without ReLU behind it, of channels_last maps.
#include <vector>

#include "statistics.h"

namespace {

// Positions that one thread takes statistics of; so the result does not depend on how many threads there are.
constexpr int64_t SPAN = 1 << 12;

template <class R> struct Parameters {
    const R *mean, *rstd, *weight, *bias;

    Parameters(const void *mean, const void *rstd, const void *weight, const void *bias)
        : mean(static_cast<const R *>(mean)), rstd(static_cast<const R *>(rstd)),
          weight(static_cast<const R *>(weight)), bias(static_cast<const R *>(bias)) {}

    R scale(int64_t c) const { return weight ? weight[c] : R(1); }
    R shift(int64_t c) const { return bias ? bias[c] : R(0); }
};

// `mean` is that of the differences from the first position.
template <class T>
void statistics(Shape shape, Maps<T> x, Real<T> *mean, Real<T> *rstd, double eps, int threads) {
    using R = Real<T>;
    const int64_t spans = (shape.positions + SPAN - 1) / SPAN, C = shape.channels;
    std::vector<R> means(shape.samples * spans * C), squares(shape.samples * spans * C);
    R *const all_means = means.data(), *const all_squares = squares.data();
    of_spans(shape, SPAN, threads, [=](int64_t n, int64_t begin, int64_t end, int64_t c, auto width) {
        Statistics<T> of(x, n, c, width);
        of.take(x, n, c, width, begin, end);
        const int64_t at = (n * spans + begin / SPAN) * C + c;
        std::copy_n(of.mean, int64_t(width), all_means + at);
        std::copy_n(of.squares, int64_t(width), all_squares + at);
    });
    of_blocks(shape, 1, [=](int64_t n, int64_t c, auto width) {
        Statistics<T> of(x, n, c, width);
        for (int64_t span = 0; span < spans; span++) {
            const int64_t at = (n * spans + span) * C + c;
            const R count = R(std::min((span + 1) * SPAN, shape.positions) - span * SPAN);
            of.join(all_means + at, all_squares + at, count, width);
        }
        for (int64_t i = 0; i < width; i++) {
            mean[n * C + c + i] = of.mean[i];
            rstd[n * C + c + i] = of.rstd(i, eps);
        }
    });
}

template <class T> void apply(Shape shape, Maps<T> x, Maps<T> y, Parameters<Real<T>> of, bool relu, int threads) {
    using R = Real<T>;
    of_spans(shape, SPAN, threads, [=](int64_t n, int64_t begin, int64_t end, int64_t c, auto width) {
        R first[BLOCK], mean[BLOCK], scale[BLOCK], shift[BLOCK];
        for (int64_t i = 0; i < width; i++) {
            const int64_t at = n * shape.channels + c + i;
            first[i] = read(x.at(n, 0)[c + i]), mean[i] = of.mean[at];
            scale[i] = of.rstd[at] * of.scale(c + i), shift[i] = of.shift(c + i);
        }
        for (int64_t p = begin; p < end; p++) {
            const T *const from = x.at(n, p) + c;
            T *const to = y.at(n, p) + c;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) {
                const R value = (read(from[i]) - first[i] - mean[i]) * scale[i] + shift[i];
                write(to[i], relu && value < 0 ? R(0) : value);
            }
        }
    });
}

// dx = scale rstd (g - mean(g) - x_hat mean(g x_hat)), g being what ReLU lets through; sums of g and of g x_hat, (N, C).
template <class T>
void backward(
    Shape shape, Maps<T> grad, Maps<T> x, Maps<T> dx, Parameters<Real<T>> of, Real<T> *sum_g, Real<T> *sum_along,
    bool relu, int threads
) {
    using R = Real<T>;
    const int64_t spans = (shape.positions + SPAN - 1) / SPAN, C = shape.channels;
    std::vector<R> sums(2 * shape.samples * spans * C);
    R *const all_g = sums.data(), *const all_along = all_g + shape.samples * spans * C;
    struct Block {
        R first[BLOCK], mean[BLOCK], rstd[BLOCK], scale[BLOCK], shift[BLOCK];
    };
    const auto block_of = [=](int64_t n, int64_t c, int64_t width) {
        Block block;
        for (int64_t i = 0; i < width; i++) {
            const int64_t at = n * C + c + i;
            block.first[i] = read(x.at(n, 0)[c + i]), block.mean[i] = of.mean[at], block.rstd[i] = of.rstd[at];
            block.scale[i] = of.scale(c + i), block.shift[i] = of.shift(c + i);
        }
        return block;
    };
    of_spans(shape, SPAN, threads, [=](int64_t n, int64_t begin, int64_t end, int64_t c, auto width) {
        const Block block = block_of(n, c, width);
        R total_g[BLOCK] = {}, total_along[BLOCK] = {};
        for (int64_t from = begin; from < end; from += PART) {
            R part_g[BLOCK] = {}, part_along[BLOCK] = {};
            for (int64_t p = from; p < std::min(from + PART, end); p++) {
                const T *const x_of = x.at(n, p) + c, *const g_of = grad.at(n, p) + c;
#pragma omp simd
                for (int64_t i = 0; i < width; i++) {
                    const R x_hat = (read(x_of[i]) - block.first[i] - block.mean[i]) * block.rstd[i];
                    R g = read(g_of[i]);
                    if (relu) g = x_hat * block.scale[i] + block.shift[i] <= 0 ? R(0) : g;
                    part_g[i] += g;
                    part_along[i] += g * x_hat;
                }
            }
#pragma omp simd
            for (int64_t i = 0; i < width; i++) total_g[i] += part_g[i], total_along[i] += part_along[i];
        }
        const int64_t at = (n * spans + begin / SPAN) * C + c;
        std::copy_n(total_g, int64_t(width), all_g + at);
        std::copy_n(total_along, int64_t(width), all_along + at);
    });
    for (int64_t n = 0; n < shape.samples; n++)
        for (int64_t c = 0; c < C; c++) {
            R g = 0, along = 0;
            for (int64_t span = 0; span < spans; span++) {
                g += all_g[(n * spans + span) * C + c];
                along += all_along[(n * spans + span) * C + c];
            }
            sum_g[n * C + c] = g, sum_along[n * C + c] = along;
        }
    of_spans(shape, SPAN, threads, [=](int64_t n, int64_t begin, int64_t end, int64_t c, auto width) {
        const Block block = block_of(n, c, width);
        R mean_g[BLOCK], mean_along[BLOCK], factor[BLOCK];
        for (int64_t i = 0; i < width; i++) {
            mean_g[i] = sum_g[n * C + c + i] / R(shape.positions);
            mean_along[i] = sum_along[n * C + c + i] / R(shape.positions);
            factor[i] = block.scale[i] * block.rstd[i];
        }
        for (int64_t p = begin; p < end; p++) {
            const T *const x_of = x.at(n, p) + c, *const g_of = grad.at(n, p) + c;
            T *const to = dx.at(n, p) + c;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) {
                const R x_hat = (read(x_of[i]) - block.first[i] - block.mean[i]) * block.rstd[i];
                R g = read(g_of[i]);
                if (relu) g = x_hat * block.scale[i] + block.shift[i] <= 0 ? R(0) : g;
                write(to[i], factor[i] * (g - mean_g[i] - x_hat * mean_along[i]));
            }
        }
    });
}

} // namespace

EXPORT void forward(
    SHAPE, MAPS(x), MAPS(y), void *mean, void *rstd, const void *weight, const void *bias, int relu, double eps
) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        statistics<T>(shape, AS(T, x), static_cast<R *>(mean), static_cast<R *>(rstd), eps, threads);
        apply<T>(shape, AS(T, x), AS(T, y), Parameters<R>(mean, rstd, weight, bias), relu, threads);
    })
}

EXPORT void backward(
    SHAPE, MAPS(grad), MAPS(x), MAPS(dx), const void *mean, const void *rstd, const void *weight, const void *bias,
    void *sum_g, void *sum_along, int relu
) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        backward<T>(
            shape, AS(T, grad), AS(T, x), AS(T, dx), Parameters<R>(mean, rstd, weight, bias),
            static_cast<R *>(sum_g), static_cast<R *>(sum_along), relu, threads
        );
    })
}
