// What happens to matrices of maps (a row is a position of a sample, a column a map) between a DenseNet's convolutions.
//
// Every loop runs along rows, so that memory is read as it lies, and keeps sums of all columns beside it. Rows are
// divided into equal spans, and spans between threads: no result depends on how many threads there are.
#include <vector>

#include "join.h"
#include "norm.h"
#include "product.h"

namespace {

// Spans come in eights, of at most so many rows: also the few rows of a network's last blocks keep several threads busy.
constexpr int64_t SPAN = 64;

// Rows whose sums are taken before they join those of the span: few enough to stay in the nearest cache.
constexpr int64_t PART = 32;

int64_t spans(Shape shape) {
    return std::min(shape.positions, divided(shape.positions, 8 * SPAN) * 8);
}

// The first row of a span.
int64_t first_of(Shape shape, int64_t number) { return shape.positions * number / spans(shape); }

// body(number, begin, end) for each span.
template <class Body> void of_rows(Shape shape, int threads, Body body) {
    in_parallel(spans(shape), worth(shape, threads), [=](int64_t number) {
        body(number, first_of(shape, number), first_of(shape, number + 1));
    });
}

// Of rows begin .. end - 1, mean and squares, from the first of them on: joining means rounds little where columns are
// far from zero.
template <class T>
void statistics_of(Maps<T> x, int64_t C, int64_t begin, int64_t end, Real<T> *mean, Real<T> *squares) {
    using R = Real<T>;
    const T *const origin = x.at(0, begin);
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
        join(mean, squares, R(from - begin), part_mean, part_squares, R(to - from), C);
    }
}

// Mean and variance of all spans, of each of which `of_spans` has mean and squares.
template <class T> void join_spans(Shape shape, Maps<T> x, Real<T> *of_spans, Real<T> *mean, Real<T> *var) {
    using R = Real<T>;
    const int64_t C = shape.channels;
    const T *const origin = x.at(0, 0);
    std::fill_n(mean, C, R(0));
    std::fill_n(var, C, R(0));
    for (int64_t number = 0; number < spans(shape); number++, of_spans += 2 * C) {
        const int64_t begin = first_of(shape, number), end = first_of(shape, number + 1);
        const T *const first = x.at(0, begin);
#pragma omp simd
        for (int64_t c = 0; c < C; c++) of_spans[c] += read(first[c]) - read(origin[c]);
        join(mean, var, R(begin), of_spans, of_spans + C, R(end - begin), C);
    }
    for (int64_t c = 0; c < C; c++) mean[c] += read(origin[c]), var[c] /= R(shape.positions);
}

template <class T> void statistics(Shape shape, Maps<T> x, Real<T> *mean, Real<T> *var, int threads) {
    const int64_t C = shape.channels;
    std::vector<Real<T>> of_spans(2 * spans(shape) * C);
    Real<T> *const all = of_spans.data();
    of_rows(shape, threads, [=](int64_t number, int64_t begin, int64_t end) {
        statistics_of(x, C, begin, end, all + 2 * number * C, all + (2 * number + 1) * C);
    });
    join_spans(shape, x, all, mean, var);
}

// out = ReLU(norm(x)).
template <class T> void norm_relu(Shape shape, Maps<T> x, Maps<T> out, const Norm<Real<T>> &norm, int threads) {
    using R = Real<T>;
    const R *const mean = norm.mean.data(), *const scale = norm.scale.data(), *const shift = norm.shift.data();
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
    const R *const mean = norm.mean.data(), *const scale = norm.scale.data(), *const shift = norm.shift.data();
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

// Rows of factors, each for as many rows of a matrix; of null, 1.
template <class T> class Factors {
    const T *data;
    int64_t each, columns;
    std::vector<T> ones;

  public:
    Factors(const void *data, int64_t rows, Shape shape)
        : data(static_cast<const T *>(data)), each(data ? shape.positions / rows : 1), columns(data ? shape.channels : 0),
          ones(shape.channels) {
        for (T &one : ones) write(one, Real<T>(1));
    }
    const T *at(int64_t row) const { return (data ? data : ones.data()) + row / each * columns; }
};

// out = (value(g, x - mean, c) - constant - (x - mean) slope) factor.
template <class T, class Value>
void less_line(
    Shape shape, Maps<T> grad, Maps<T> x, Maps<T> out, const Real<T> *mean, const Real<T> *constant,
    const Real<T> *slope, const Factors<T> &factors, int threads, Value value
) {
    of_rows(shape, threads, [=, &factors](int64_t, int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; p++) {
            const T *const g_of = grad.at(0, p), *const x_of = x.at(0, p);
            const T *const factor = factors.at(p);
            T *const to = out.at(0, p);
#pragma omp simd
            for (int64_t c = 0; c < shape.channels; c++) {
                const Real<T> centred = read(x_of[c]) - mean[c];
                write(to[c], (value(read(g_of[c]), centred, c) - constant[c] - centred * slope[c]) * read(factor[c]));
            }
        }
    });
}

