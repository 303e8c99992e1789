// Instance norm, with or without scale and shift, with or without an activation behind it: of channels_last maps, a line
// of channels after another, and of contiguous ones, a row of positions after another.
#include <vector>

#include "activation.h"
#include "statistics.h"

namespace {

// Positions that one thread takes statistics of, whatever the number of threads, so that results do not depend on it: few
// enough that all blocks of channels find them in a near cache.
int64_t span_of(Shape shape) { return std::clamp<int64_t>((1 << 15) / shape.channels, PART, 1 << 12); }

// Lines of a block, and values of a row, that are worked on together: few enough to stay in the nearest cache.
constexpr int64_t LINES = 8, ROW = 1 << 10;

// Of each map, mean and 1 / deviation, (2, N, C); scale and shift of channels.
template <class R> struct Parameters {
    const R *mean, *rstd, *weight, *bias;

    Parameters(Shape shape, const void *statistics, const void *weight, const void *bias)
        : mean(static_cast<const R *>(statistics)), rstd(mean + shape.samples * shape.channels),
          weight(static_cast<const R *>(weight)), bias(static_cast<const R *>(bias)) {}

    R scale(int64_t c) const { return weight ? weight[c] : R(1); }
    R shift(int64_t c) const { return bias ? bias[c] : R(0); }
};

// `mean` is that of the differences from the first position.
template <class T>
void statistics(Shape shape, Maps<T> x, Real<T> *mean, Real<T> *rstd, double eps, int threads) {
    using R = Real<T>;
    const int64_t span = span_of(shape), spans = divided(shape.positions, span), C = shape.channels;
    std::vector<R> means(shape.samples * spans * C), squares(shape.samples * spans * C);
    R *const all_means = means.data(), *const all_squares = squares.data();
    of_spans(shape, span, threads, [=](int64_t n, int64_t begin, int64_t end, int64_t c, auto width) {
        Statistics<T> of(x, n, c, width);
        of.take(x, n, c, width, begin, end);
        const int64_t at = (n * spans + begin / span) * C + c;
        std::copy_n(of.mean, int64_t(width), all_means + at);
        std::copy_n(of.squares, int64_t(width), all_squares + at);
    });
    of_blocks(shape, 1, [=](int64_t n, int64_t c, auto width) {
        Statistics<T> of(x, n, c, width);
        for (int64_t number = 0; number < spans; number++) {
            const int64_t at = (n * spans + number) * C + c;
            const R count = R(std::min((number + 1) * span, shape.positions) - number * span);
            of.join(all_means + at, all_squares + at, count, width);
        }
        for (int64_t i = 0; i < width; i++) {
            mean[n * C + c + i] = of.mean[i];
            rstd[n * C + c + i] = of.rstd(i, eps);
        }
    });
}

// All of a block that does not change from one position to the next.
template <class T, class Width> struct BlockOf {
    using Part = Channels<Real<T>, Width>;
    Part first, mean, rstd, scale, shift;

    BlockOf(Maps<T> x, Parameters<Real<T>> of, Shape shape, int64_t n, int64_t c, Width width)
        : first(x.at(n, 0) + c, width), mean(of.mean + n * shape.channels + c, width),
          rstd(of.rstd + n * shape.channels + c, width) {
        Real<T> scales[BLOCK], shifts[BLOCK];
        for (int64_t i = 0; i < width; i++) scales[i] = of.scale(c + i), shifts[i] = of.shift(c + i);
        scale = Part(scales, width), shift = Part(shifts, width);
    }
};

// `values` where y is positive or no number; elsewhere that slope of theirs, or 0.
template <class Part, class R> Part bent(Part values, const Part &y, bool relu, R slope) {
    for (int64_t i = 0; i < Part::PARTS; i++) {
        const auto below = relu ? typename Part::Vector{} : values.part[i] * slope;
        values.part[i] = y.part[i] <= 0 ? below : values.part[i];
    }
    return values;
}

template <class T>
void apply(Shape shape, Maps<T> x, Maps<T> y, Parameters<Real<T>> of, Activation activation, int threads) {
    using R = Real<T>;
    const bool curved = activation.kind >= SILU, relu = activation.kind == RELU;
    const R slope = activation.kind == LEAKY_RELU ? R(activation.slope) : R(1);
    of_spans(shape, span_of(shape), threads, [=](int64_t n, int64_t begin, int64_t end, int64_t c, auto width) {
        const BlockOf<T, decltype(width)> block(x, of, shape, n, c, width);
        using Part = typename decltype(block)::Part;
        const Part scale = block.rstd * block.scale;
        R values[LINES * BLOCK];
        for (int64_t p = begin; p < end; p += LINES) {
            const int64_t lines = std::min(LINES, end - p);
            for (int64_t line = 0; line < lines; line++) {
                const Part from(x.at(n, p + line) + c, width);
                const Part result = (from - block.first - block.mean) * scale + block.shift;
                if (curved)
                    result.to(values + line * Part::COUNT);
                else
                    bent(result, result, relu, slope).to(y.at(n, p + line) + c, width);
            }
            if (!curved) continue;
            activate(activation, values, lines * Part::COUNT);
            for (int64_t line = 0; line < lines; line++)
                put(y.at(n, p + line) + c, values + line * Part::COUNT, width);
        }
    });
}

// dx = scale rstd (g - mean(g) - x_hat mean(g x_hat)), g being what the activation lets through; sums of g and of
// g x_hat, (N, C).
template <class T>
void backward(
    Shape shape, Maps<T> grad, Maps<T> x, Maps<T> dx, Parameters<Real<T>> of, Real<T> *sum_g, Real<T> *sum_along,
    Activation activation, int threads
) {
    using R = Real<T>;
    const int64_t span = span_of(shape), spans = divided(shape.positions, span), C = shape.channels;
    std::vector<R> sums(2 * shape.samples * spans * C);
    R *const all_g = sums.data(), *const all_along = all_g + shape.samples * spans * C;
    // What took exponentials lies in dx for the second time, everything else is made again.
    const bool curved = activation.kind >= SILU, relu = activation.kind == RELU;
    const R slope = activation.kind == LEAKY_RELU ? R(activation.slope) : R(1);
    of_spans(shape, span, threads, [=](int64_t n, int64_t begin, int64_t end, int64_t c, auto width) {
        const BlockOf<T, decltype(width)> block(x, of, shape, n, c, width);
        using Part = typename decltype(block)::Part;
        R ys[LINES * BLOCK], gs[LINES * BLOCK];
        Part total_g, total_along;
        for (int64_t p = begin; p < end; p += LINES) {
            const int64_t lines = std::min(LINES, end - p);
            Part part_g, part_along;
            if (curved) {
                for (int64_t line = 0; line < lines; line++) {
                    const Part centred = Part(x.at(n, p + line) + c, width) - block.first - block.mean;
                    (centred * block.rstd * block.scale + block.shift).to(ys + line * Part::COUNT);
                    Part(grad.at(n, p + line) + c, width).to(gs + line * Part::COUNT);
                }
                through(activation, gs, ys, lines * Part::COUNT);
            }
            for (int64_t line = 0; line < lines; line++) {
                const Part x_hat = (Part(x.at(n, p + line) + c, width) - block.first - block.mean) * block.rstd;
                Part g;
                if (curved) {
                    std::memcpy(g.part, gs + line * Part::COUNT, sizeof g.part);
                    g.to(dx.at(n, p + line) + c, width);
                } else {
                    g = bent(Part(grad.at(n, p + line) + c, width), x_hat * block.scale + block.shift, relu, slope);
                }
                part_g = part_g + g;
                part_along = part_along + g * x_hat;
            }
            total_g = total_g + part_g, total_along = total_along + part_along;
        }
        const int64_t at = (n * spans + begin / span) * C + c;
        total_g.to(all_g + at, width), total_along.to(all_along + at, width);
    });
    for (int64_t n = 0; n < shape.samples; n++)
        for (int64_t c = 0; c < C; c++) {
            R g = 0, along = 0;
            for (int64_t number = 0; number < spans; number++) {
                g += all_g[(n * spans + number) * C + c];
                along += all_along[(n * spans + number) * C + c];
            }
            sum_g[n * C + c] = g, sum_along[n * C + c] = along;
        }
    of_spans(shape, span, threads, [=](int64_t n, int64_t begin, int64_t end, int64_t c, auto width) {
        const BlockOf<T, decltype(width)> block(x, of, shape, n, c, width);
        using Part = typename decltype(block)::Part;
        const R share = 1 / R(shape.positions);
        const Part mean_g = Part(sum_g + n * C + c, width) * share, factor = block.scale * block.rstd;
        const Part mean_along = Part(sum_along + n * C + c, width) * share;
        for (int64_t p = begin; p < end; p++) {
            const Part x_hat = (Part(x.at(n, p) + c, width) - block.first - block.mean) * block.rstd;
            const Part sent((curved ? dx : grad).at(n, p) + c, width);
            const Part g = curved ? sent : bent(sent, x_hat * block.scale + block.shift, relu, slope);
            (factor * (g - mean_g - x_hat * mean_along)).to(dx.at(n, p) + c, width);
        }
    });
}

// Sum of `term(i)`, i < count, in so many sums that no addition waits for the one before.
template <class R, class Term> R total(int64_t count, Term term) {
    R sums[BLOCK] = {}, result = 0;
    const int64_t even = count / BLOCK * BLOCK;
    for (int64_t i = 0; i < even; i += BLOCK)
#pragma omp simd
        for (int64_t lane = 0; lane < BLOCK; lane++) sums[lane] += term(i + lane);
#pragma omp simd reduction(+ : result)
    for (int64_t i = even; i < count; i++) result += term(i);
    if (!even) return result;
    for (int64_t half = BLOCK / 2; half; half /= 2)
        for (int64_t lane = 0; lane < half; lane++) sums[lane] += sums[lane + half];
    return result + sums[0];
}

// body(map, c): for each contiguous map, of channel c.
template <class Body> void of_rows(Shape shape, int threads, Body body) {
#pragma omp parallel for schedule(static) num_threads(threads) if (shape.size() > FEW)
    for (int64_t map = 0; map < shape.samples * shape.channels; map++) body(map, map % shape.channels);
}

template <class T>
void rows_forward(
    Shape shape, const T *x, T *y, Real<T> *means, Real<T> *rstds, Parameters<Real<T>> of, Activation activation,
    double eps, int threads
) {
    using R = Real<T>;
    of_rows(shape, threads, [=](int64_t map, int64_t c) {
        const T *const from = x + map * shape.positions;
        T *const to = y + map * shape.positions;
        const R first = read(from[0]), *held = nullptr;
        R mean = 0, squares = 0, values[ROW], buffer[ROW];
        for (int64_t begin = 0; begin < shape.positions; begin += ROW) { // Chan, Golub and LeVeque, 1979
            const int64_t count = std::min(ROW, shape.positions - begin);
            held = real(from + begin, buffer, count);
            const R part_mean = total<R>(count, [=](int64_t i) { return held[i] - first; }) / R(count);
            const R part_squares = total<R>(count, [=](int64_t i) {
                const R centred = held[i] - first - part_mean;
                return centred * centred;
            });
            const R apart = part_mean - mean, moved = apart * (R(count) / R(begin + count));
            mean += moved;
            squares += part_squares + moved * R(begin) * apart;
        }
        const R var = squares / R(shape.positions) + R(eps), rstd = var == 0 ? R(0) : 1 / std::sqrt(var);
        means[map] = mean, rstds[map] = rstd;
        const R scale = rstd * of.scale(c), shift = of.shift(c);
        for (int64_t begin = 0; begin < shape.positions; begin += ROW) {
            const int64_t count = std::min(ROW, shape.positions - begin);
            if (shape.positions > ROW) held = real(from + begin, buffer, count);
#pragma omp simd
            for (int64_t i = 0; i < count; i++) values[i] = (held[i] - first - mean) * scale + shift;
            activate(activation, values, count);
            put(to + begin, values, count);
        }
    });
}

template <class T>
void rows_backward(
    Shape shape, const T *grad, const T *x, T *dx, Parameters<Real<T>> of, Real<T> *sum_g, Real<T> *sum_along,
    Activation activation, int threads
) {
    using R = Real<T>;
    of_rows(shape, threads, [=](int64_t map, int64_t c) {
        const T *const x_of = x + map * shape.positions, *const g_of = grad + map * shape.positions;
        T *const to = dx + map * shape.positions;
        const R first = read(x_of[0]), mean = of.mean[map], rstd = of.rstd[map], scale = of.scale(c), shift = of.shift(c);
        // What took exponentials lies in dx for the second time, everything else is made again.
        const bool keeps = activation.kind >= SILU && shape.positions > ROW;
        R y[ROW], of_x[ROW], of_g[ROW], through_it[ROW];
        const R *values = nullptr, *grads = nullptr;
        const auto take = [&](int64_t begin, int64_t count, bool again) {
            values = real(x_of + begin, of_x, count);
            grads = real((again && keeps ? to : g_of) + begin, of_g, count);
            if (activation.kind == IDENTITY || (again && keeps)) return;
#pragma omp simd
            for (int64_t i = 0; i < count; i++) {
                y[i] = (values[i] - first - mean) * rstd * scale + shift;
                through_it[i] = grads[i];
            }
            through(activation, through_it, y, count);
            grads = through_it;
            if (keeps) put(to + begin, through_it, count);
        };
        R total_g = 0, total_along = 0;
        for (int64_t begin = 0; begin < shape.positions; begin += ROW) {
            const int64_t count = std::min(ROW, shape.positions - begin);
            take(begin, count, false);
            const R *const x = values, *const g = grads;
            total_g += total<R>(count, [=](int64_t i) { return g[i]; });
            total_along += total<R>(count, [=](int64_t i) { return g[i] * (x[i] - first - mean); });
        }
        sum_g[map] = total_g, sum_along[map] = rstd * total_along;
        const R mean_g = total_g / R(shape.positions), factor = scale * rstd;
        const R slope = rstd * rstd * total_along / R(shape.positions);
        for (int64_t begin = 0; begin < shape.positions; begin += ROW) {
            const int64_t count = std::min(ROW, shape.positions - begin);
            if (shape.positions > ROW) take(begin, count, true);
            const R *const x = values, *const g = grads;
#pragma omp simd
            for (int64_t i = 0; i < count; i++) y[i] = factor * (g[i] - mean_g - (x[i] - first - mean) * slope);
            put(to + begin, y, count);
        }
    });
}

} // namespace

