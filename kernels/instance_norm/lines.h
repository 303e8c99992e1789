// Norms of channels_last maps: matrices of rows, which memory is read along, and sums of all columns beside them.
#pragma once

#include <vector>

#include "activation.h"
#include "affine.h"
#include "channels.h"
#include "join.h"

namespace {

// Values of a span of rows, which one thread goes through whatever the number of threads, so that results do not depend
// on it.
constexpr int64_t SPAN = 1 << 15;

// Rows whose sums are taken before they join those of all others. A value of one of them is their origin, of three that in
// the middle, so that no single one unlike the others is: squares lose little, in whatever way maps lie.
constexpr int64_t PART = 32;

// Rows whose gradients are summed, some of them at a time, before they are added to all others' in double.
constexpr int64_t SUMMED = 4 * PART;

// Lines without gaps that are narrower are put together to a row of whole blocks, of at most so many columns.
constexpr int64_t WIDE = 2 * BLOCK, WIDEST = 1024;

// Rows of a sample; the last may be shorter.
struct Rows {
    int64_t lines, width, count, rest, span;

    Rows(Shape shape, bool gaps) : lines(1) {
        const int64_t channels = shape.channels;
        if (!gaps && channels < WIDE) {
            while (lines * channels % BLOCK) lines *= 2;
            while (lines > 1 && (lines * channels > WIDEST || lines * 8 > shape.positions)) lines /= 2;
        }
        width = lines * channels, count = shape.positions / lines, rest = shape.positions % lines * channels;
        span = std::clamp<int64_t>(SPAN / width, PART, SPAN / BLOCK);
    }
    int64_t spans() const { return std::max<int64_t>(divided(count, span), 1); }
};

// body(n, threads) for each sample, which work on it together: one, if there are samples for all. A loop of one thread around
// parallel ones would have these start new threads each time.
template <class Body> void of_samples(Shape shape, int threads, Body body) {
    const bool apart = shape.samples % threads == 0 || shape.samples > 4 * threads;
    if (worth(shape, threads) > 1 && !apart)
        for (int64_t n = 0; n < shape.samples; n++) body(n, threads);
    else
        in_parallel(shape.samples, worth(shape, threads), [&](int64_t n) { body(n, 1); });
}

// body(number, begin, count, width): for each span's rows, and in the last span for the rest, a row that is shorter.
template <class Body> void of_spans(const Rows &rows, int threads, Body body) {
    in_parallel(rows.spans(), threads, [&](int64_t number) {
        const int64_t begin = number * rows.span, end = std::min(begin + rows.span, rows.count);
        body(number, begin, end - begin, rows.width);
        if (end == rows.count && rows.rest) body(number, end, 1, rows.rest);
    });
}

// Half of a block, by masks where there are some, as what is left over: compilers make no vector instructions of 16 values
// of bfloat16.
#ifdef MASKED
constexpr Few HALF{BLOCK / 2};
#else
constexpr std::integral_constant<int64_t, BLOCK / 2> HALF;
#endif

// body(c, width): for each block of columns.
template <class Body> void of_columns(int64_t columns, Body body) {
    int64_t c = 0;
    for (; c + BLOCK <= columns; c += BLOCK) body(c, std::integral_constant<int64_t, BLOCK>());
    if (c + HALF <= columns) body(c, HALF), c += HALF;
    if (c < columns) body(c, Few{columns - c});
}

// Rows that share what is kept for each column: many of one block, which so lie one after the other; else fewer, as
// reading and writing them side by side is slow where all of it is in no cache and they are wider than a few of its
// lines, unless conversions of 16 bits take longer than that.
constexpr int64_t MANY = PART, TOGETHER = 8, CACHE = 1 << 20, NARROW = 1 << 8;

// body(p, rows): rows together, at most `MOST`, or single ones, whose number the compiler knows; `stride` is from one to
// the next.
template <class T, int64_t MOST = MANY, class Body>
void of_rows(const Rows &rows, int64_t stride, int64_t begin, int64_t count, Body body) {
    const int64_t bytes = stride * int64_t(sizeof(T)), end = begin + count;
    const bool close = sizeof(T) == 2 || bytes <= NARROW || rows.count * bytes <= CACHE;
    int64_t p = begin;
    for (; rows.width <= BLOCK && p + MOST <= end; p += MOST) body(p, std::integral_constant<int64_t, MOST>());
    for (; close && p + TOGETHER <= end; p += TOGETHER) body(p, std::integral_constant<int64_t, TOGETHER>());
    for (; p < end; p++) body(p, std::integral_constant<int64_t, 1>());
}

// One row's numbers for each column, of which there are several kinds.
template <class R> struct Columns {
    std::vector<R> values;
    int64_t width;

    Columns(int kinds, int64_t width) : values(kinds * (width + BLOCK)), width(width) {}
    R *operator[](int kind) { return values.data() + kind * (width + BLOCK); }
};

// Of three, that in the middle.
template <class Part> Part median(const Part &a, const Part &b, const Part &c) {
    Part middle;
    for (int64_t i = 0; i < Part::PARTS; i++) {
        const auto low = a.part[i] < b.part[i] ? a.part[i] : b.part[i];
        const auto high = a.part[i] < b.part[i] ? b.part[i] : a.part[i];
        const auto least = high < c.part[i] ? high : c.part[i];
        middle.part[i] = low < least ? least : low;
    }
    return middle;
}

template <class T>
void lines_statistics(Shape shape, const Rows &rows, Maps<T> x, int64_t n, Found<Real<T>> found, int threads) {
    using R = Real<T>;
    const int64_t width = rows.width, C = shape.channels, spans = rows.spans();
    // Of each span, and of the rest; in double, as many parts are joined.
    std::vector<double> means((spans + 1) * width), squares((spans + 1) * width);
    double *const all_means = means.data(), *const all_squares = squares.data();
    const T *const origin = x.at(n, 0);
    const int64_t stride = rows.lines * x.line;
    of_spans(rows, threads, [=, &rows](int64_t number, int64_t begin, int64_t count, int64_t columns) {
        number = begin == rows.count ? spans : number;
        double *const mean = all_means + number * width, *const squares = all_squares + number * width;
        Columns<R> of(3, width);
        Columns<double> of_part(2, width);
        R *const about = of[0], *const sum = of[1], *const squared = of[2];
        double *const part_mean = of_part[0], *const part_squares = of_part[1];
        for (int64_t from = begin; from < begin + count; from += PART) {
            const int64_t size = std::min(PART, begin + count - from);
            const T *const start = origin + from * stride;
            of_columns(columns, [=](int64_t c, auto width) {
                using Part = Channels<R, decltype(width)>;
                const auto row = [=](int64_t p) { return Part(start + p * stride + c, width); };
                median(row(0), row(size / 2), row(size - 1)).to(about + c);
                Part().to(sum + c), Part().to(squared + c);
            });
            constexpr int64_t most = std::is_same_v<T, BFloat16> ? TOGETHER : MANY; // sums of more take a third longer
            of_rows<T, most>(rows, stride, 0, size, [=](int64_t p, auto many) {
                const T *const at = start + p * stride;
                of_columns(columns, [=](int64_t c, auto width) {
                    using Part = Channels<R, decltype(width)>;
                    const Part from(about + c, width);
                    Part total(sum + c, width), total_squared(squared + c, width);
                    const auto add = [=](int64_t row, Part &all, Part &all_squared) {
                        const Part apart = Part(at + row * stride + c, width) - from;
                        all = all + apart, all_squared = all_squared + apart * apart;
                    };
                    if (many == 1) add(0, total, total_squared);
                    // Few at a time, so that one large value costs few others digits.
                    for (int64_t few = 0; few + TOGETHER <= many; few += TOGETHER) {
                        Part of_few, of_few_squared;
                        for (int64_t row = few; row < few + TOGETHER; row++) add(row, of_few, of_few_squared);
                        total = total + of_few, total_squared = total_squared + of_few_squared;
                    }
                    total.to(sum + c), total_squared.to(squared + c);
                });
            });
            const double share = 1 / double(size);
            for (int64_t line = 0; line < columns; line += C)
#pragma omp simd
                for (int64_t c = line; c < line + C; c++) {
                    const double moved = sum[c] * share;
                    part_squares[c] = squared[c] - moved * sum[c];
                    part_mean[c] = moved + (double(about[c]) - read(origin[c - line]));
                }
            join(mean, squares, double(from - begin), part_mean, part_squares, double(size), columns);
        }
    });
    for (int64_t number = 1; number < spans; number++) {
        const int64_t begin = number * rows.span, count = std::min(rows.span, rows.count - begin);
        join(all_means, all_squares, double(begin), all_means + number * width, all_squares + number * width, double(count), width);
    }
    join(all_means, all_squares, double(rows.count), all_means + spans * width, all_squares + spans * width, 1.0, rows.rest);
    const auto size_of = [=, &rows](int64_t line) { return rows.count + (line * C < rows.rest); };
    int64_t before = size_of(0);
    for (int64_t line = 1; line < rows.lines; before += size_of(line++))
        join(all_means, all_squares, double(before), all_means + line * C, all_squares + line * C, double(size_of(line)), C);
    for (int64_t c = 0; c < C; c++)
        found.take(n * C + c, read(origin[c]), all_means[c], all_squares[c], shape.positions);
}

// Of a sample's columns, what does not change from one row to the next.
enum : int { ORIGIN, MEAN, FACTOR, OFFSET, MEAN_G, SLOPE };

template <class T> Columns<Real<T>> columns_of(Shape shape, const Rows &rows, Maps<T> x, Parameters<Real<T>> of, int64_t n) {
    Columns<Real<T>> all(SLOPE + 1, rows.width);
    for (int64_t c = 0; c < rows.width; c++) {
        const int64_t channel = c % shape.channels;
        const auto found = of.affine(n * shape.channels + channel, channel, read(x.at(n, 0)[channel]));
        all[ORIGIN][c] = found.origin, all[MEAN][c] = found.mean;
        all[FACTOR][c] = found.factor, all[OFFSET][c] = found.offset;
    }
    return all;
}

// `values` where y is positive or no number; elsewhere that slope of theirs, or 0.
template <class Part, class R> Part bent(Part values, const Part &y, bool relu, R slope) {
    for (int64_t i = 0; i < Part::PARTS; i++) {
        const auto below = relu ? typename Part::Vector{} : values.part[i] * slope;
        values.part[i] = y.part[i] <= 0 ? below : values.part[i];
    }
    return values;
}

template <class T>
void lines_apply(
    Shape shape, const Rows &rows, Maps<T> x, Maps<T> y, Parameters<Real<T>> of, int64_t n, Activation activation,
    int threads
) {
    using R = Real<T>;
    Columns<R> all = columns_of(shape, rows, x, of, n);
    const R *const origins = all[ORIGIN], *const factors = all[FACTOR], *const offsets = all[OFFSET];
    const bool curved = activation.kind >= SILU, relu = activation.kind == RELU;
    const R slope = activation.kind == LEAKY_RELU ? R(activation.slope) : R(1);
    const int64_t of_x = rows.lines * x.line, of_y = rows.lines * y.line;
    of_spans(rows, threads, [=, &rows](int64_t, int64_t begin, int64_t count, int64_t columns) {
        of_rows<T>(rows, of_x, begin, count, [=](int64_t p, auto many) {
            const T *const from = x.at(n, 0) + p * of_x;
            T *const to = y.at(n, 0) + p * of_y;
            of_columns(columns, [=](int64_t c, auto width) {
                using Part = Channels<R, decltype(width)>;
                const Part origin(origins + c, width), factor(factors + c, width), offset(offsets + c, width);
                R values[many * Part::COUNT];
                for (int64_t row = 0; row < many; row++) {
                    const Part result = (Part(from + row * of_x + c, width) - origin) * factor + offset;
                    if (curved)
                        result.to(values + row * Part::COUNT);
                    else
                        bent(result, result, relu, slope).to(to + row * of_y + c, width);
                }
                if (!curved) return;
                activate(activation, values, many * Part::COUNT);
                for (int64_t row = 0; row < many; row++) put(to + row * of_y + c, values + row * Part::COUNT, width);
            });
        });
    });
}

// dx = scale rstd (g - mean(g) - x_hat mean(g x_hat)), g being what the activation lets through; sums of g and of
// g x_hat, (N, C).
template <class T>
void lines_backward(
    Shape shape, const Rows &rows, Maps<T> grad, Maps<T> x, Maps<T> dx, Parameters<Real<T>> of, Sums sums_of,
    int64_t n, Activation activation, int threads
) {
    using R = Real<T>;
    Columns<R> all = columns_of(shape, rows, x, of, n);
    const R *const origins = all[ORIGIN], *const means = all[MEAN], *const factors = all[FACTOR];
    const R *const offsets = all[OFFSET];
    R *const mean_g = all[MEAN_G], *const slopes = all[SLOPE];
    const int64_t width = rows.width, C = shape.channels, spans = rows.spans();
    std::vector<double> sums(2 * (spans + 1) * width); // of each span, and of the rest, as the statistics
    double *const all_sums = sums.data();
    // What took exponentials lies in dx for the second time, everything else is made again.
    const bool curved = activation.kind >= SILU, relu = activation.kind == RELU;
    const R bend = activation.kind == LEAKY_RELU ? R(activation.slope) : R(1);
    const int64_t of_x = rows.lines * x.line, of_g = rows.lines * grad.line, of_dx = rows.lines * dx.line;
    of_spans(rows, threads, [=, &rows](int64_t number, int64_t begin, int64_t count, int64_t columns) {
        number = begin == rows.count ? spans : number;
        double *const span_g = all_sums + 2 * number * rows.width, *const span_along = span_g + rows.width;
        Columns<R> of_part(2, rows.width);
        R *const part_g = of_part[0], *const part_along = of_part[1];
        for (int64_t start = begin; start < begin + count; start += SUMMED) {
            of_rows<T>(rows, of_x, start, std::min(SUMMED, begin + count - start), [=](int64_t p, auto many) {
                const T *const from = x.at(n, 0) + p * of_x, *const sent = grad.at(n, 0) + p * of_g;
                T *const kept = dx.at(n, 0) + p * of_dx;
                of_columns(columns, [=](int64_t c, auto width) {
                    using Part = Channels<R, decltype(width)>;
                    const Part origin(origins + c, width), mean(means + c, width);
                    const Part factor(factors + c, width), offset(offsets + c, width);
                    R ys[many * Part::COUNT], gs[many * Part::COUNT];
                    if (curved) {
                        for (int64_t row = 0; row < many; row++) {
                            const Part apart = Part(from + row * of_x + c, width) - origin;
                            (apart * factor + offset).to(ys + row * Part::COUNT);
                            Part(sent + row * of_g + c, width).to(gs + row * Part::COUNT);
                        }
                        through(activation, gs, ys, many * Part::COUNT);
                    }
                    Part total_g, total_along;
                    for (int64_t row = 0; row < many; row++) {
                        const Part apart = Part(from + row * of_x + c, width) - origin, centred = apart - mean;
                        Part g;
                        if (curved) {
                            g.from_memory(gs + row * Part::COUNT);
                            g.to(kept + row * of_dx + c, width);
                        } else {
                            g = bent(Part(sent + row * of_g + c, width), apart * factor + offset, relu, bend);
                        }
                        total_g = total_g + g, total_along = total_along + g * centred;
                    }
                    (Part(part_g + c, width) + total_g).to(part_g + c);
                    (Part(part_along + c, width) + total_along).to(part_along + c);
                });
            });
#pragma omp simd
            for (int64_t c = 0; c < columns; c++) {
                span_g[c] += part_g[c], span_along[c] += part_along[c];
                part_g[c] = part_along[c] = 0;
            }
        }
    });
    for (int64_t c = 0; c < C; c++) {
        double g = 0, along = 0;
        for (int64_t number = 0; number <= spans; number++)
            for (int64_t line = c; line < width; line += C) {
                g += all_sums[2 * number * width + line];
                along += all_sums[(2 * number + 1) * width + line];
            }
        const double rstd = of.rstd[n * C + c], share = 1 / double(shape.positions);
        sums_of.take(n * C + c, g, rstd * along);
        for (int64_t line = c; line < width; line += C) mean_g[line] = R(share * g), slopes[line] = R(share * rstd * rstd * along);
    }
    of_spans(rows, threads, [=, &rows](int64_t, int64_t begin, int64_t count, int64_t columns) {
        of_rows<T>(rows, of_x, begin, count, [=](int64_t p, auto many) {
            const T *const from = x.at(n, 0) + p * of_x, *const sent = grad.at(n, 0) + p * of_g;
            T *const to = dx.at(n, 0) + p * of_dx;
            of_columns(columns, [=](int64_t c, auto width) {
                using Part = Channels<R, decltype(width)>;
                const Part origin(origins + c, width), mean(means + c, width);
                const Part factor(factors + c, width), offset(offsets + c, width);
                const Part constant(mean_g + c, width), slope(slopes + c, width);
                for (int64_t row = 0; row < many; row++) {
                    const Part apart = Part(from + row * of_x + c, width) - origin, centred = apart - mean;
                    const Part taken(curved ? to + row * of_dx + c : sent + row * of_g + c, width);
                    const Part g = curved ? taken : bent(taken, apart * factor + offset, relu, bend);
                    (factor * (g - constant - centred * slope)).to(to + row * of_dx + c, width);
                }
            });
        });
    });
}

} // namespace