// Makes of the sum of g (x - mean) the gradient of the weight; before, adds what a batch's own statistics send back.
template <class R>
void add_line(Shape shape, const Norm<R> &norm, const R *sum_g, R *sum_along, R *constant, R *slope, bool of_batch) {
    for (int64_t c = 0; c < shape.channels; c++) {
        if (of_batch) {
            const R share = norm.scale[c] / R(shape.positions);
            constant[c] += share * sum_g[c];
            slope[c] += share * norm.rstd[c] * norm.rstd[c] * sum_along[c];
        }
        sum_along[c] *= norm.rstd[c];
    }
}

// body(c, x): vectors of a row, of which the last may be filled up with zeros.
template <class T, class Body> void of_vectors(int64_t columns, const T *x, Body body) {
    int64_t c = 0;
    for (; c + LANES <= columns; c += LANES) body(c, load(x + c));
    if (c < columns) {
        T last[LANES] = {};
        std::copy_n(x + c, columns - c, last);
        body(c, load(last));
    }
}

// Add to as many neighbours as there are `lanes`.
template <class T> void add(T *to, Vector x, int64_t lanes) {
    if (lanes == LANES)
        store(to, load(to) + x);
    else
        for (int64_t i = 0; i < lanes; i++) write(to[i], read(to[i]) + x[i]);
}

// W^T as words, `in_vectors` of its columns wide, for W of some rows and columns. For the threads of a region together.
template <class T> void turn(const float *W, int64_t rows, int64_t columns, typename Factor<T>::Word *to) {
    constexpr int64_t DEEP = Factor<T>::DEEP;
    const int64_t width = in_vectors(rows);
#pragma omp for collapse(2) schedule(static)
    for (int64_t column = 0; column < columns; column += LANES)
        for (int64_t row = 0; row < width; row += LANES)
            for (int64_t c = column; c < std::min(column + LANES, columns); c += DEEP)
                for (int64_t r = row; r < row + LANES; r++) {
                    typename Factor<T>::Value word[DEEP] = {};
                    for (int64_t i = 0; i < DEEP; i++)
                        if (r < rows && c + i < columns) write(word[i], W[r * columns + c + i]);
                    std::memcpy(to + c / DEEP * width + r, word, sizeof word);
                }
}

// out = ReLU(norm(x)) W^T for W of (B, channels), with the columns' means and variances if they are wanted.
template <class T>
void convolution(
    Shape shape, Maps<T> x, const Norm<float> &norm, const float *W, int64_t B, T *out, float *mean_of, float *var_of,
    int threads
) {
    using Word = typename Factor<T>::Word;
    using Value = typename Factor<T>::Value;
    constexpr int64_t DEEP = Factor<T>::DEEP;
    const int64_t C = shape.channels, depth = divided(C, DEEP), width = in_vectors(B), row = in_vectors(C);
    const float *const mean = norm.mean.data(), *const scale = norm.scale.data(), *const shift = norm.shift.data();
    const auto of_W = unwritten<Word>(depth * width);
    std::vector<float> of_spans(mean_of ? 2 * spans(shape) * B : 0);
    const Maps<T> result{out, 0, B};
#pragma omp parallel num_threads(threads) if (shape.size() > FEW)
    {
        turn<T>(W, B, C, of_W.get());
        const auto a = unwritten<Value>(SPAN * row);
        const auto y = unwritten<float>(SPAN * width);
#pragma omp for schedule(static)
        for (int64_t number = 0; number < spans(shape); number++) {
            const int64_t begin = first_of(shape, number), end = first_of(shape, number + 1);
            for (int64_t p = begin; p < end; p++)
                of_vectors(C, x.at(0, p), [&](int64_t c, Vector x) {
                    const Vector y = (x - load(mean + c)) * load(scale + c) + load(shift + c);
                    store(a.get() + (p - begin) * row + c, y < 0.f ? Vector{} : y);
                });
            const Word *const words = reinterpret_cast<const Word *>(a.get());
            product<false>(end - begin, width, depth, words, row / DEEP, 1, of_W.get(), y.get());
            for (int64_t p = begin; p < end; p++) put(result.at(0, p), y.get() + (p - begin) * width, B);
            if (mean_of) {
                float *const of_span = of_spans.data() + 2 * number * B;
                statistics_of(result, B, begin, end, of_span, of_span + B);
            }
        }
    }
    if (mean_of) join_spans({1, shape.positions, B}, result, of_spans.data(), mean_of, var_of);
}

