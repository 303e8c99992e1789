// What happens to matrices of maps (a row is a position of a sample, a column a map) between a DenseNet's convolutions.
//
// Every loop runs along rows, so that memory is read as it lies, and keeps sums of all columns beside it. Rows are
// divided into equal spans, and spans between threads: no result depends on how many threads there are.
#include <vector>

#include "maps.h"

namespace {

// Spans come in eights, of at most so many rows: also the few rows of a network's last blocks keep several threads busy.
constexpr int64_t SPAN = 64;

// Rows whose sums are taken before they join those of the span: few enough to stay in the nearest cache.
constexpr int64_t PART = 32;

// A batch norm: y = (x - mean) scale + shift of each column.
template <class R> struct Norm {
    std::vector<R> scale, rstd;
    const R *mean, *shift;

    Norm(int64_t C, const void *mean, const void *var, const void *weight, const void *bias, double eps)
        : scale(C), rstd(C), mean(static_cast<const R *>(mean)), shift(static_cast<const R *>(bias)) {
        for (int64_t c = 0; c < C; c++) {
            rstd[c] = 1 / std::sqrt(static_cast<const R *>(var)[c] + R(eps));
            scale[c] = static_cast<const R *>(weight)[c] * rstd[c];
        }
    }
};

int64_t spans(Shape shape) {
    return std::min(shape.positions, divided(shape.positions, 8 * SPAN) * 8);
}

// The first row of a span.
int64_t first_of(Shape shape, int64_t number) { return shape.positions * number / spans(shape); }

// body(number, begin, end) for each span.
template <class Body> void of_rows(Shape shape, int threads, Body body) {
#pragma omp parallel for schedule(static) num_threads(threads) if (shape.size() > FEW)
    for (int64_t number = 0; number < spans(shape); number++)
        body(number, first_of(shape, number), first_of(shape, number + 1));
}

// Mean and squares about it: of each part on its own, then joined (Chan, Golub and LeVeque, 1979).
template <class R>
void join(R *mean, R *squares, R before, const R *other_mean, const R *other_squares, R count, int64_t C) {
    const R share = count / (before + count);
#pragma omp simd
    for (int64_t c = 0; c < C; c++) {
        const R apart = other_mean[c] - mean[c], moved = apart * share;
        mean[c] += moved;
        squares[c] += other_squares[c] + moved * before * apart;
    }
}

// Means are taken from the first row on, so that joining them rounds little where columns are far from zero.
template <class T> void statistics(Shape shape, Maps<T> x, Real<T> *mean, Real<T> *var, int threads) {
    using R = Real<T>;
    const int64_t C = shape.channels;
    std::vector<R> of_spans(2 * spans(shape) * C);
    R *const all = of_spans.data();
    const T *const origin = x.at(0, 0);
    of_rows(shape, threads, [=](int64_t number, int64_t begin, int64_t end) {
        R *const span_mean = all + 2 * number * C, *const span_squares = span_mean + C;
        std::vector<R> part(2 * C);
        R *const part_mean = part.data(), *const part_squares = part_mean + C;
        for (int64_t from = begin; from < end; from += PART) {
            const int64_t to = std::min(from + PART, end);
            const T *const first = x.at(0, from);
            std::fill(part.begin(), part.end(), R(0));
            for (int64_t p = from; p < to; p++) {
                const T *const row = x.at(0, p);
#pragma omp simd
                for (int64_t c = 0; c < C; c++) part_mean[c] += read(row[c]) - read(first[c]);
            }
#pragma omp simd
            for (int64_t c = 0; c < C; c++) part_mean[c] /= R(to - from);
            for (int64_t p = from; p < to; p++) {
                const T *const row = x.at(0, p);
#pragma omp simd
                for (int64_t c = 0; c < C; c++) {
                    const R centred = read(row[c]) - read(first[c]) - part_mean[c];
                    part_squares[c] += centred * centred;
                }
            }
#pragma omp simd
            for (int64_t c = 0; c < C; c++) part_mean[c] += read(first[c]) - read(origin[c]);
            join(span_mean, span_squares, R(from - begin), part_mean, part_squares, R(to - from), C);
        }
    });
    std::fill_n(mean, C, R(0));
    std::fill_n(var, C, R(0));
    for (int64_t number = 0; number < spans(shape); number++) {
        const int64_t begin = first_of(shape, number), end = first_of(shape, number + 1);
        join(mean, var, R(begin), all + 2 * number * C, all + (2 * number + 1) * C, R(end - begin), C);
    }
    for (int64_t c = 0; c < C; c++) mean[c] += read(origin[c]), var[c] /= R(shape.positions);
}

// out = ReLU(norm(x)).
template <class T> void norm_relu(Shape shape, Maps<T> x, Maps<T> out, const Norm<Real<T>> &norm, int threads) {
    using R = Real<T>;
    const R *const mean = norm.mean, *const scale = norm.scale.data(), *const shift = norm.shift;
    of_rows(shape, threads, [=](int64_t, int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; p++) {
            const T *const row = x.at(0, p);
            T *const to = out.at(0, p);
#pragma omp simd
            for (int64_t c = 0; c < shape.channels; c++) {
                const R y = (read(row[c]) - mean[c]) * scale[c] + shift[c];
                write(to[c], y < 0 ? R(0) : y);
            }
        }
    });
}