#define FORWARD                                                                                                        \
    SHAPE, MAPS(x), MAPS(y), void *statistics_of_maps, const void *weight, const void *bias, int kind, double slope,   \
        double eps
#define BACKWARD                                                                                                       \
    SHAPE, MAPS(grad), MAPS(x), MAPS(dx), const void *statistics_of_maps, const void *weight, const void *bias,        \
        void *sums, int kind, double slope

EXPORT void forward(FORWARD) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        R *const mean = static_cast<R *>(statistics_of_maps);
        statistics<T>(shape, AS(T, x), mean, mean + samples * channels, eps, threads);
        const Parameters<R> of(shape, mean, weight, bias);
        apply<T>(shape, AS(T, x), AS(T, y), of, Activation{kind, slope}, threads);
    })
}

EXPORT void backward(BACKWARD) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        backward<T>(
            shape, AS(T, grad), AS(T, x), AS(T, dx), Parameters<R>(shape, statistics_of_maps, weight, bias),
            static_cast<R *>(sums), static_cast<R *>(sums) + samples * channels, Activation{kind, slope}, threads
        );
    })
}

EXPORT void rows_forward(FORWARD) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        rows_forward<T>(
            shape, AS(T, x).data, AS(T, y).data, static_cast<R *>(statistics_of_maps),
            static_cast<R *>(statistics_of_maps) + samples * channels,
            Parameters<R>(shape, statistics_of_maps, weight, bias), Activation{kind, slope}, eps, threads
        );
    })
}

EXPORT void rows_backward(BACKWARD) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        rows_backward<T>(
            shape, AS(T, grad).data, AS(T, x).data, AS(T, dx).data,
            Parameters<R>(shape, statistics_of_maps, weight, bias), static_cast<R *>(sums),
            static_cast<R *>(sums) + samples * channels, Activation{kind, slope}, threads
        );
    })
}