// Rows, and columns, that the gradients of a convolution are taken of at once: what belongs to them stays in a core's own
// cache. Groups of rows, which come in twos, have gradients of W of their own, few enough to be added up in no time.
constexpr int64_t ROWS = 48, COLUMNS = 64, GROUP = 1024;

// Words of columns: neighbours in depth are rows.
template <class T> void rows_to_words(const T *x, int64_t rows, int64_t columns, Pair *to) {
    for (int64_t r = 0; r < rows; r += 2, x += 2 * columns, to += columns)
#pragma omp simd
        for (int64_t c = 0; c < columns; c++) to[c].bits = x[c].bits | (r + 1 < rows ? uint32_t(x[c + columns].bits) << 16 : 0);
}

// From g, the gradient of `convolution`'s result, that of W, if it is wanted, what `sums` adds to sum_g and sum_along, and
// to `out`.
template <class T>
void convolution_backward(
    Shape shape, Maps<T> x, Maps<T> out, const Norm<float> &norm, const float *W, const T *g, int64_t B, float *grad_W,
    float *sum_g, float *sum_along, int threads
) {
    using Word = typename Factor<T>::Word;
    constexpr int64_t DEEP = Factor<T>::DEEP;
    const int64_t C = shape.channels, depth = B / DEEP;
    const int64_t groups = std::min(shape.positions, 2 * divided(shape.positions, 2 * GROUP));
    const auto of_groups = unwritten<float>(grad_W ? groups * B * C : 0);
    std::vector<float> sums(2 * groups * C);
#pragma omp parallel num_threads(threads) if (shape.size() > FEW)
    {
        const auto of_W = unwritten<Word>(depth * COLUMNS), a = unwritten<Word>(ROWS * COLUMNS);
        const auto to_W = unwritten<float>(B * COLUMNS), to_a = unwritten<float>(ROWS * COLUMNS);
        const auto words = unwritten<Word>(ROWS * B);
#pragma omp for collapse(2) schedule(static)
        for (int64_t group = 0; group < groups; group++)
            for (int64_t column = 0; column < C; column += COLUMNS) {
                const int64_t columns = std::min(COLUMNS, C - column), width = in_vectors(columns);
                const int64_t begin = shape.positions * group / groups, end = shape.positions * (group + 1) / groups;
                for (int64_t k = 0; k < depth; k++)
                    for (int64_t c = 0; c < width; c += LANES) {
                        Vector of[DEEP] = {};
                        for (int64_t i = 0; i < DEEP; i++)
                            of_vectors(
                                std::min(LANES, columns - c), W + (k * DEEP + i) * C + column + c,
                                [&](int64_t, Vector w) { of[i] = w; }
                            );
                        store_words(of_W.get() + k * width + c, of);
                    }
                std::fill_n(to_W.get(), B * width, 0.f);
                for (int64_t from = begin; from < end; from += ROWS) {
                    const int64_t rows = std::min(ROWS, end - from);
                    const T *const g_rows = g + from * B;
                    const Word *by_row, *by_column;
                    if constexpr (DEEP == 2) {
                        by_row = reinterpret_cast<const Word *>(g_rows);
                        by_column = words.get();
                        rows_to_words(g_rows, rows, B, words.get());
                    } else
                        by_row = by_column = real(g_rows, words.get(), rows * B);
                    product<false>(rows, width, depth, by_row, depth, 1, of_W.get(), to_a.get());
                    for (int64_t c = 0; c < width; c += LANES) {
                        const int64_t lanes = std::min(LANES, columns - c);
                        const Vector mean = load(norm.mean.data() + column + c);
                        const Vector scale = load(norm.scale.data() + column + c);
                        const Vector shift = load(norm.shift.data() + column + c);
                        Vector of_g{}, along{};
                        for (int64_t r = 0; r < rows; r += DEEP) {
                            Vector of_a[DEEP] = {};
                            for (int64_t i = 0; i < std::min(DEEP, rows - r); i++) {
                                const T *const from_x = x.at(0, from + r + i) + column + c;
                                T *const to = out.at(0, from + r + i) + column + c;
                                of_vectors(lanes, from_x, [&](int64_t, Vector x) {
                                    const Vector centred = x - mean, y = centred * scale + shift;
                                    const Vector through = y <= 0.f ? Vector{} : load(to_a.get() + (r + i) * width + c);
                                    of_a[i] = y < 0.f ? Vector{} : y;
                                    of_g += through;
                                    along += through * centred;
                                    add(to, scale * through, lanes);
                                });
                            }
                            store_words(a.get() + r / DEEP * width + c, of_a);
                        }
                        float *const total = sums.data() + 2 * group * C + column + c;
                        for (int64_t i = 0; i < lanes; i++) total[i] += of_g[i], total[C + i] += along[i];
                    }
                    if (grad_W) product<true>(B, width, divided(rows, DEEP), by_column, 1, B, a.get(), to_W.get());
                }
                if (grad_W)
                    for (int64_t b = 0; b < B; b++)
                        std::copy_n(to_W.get() + b * width, columns, of_groups.get() + (group * B + b) * C + column);
            }
        if (grad_W) {
#pragma omp for schedule(static)
            for (int64_t b = 0; b < B; b++)
                for (int64_t group = 0; group < groups; group++)
#pragma omp simd
                    for (int64_t c = 0; c < C; c++) {
                        const float of_group = of_groups[(group * B + b) * C + c];
                        grad_W[b * C + c] = group ? grad_W[b * C + c] + of_group : of_group;
                    }
        }
    }
    for (int64_t group = 0; group < groups; group++)
        for (int64_t c = 0; c < C; c++) {
            sum_g[c] += sums[2 * group * C + c];
            sum_along[c] += sums[(2 * group + 1) * C + c];
        }
}

} // namespace

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