// Adds, over rows, g to sum_g and g (x - mean) to sum_along, g being what that ReLU lets through of `grad`; and scale g
// to `out`.
template <class T, class Add>
void sums(
    Shape shape, Maps<T> grad, Maps<T> x, Maps<T> out, const Norm<Real<T>> &norm, Real<T> *sum_g, Real<T> *sum_along,
    int threads, Add
) {
    using R = Real<T>;
    const int64_t C = shape.channels;
    const R *const mean = norm.mean, *const scale = norm.scale.data(), *const shift = norm.shift;
    std::vector<R> of_spans(2 * spans(shape) * C);
    R *const all = of_spans.data();
    of_rows(shape, threads, [=](int64_t number, int64_t begin, int64_t end) {
        R *const total_g = all + 2 * number * C, *const total_along = total_g + C;
        std::vector<R> part(2 * C);
        R *const part_g = part.data(), *const part_along = part_g + C;
        for (int64_t from = begin; from < end; from += PART) {
            std::fill(part.begin(), part.end(), R(0));
            for (int64_t p = from; p < std::min(from + PART, end); p++) {
                const T *const g_of = grad.at(0, p), *const x_of = x.at(0, p);
                T *const to = Add::value ? out.at(0, p) : nullptr;
#pragma omp simd
                for (int64_t c = 0; c < C; c++) {
                    const R centred = read(x_of[c]) - mean[c];
                    const R g = centred * scale[c] + shift[c] <= 0 ? R(0) : R(read(g_of[c]));
                    part_g[c] += g;
                    part_along[c] += g * centred;
                    if (Add::value) write(to[c], read(to[c]) + scale[c] * g);
                }
            }
#pragma omp simd
            for (int64_t c = 0; c < C; c++) total_g[c] += part_g[c], total_along[c] += part_along[c];
        }
    });
    for (int64_t number = 0; number < spans(shape); number++)
        for (int64_t c = 0; c < C; c++) {
            sum_g[c] += all[2 * number * C + c];
            sum_along[c] += all[(2 * number + 1) * C + c];
        }
}

// out = value(g, x - mean, c) - constant - (x - mean) slope.
template <class T, class Value>
void less_line(
    Shape shape, Maps<T> grad, Maps<T> x, Maps<T> out, const Real<T> *mean, const Real<T> *constant,
    const Real<T> *slope, int threads, Value value
) {
    of_rows(shape, threads, [=](int64_t, int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; p++) {
            const T *const g_of = grad.at(0, p), *const x_of = x.at(0, p);
            T *const to = out.at(0, p);
#pragma omp simd
            for (int64_t c = 0; c < shape.channels; c++) {
                const Real<T> centred = read(x_of[c]) - mean[c];
                write(to[c], value(read(g_of[c]), centred, c) - constant[c] - centred * slope[c]);
            }
        }
    });
}

} // namespace

#define NORM const void *mean, const void *var, const void *weight, const void *bias, double eps
#define AS_NORM(R) Norm<R>(channels, mean, var, weight, bias, eps)

EXPORT void statistics(SHAPE, MAPS(x), void *mean, void *var) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        statistics<T>(shape, AS(T, x), static_cast<R *>(mean), static_cast<R *>(var), threads);
    })
}

EXPORT void norm_relu(SHAPE, MAPS(x), MAPS(out), NORM) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, norm_relu<T>(shape, AS(T, x), AS(T, out), AS_NORM(Real<T>), threads))
}

EXPORT void sums(SHAPE, MAPS(grad), MAPS(x), NORM, void *sum_g, void *sum_along) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        R *const of_g = static_cast<R *>(sum_g), *const of_along = static_cast<R *>(sum_along);
        const Maps<T> none{nullptr, 0, 0};
        sums<T>(shape, AS(T, grad), AS(T, x), none, AS_NORM(R), of_g, of_along, threads, std::false_type());
    })
}

EXPORT void sums_add(SHAPE, MAPS(grad), MAPS(x), MAPS(out), NORM, void *sum_g, void *sum_along) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        R *const of_g = static_cast<R *>(sum_g), *const of_along = static_cast<R *>(sum_along);
        sums<T>(shape, AS(T, grad), AS(T, x), AS(T, out), AS_NORM(R), of_g, of_along, threads, std::true_type());
    })
}

EXPORT void norm_relu_backward(
    SHAPE, MAPS(grad), MAPS(x), MAPS(out), NORM, const void *constant, const void *slope
) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        const auto norm = AS_NORM(R);
        const R *const scale = norm.scale.data(), *const shift = norm.shift;
        less_line<T>(
            shape, AS(T, grad), AS(T, x), AS(T, out), norm.mean, static_cast<const R *>(constant),
            static_cast<const R *>(slope), threads,
            [=](R g, R centred, int64_t c) { return centred * scale[c] + shift[c] <= 0 ? R(0) : scale[c] * g; }
        );
    })
}

EXPORT void less_line(
    SHAPE, MAPS(grad), MAPS(x), MAPS(out), const void *mean, const void *constant, const void *slope
) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        less_line<T>(
            shape, AS(T, grad), AS(T, x), AS(T, out), static_cast<const R *>(mean), static_cast<const R *>(constant),
            static_cast<const R *>(slope), threads, [](R g, R, int64_t) { return g; }
        );
    })
}

// Makes of the sum of g (x - mean) the gradient of the weight; before, adds what a batch's own statistics send back.
EXPORT void add_line(
    SHAPE, NORM, const void *sum_g, void *sum_along, void *constant, void *slope, int of_batch
) {
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        const auto norm = AS_NORM(R);
        const R *const of_g = static_cast<const R *>(sum_g);
        R *const of_along = static_cast<R *>(sum_along);
        for (int64_t c = 0; c < channels; c++) {
            if (of_batch) {
                const R share = norm.scale[c] / R(positions);
                static_cast<R *>(constant)[c] += share * of_g[c];
                static_cast<R *>(slope)[c] += share * norm.rstd[c] * norm.rstd[c] * of_along[c];
            }
            of_along[c] *= norm.rstd[c];
        }
    })
}