EXPORT void sums(SHAPE, MAPS(grad), MAPS(x), MAPS(out), NORM, void *sum_g, void *sum_along) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        R *const of_g = static_cast<R *>(sum_g), *const of_along = static_cast<R *>(sum_along);
        sums<T>(shape, AS(T, grad), AS(T, x), AS(T, out), AS_NORM(R), of_g, of_along, threads, std::true_type());
    })
}

// Makes of the gradient of ReLU(norm(x)) that of x, and writes those of the norm's bias and weight.
EXPORT void norm_relu_backward(SHAPE, MAPS(grad), MAPS(x), NORM, void *sum_g, void *sum_along, int of_batch) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        const auto norm = AS_NORM(R);
        R *const of_g = static_cast<R *>(sum_g), *const of_along = static_cast<R *>(sum_along);
        std::fill_n(of_g, channels, R(0));
        std::fill_n(of_along, channels, R(0));
        const Maps<T> none{nullptr, 0, 0};
        sums<T>(shape, AS(T, grad), AS(T, x), none, norm, of_g, of_along, threads, std::false_type());
        std::vector<R> constant(channels), slope(channels);
        add_line(shape, norm, of_g, of_along, constant.data(), slope.data(), of_batch);
        const R *const scale = norm.scale.data(), *const shift = norm.shift.data();
        less_line<T>(
            shape, AS(T, grad), AS(T, x), AS(T, grad), norm.mean.data(), constant.data(), slope.data(), {nullptr, 0, shape},
            threads,
            [=](R g, R centred, int64_t c) { return centred * scale[c] + shift[c] <= 0 ? R(0) : scale[c] * g; }
        );
    })
}

EXPORT void less_line(
    SHAPE, MAPS(grad), MAPS(x), MAPS(out), const void *mean, const void *constant, const void *slope, const void *factors,
    int64_t rows
) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        less_line<T>(
            shape, AS(T, grad), AS(T, x), AS(T, out), static_cast<const R *>(mean), static_cast<const R *>(constant),
            static_cast<const R *>(slope), {factors, rows, shape}, threads, [](R g, R, int64_t) { return g; }
        );
    })
}

EXPORT void add_line(
    SHAPE, NORM, const void *sum_g, void *sum_along, void *constant, void *slope, int of_batch
) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        add_line<R>(
            shape, AS_NORM(R), static_cast<const R *>(sum_g), static_cast<R *>(sum_along), static_cast<R *>(constant),
            static_cast<R *>(slope), of_batch
        );
    })
}

// Compute with the dtype's T, float or bfloat16.
#define FOR_FACTORS(...)                                                                                               \
    if (dtype == 0) {                                                                                                  \
        using T = float;                                                                                               \
        __VA_ARGS__;                                                                                                   \
    } else {                                                                                                           \
        using T = BFloat16;                                                                                            \
        __VA_ARGS__;                                                                                                   \
    }

EXPORT void convolution(SHAPE, MAPS(x), NORM, void *W, int64_t B, void *out, void *mean_of, void *var_of) {
    const Shape shape{samples, positions, channels};
    FOR_FACTORS(convolution<T>(
        shape, AS(T, x), AS_NORM(float), static_cast<float *>(W), B, static_cast<T *>(out), static_cast<float *>(mean_of),
        static_cast<float *>(var_of), threads
    ))
}

EXPORT void convolution_backward(
    SHAPE, MAPS(x), MAPS(out), NORM, void *W, void *g, int64_t B, void *grad_W, void *sum_g, void *sum_along
) {
    const Shape shape{samples, positions, channels};
    FOR_FACTORS(convolution_backward<T>(
        shape, AS(T, x), AS(T, out), AS_NORM(float), static_cast<float *>(W), static_cast<T *>(g), B,
        static_cast<float *>(grad_W), static_cast<float *>(sum_g), static_cast<float *>(sum_along), threads
    ))
}
