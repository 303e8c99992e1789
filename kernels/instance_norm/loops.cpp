// Norms over the positions of each map of a sample, or of all samples together, with or without scale and shift, with or
// without an activation behind them: of channels_last maps, a line of channels after another, and of contiguous ones, a
// row of positions after another.
#include <vector>

#include "activation.h"
#include "channels.h"
#include "join.h"

namespace {

// Of each map, mean (of the differences from its first position) and 1 / deviation, (2, N, C), N being 1 for norms over
// all samples; scale and shift of channels.
template <class R> struct Parameters {
    const R *mean, *rstd, *weight, *bias;

    Parameters(Shape shape, const void *statistics, const void *weight, const void *bias)
        : mean(static_cast<const R *>(statistics)), rstd(mean + shape.samples * shape.channels),
          weight(static_cast<const R *>(weight)), bias(static_cast<const R *>(bias)) {}

    R scale(int64_t c) const { return weight ? weight[c] : R(1); }
    R shift(int64_t c) const { return bias ? bias[c] : R(0); }
};

// Where statistics go, and averages of mean and unbiased variance that follow those of a batch, if there are any.
template <class R> struct Found {
    R *mean, *rstd, *running_mean, *running_var;
    double eps, momentum;

    void take(int64_t map, R first, R mean_of_map, R squares, int64_t count) const {
        const R var = squares / R(count) + R(eps);
        mean[map] = mean_of_map, rstd[map] = var == 0 ? R(0) : 1 / std::sqrt(var); // 0, as torch has it, of a flat map
        const auto follow = [=](R *average, R value) {
            if (average) average[map] = R(momentum * value + (1 - momentum) * average[map]);
        };
        follow(running_mean, first + mean_of_map), follow(running_var, squares / R(count - 1));
    }
};

// ---- Lines: matrices of rows, which memory is read along, and sums of all columns beside them.

// Values of a span of rows, which one thread goes through whatever the number of threads, so that results do not depend
// on it.
constexpr int64_t SPAN = 1 << 15;

// Rows whose sums are taken before they join those of all others: the first is their origin, so that squares lose at
// most a factor of so many of the accuracy, in whatever way maps lie.
constexpr int64_t PART = 33;

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
    if (shape.size() > FEW && !apart) {
        for (int64_t n = 0; n < shape.samples; n++) body(n, threads);
        return;
    }
#pragma omp parallel for schedule(static) num_threads(threads) if (shape.size() > FEW)
    for (int64_t n = 0; n < shape.samples; n++) body(n, 1);
}

// body(number, begin, count, width): for each span's rows, and in the last span for the rest, a row that is shorter.
template <class Body> void of_spans(const Rows &rows, int threads, Body body) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t number = 0; number < rows.spans(); number++) {
        const int64_t begin = number * rows.span, end = std::min(begin + rows.span, rows.count);
        body(number, begin, end - begin, rows.width);
        if (end == rows.count && rows.rest) body(number, end, 1, rows.rest);
    }
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
constexpr int64_t MANY = PART - 1, TOGETHER = 8, CACHE = 1 << 20, NARROW = 1 << 8;

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

template <class T>
void lines_statistics(Shape shape, const Rows &rows, Maps<T> x, int64_t n, Found<Real<T>> found, int threads) {
    using R = Real<T>;
    const int64_t width = rows.width, C = shape.channels, spans = rows.spans();
    // Of each span, and of the rest.
    std::vector<R> means((spans + 1) * width), squares((spans + 1) * width);
    R *const all_means = means.data(), *const all_squares = squares.data();
    const T *const origin = x.at(n, 0);
    const int64_t stride = rows.lines * x.line;
    of_spans(rows, threads, [=, &rows](int64_t number, int64_t begin, int64_t count, int64_t columns) {
        number = begin == rows.count ? spans : number;
        R *const mean = all_means + number * width, *const squares = all_squares + number * width;
        Columns<R> of(3, width);
        R *const first = of[0], *const sum = of[1], *const squared = of[2];
        for (int64_t from = begin; from < begin + count; from += PART) {
            const int64_t size = std::min(PART, begin + count - from);
            const T *const start = origin + from * stride;
            of_columns(columns, [=](int64_t c, auto width) {
                using Part = Channels<R, decltype(width)>;
                Part(start + c, width).to(first + c), Part().to(sum + c), Part().to(squared + c);
            });
            constexpr int64_t most = std::is_same_v<T, BFloat16> ? TOGETHER : MANY; // sums of more take a third longer
            of_rows<T, most>(rows, stride, 1, size - 1, [=](int64_t p, auto many) {
                const T *const at = start + p * stride;
                of_columns(columns, [=](int64_t c, auto width) {
                    using Part = Channels<R, decltype(width)>;
                    const Part from(first + c, width);
                    Part total(sum + c, width), total_squared(squared + c, width);
                    for (int64_t row = 0; row < many; row++) {
                        const Part apart = Part(at + row * stride + c, width) - from;
                        total = total + apart, total_squared = total_squared + apart * apart;
                    }
                    total.to(sum + c), total_squared.to(squared + c);
                });
            });
            const R share = 1 / R(size);
            for (int64_t line = 0; line < columns; line += C)
#pragma omp simd
                for (int64_t c = line; c < line + C; c++) {
                    const R moved = sum[c] * share;
                    squared[c] -= moved * sum[c];
                    sum[c] = moved + (first[c] - read(origin[c - line]));
                }
            join(mean, squares, R(from - begin), sum, squared, R(size), columns);
        }
    });
    for (int64_t number = 1; number < spans; number++) {
        const int64_t begin = number * rows.span, count = std::min(rows.span, rows.count - begin);
        join(all_means, all_squares, R(begin), all_means + number * width, all_squares + number * width, R(count), width);
    }
    join(all_means, all_squares, R(rows.count), all_means + spans * width, all_squares + spans * width, R(1), rows.rest);
    const auto size_of = [=, &rows](int64_t line) { return rows.count + (line * C < rows.rest); };
    int64_t before = size_of(0);
    for (int64_t line = 1; line < rows.lines; before += size_of(line++))
        join(all_means, all_squares, R(before), all_means + line * C, all_squares + line * C, R(size_of(line)), C);
    for (int64_t c = 0; c < C; c++)
        found.take(n * C + c, read(origin[c]), all_means[c], all_squares[c], shape.positions);
}

// Of a sample's columns, what does not change from one row to the next; factor is scale / deviation.
enum : int { FIRST, MEAN, FACTOR, SHIFT, MEAN_G, SLOPE };

template <class T> Columns<Real<T>> columns_of(Shape shape, const Rows &rows, Maps<T> x, Parameters<Real<T>> of, int64_t n) {
    Columns<Real<T>> all(SLOPE + 1, rows.width);
    for (int64_t c = 0; c < rows.width; c++) {
        const int64_t channel = c % shape.channels, map = n * shape.channels + channel;
        all[FIRST][c] = read(x.at(n, 0)[channel]), all[MEAN][c] = of.mean[map];
        all[FACTOR][c] = of.rstd[map] * of.scale(channel), all[SHIFT][c] = of.shift(channel);
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
    const R *const first = all[FIRST], *const mean = all[MEAN], *const factors = all[FACTOR], *const shifts = all[SHIFT];
    const bool curved = activation.kind >= SILU, relu = activation.kind == RELU;
    const R slope = activation.kind == LEAKY_RELU ? R(activation.slope) : R(1);
    const int64_t of_x = rows.lines * x.line, of_y = rows.lines * y.line;
    of_spans(rows, threads, [=, &rows](int64_t, int64_t begin, int64_t count, int64_t columns) {
        of_rows<T>(rows, of_x, begin, count, [=](int64_t p, auto many) {
            const T *const from = x.at(n, 0) + p * of_x;
            T *const to = y.at(n, 0) + p * of_y;
            of_columns(columns, [=](int64_t c, auto width) {
                using Part = Channels<R, decltype(width)>;
                const Part origin(first + c, width), middle(mean + c, width);
                const Part factor(factors + c, width), shift(shifts + c, width);
                R values[many * Part::COUNT];
                for (int64_t row = 0; row < many; row++) {
                    const Part result = (Part(from + row * of_x + c, width) - origin - middle) * factor + shift;
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
    Shape shape, const Rows &rows, Maps<T> grad, Maps<T> x, Maps<T> dx, Parameters<Real<T>> of, Real<T> *sum_g,
    Real<T> *sum_along, int64_t n, Activation activation, int threads
) {
    using R = Real<T>;
    Columns<R> all = columns_of(shape, rows, x, of, n);
    const R *const first = all[FIRST], *const mean = all[MEAN], *const factors = all[FACTOR], *const shifts = all[SHIFT];
    R *const mean_g = all[MEAN_G], *const slopes = all[SLOPE];
    const int64_t width = rows.width, C = shape.channels, spans = rows.spans();
    std::vector<R> sums(2 * (spans + 1) * (width + BLOCK));
    R *const all_sums = sums.data();
    // What took exponentials lies in dx for the second time, everything else is made again.
    const bool curved = activation.kind >= SILU, relu = activation.kind == RELU;
    const R bend = activation.kind == LEAKY_RELU ? R(activation.slope) : R(1);
    const int64_t of_x = rows.lines * x.line, of_g = rows.lines * grad.line, of_dx = rows.lines * dx.line;
    of_spans(rows, threads, [=, &rows](int64_t number, int64_t begin, int64_t count, int64_t columns) {
        number = begin == rows.count ? spans : number;
        R *const span_g = all_sums + 2 * number * (rows.width + BLOCK), *const span_along = span_g + rows.width + BLOCK;
        of_rows<T>(rows, of_x, begin, count, [=](int64_t p, auto many) {
            const T *const from = x.at(n, 0) + p * of_x, *const sent = grad.at(n, 0) + p * of_g;
            T *const kept = dx.at(n, 0) + p * of_dx;
            of_columns(columns, [=](int64_t c, auto width) {
                using Part = Channels<R, decltype(width)>;
                const Part origin(first + c, width), middle(mean + c, width);
                const Part factor(factors + c, width), shift(shifts + c, width);
                R ys[many * Part::COUNT], gs[many * Part::COUNT];
                if (curved) {
                    for (int64_t row = 0; row < many; row++) {
                        const Part centred = Part(from + row * of_x + c, width) - origin - middle;
                        (centred * factor + shift).to(ys + row * Part::COUNT);
                        Part(sent + row * of_g + c, width).to(gs + row * Part::COUNT);
                    }
                    through(activation, gs, ys, many * Part::COUNT);
                }
                Part total_g(span_g + c, width), total_along(span_along + c, width);
                for (int64_t row = 0; row < many; row++) {
                    const Part centred = Part(from + row * of_x + c, width) - origin - middle;
                    Part g;
                    if (curved) {
                        std::memcpy(g.part, gs + row * Part::COUNT, sizeof g.part);
                        g.to(kept + row * of_dx + c, width);
                    } else {
                        g = bent(Part(sent + row * of_g + c, width), centred * factor + shift, relu, bend);
                    }
                    total_g = total_g + g, total_along = total_along + g * centred;
                }
                total_g.to(span_g + c), total_along.to(span_along + c);
            });
        });
    });
    for (int64_t c = 0; c < C; c++) {
        R g = 0, along = 0;
        for (int64_t number = 0; number <= spans; number++)
            for (int64_t line = c; line < width; line += C) {
                g += all_sums[2 * number * (width + BLOCK) + line];
                along += all_sums[(2 * number + 1) * (width + BLOCK) + line];
            }
        const R rstd = of.rstd[n * C + c], share = 1 / R(shape.positions);
        sum_g[n * C + c] = g, sum_along[n * C + c] = rstd * along;
        for (int64_t line = c; line < width; line += C) mean_g[line] = share * g, slopes[line] = share * rstd * rstd * along;
    }
    of_spans(rows, threads, [=, &rows](int64_t, int64_t begin, int64_t count, int64_t columns) {
        of_rows<T>(rows, of_x, begin, count, [=](int64_t p, auto many) {
            const T *const from = x.at(n, 0) + p * of_x, *const sent = grad.at(n, 0) + p * of_g;
            T *const to = dx.at(n, 0) + p * of_dx;
            of_columns(columns, [=](int64_t c, auto width) {
                using Part = Channels<R, decltype(width)>;
                const Part origin(first + c, width), middle(mean + c, width);
                const Part factor(factors + c, width), shift(shifts + c, width);
                const Part constant(mean_g + c, width), slope(slopes + c, width);
                for (int64_t row = 0; row < many; row++) {
                    const Part centred = Part(from + row * of_x + c, width) - origin - middle;
                    const Part taken(curved ? to + row * of_dx + c : sent + row * of_g + c, width);
                    const Part g = curved ? taken : bent(taken, centred * factor + shift, relu, bend);
                    (factor * (g - constant - centred * slope)).to(to + row * of_dx + c, width);
                }
            });
        });
    });
}

// ---- Contiguous maps, of which one is a row of positions of a sample, or of each sample.

// Values of a map that are worked on together: few enough to stay in the nearest cache.
constexpr int64_t ROW = 1 << 10;

// Where a map's rows lie.
struct Pieces {
    int64_t count, positions, stride;
    int64_t size() const { return count * positions; }

    // body(at, many, length): so many rows' values from there on, at most ROW of them together.
    template <class Body> void each(Body body) const {
        const int64_t together = std::max<int64_t>(ROW / positions, 1);
        for (int64_t piece = 0; piece < count; piece += together)
            for (int64_t begin = 0; begin < positions; begin += ROW)
                body(piece * stride + begin, std::min(together, count - piece), std::min(ROW, positions - begin));
    }

    // These values, where they lie or in `buffer`.
    template <class T> const Real<T> *taken(const T *from, Real<T> *buffer, int64_t many, int64_t length) const {
        if (many == 1) return real(from, buffer, length);
        for (int64_t piece = 0; piece < many; piece++) {
            Real<T> *const to = buffer + piece * length;
            const Real<T> *const values = real(from + piece * stride, to, length);
            if (values != to) std::copy_n(values, length, to);
        }
        return buffer;
    }

    template <class T> void write(T *to, const Real<T> *values, int64_t many, int64_t length) const {
        for (int64_t piece = 0; piece < many; piece++) put(to + piece * stride, values + piece * length, length);
    }
};

// Adds to sums `add(i, a, b)`, i < count, in so many sums that no addition waits for the one before.
template <class R, class Add> void total(int64_t count, R &a, R &b, Add add) {
    R as[BLOCK] = {}, bs[BLOCK] = {};
    const int64_t even = count / BLOCK * BLOCK;
    for (int64_t i = 0; i < even; i += BLOCK)
#pragma omp simd
        for (int64_t lane = 0; lane < BLOCK; lane++) add(i + lane, as[lane], bs[lane]);
#pragma omp simd
    for (int64_t lane = 0; lane < count - even; lane++) add(even + lane, as[lane], bs[lane]);
    for (int64_t half = BLOCK / 2; half; half /= 2)
        for (int64_t lane = 0; lane < half; lane++) as[lane] += as[lane + half], bs[lane] += bs[lane + half];
    a += as[0], b += bs[0];
}

// body(map, c, where, pieces): for each map, of channel c, the place of its first value.
template <class Body> void of_maps(Shape shape, bool batch, int threads, Body body) {
    const int64_t maps = batch ? shape.channels : shape.samples * shape.channels;
    const Pieces pieces{batch ? shape.samples : 1, shape.positions, shape.channels * shape.positions};
#pragma omp parallel for schedule(static) num_threads(threads) if (shape.size() > FEW)
    for (int64_t map = 0; map < maps; map++) body(map, map % shape.channels, map * shape.positions, pieces);
}

template <class T>
void rows_forward(
    Shape shape, bool batch, const T *x, T *y, Found<Real<T>> found, Parameters<Real<T>> of, Activation activation,
    int threads
) {
    using R = Real<T>;
    of_maps(shape, batch, threads, [=](int64_t map, int64_t c, int64_t where, Pieces pieces) {
        const R first = read(x[where]), *held = nullptr;
        R mean = 0, squares = 0, before = 0, values[ROW], buffer[ROW];
        pieces.each([&](int64_t at, int64_t many, int64_t length) { // Chan, Golub and LeVeque, 1979
            const int64_t count = many * length;
            const R *const from = held = pieces.taken(x + where + at, buffer, many, length);
            R part_mean = 0, part_squares = 0, rest = 0;
            total<R>(count, part_mean, rest, [=](int64_t i, R &sum, R &) { sum += from[i] - first; });
            part_mean /= R(count);
            total<R>(count, part_squares, rest, [=](int64_t i, R &sum, R &) {
                const R centred = from[i] - first - part_mean;
                sum += centred * centred;
            });
            join<R>(&mean, &squares, before, &part_mean, &part_squares, R(count), 1);
            before += R(count);
        });
        found.take(map, first, mean, squares, pieces.size());
        const R scale = of.rstd[map] * of.scale(c), shift = of.shift(c);
        pieces.each([&](int64_t at, int64_t many, int64_t length) {
            const R *const from = pieces.size() > ROW ? pieces.taken(x + where + at, buffer, many, length) : held;
#pragma omp simd
            for (int64_t i = 0; i < many * length; i++) values[i] = (from[i] - first - mean) * scale + shift;
            activate(activation, values, many * length);
            pieces.write(y + where + at, values, many, length);
        });
    });
}

template <class T>
void rows_backward(
    Shape shape, bool batch, const T *grad, const T *x, T *dx, Parameters<Real<T>> of, Real<T> *sum_g,
    Real<T> *sum_along, Activation activation, int threads
) {
    using R = Real<T>;
    // What took exponentials lies in dx for the second time, or in a buffer; everything else is made again.
    const bool curved = activation.kind >= SILU, relu = activation.kind == RELU;
    const R bend = activation.kind == LEAKY_RELU ? R(activation.slope) : R(1);
    of_maps(shape, batch, threads, [=](int64_t map, int64_t c, int64_t where, Pieces pieces) {
        const R first = read(x[where]), mean = of.mean[map], rstd = of.rstd[map];
        const R factor = of.scale(c) * rstd, shift = of.shift(c);
        const bool at_once = pieces.size() <= ROW;
        const auto let_through = [=](R g, R centred) {
            const R below = relu ? R(0) : g * bend;
            return centred * factor + shift <= 0 ? below : g;
        };
        R y[ROW], of_x[ROW], of_g[ROW], through_it[ROW], total_g = 0, total_along = 0;
        const R *values = nullptr, *grads = nullptr;
        pieces.each([&](int64_t at, int64_t many, int64_t length) {
            const int64_t count = many * length;
            const R *const v = values = pieces.taken(x + where + at, of_x, many, length);
            const R *g = grads = pieces.taken(grad + where + at, of_g, many, length);
            if (curved) {
#pragma omp simd
                for (int64_t i = 0; i < count; i++) {
                    y[i] = (v[i] - first - mean) * factor + shift;
                    through_it[i] = g[i];
                }
                through(activation, through_it, y, count);
                g = grads = through_it;
                if (!at_once) pieces.write(dx + where + at, through_it, many, length);
                total<R>(count, total_g, total_along, [=](int64_t i, R &sum, R &along) {
                    sum += g[i], along += g[i] * (v[i] - first - mean);
                });
            } else {
                total<R>(count, total_g, total_along, [=](int64_t i, R &sum, R &along) {
                    const R centred = v[i] - first - mean;
                    const R sent = let_through(g[i], centred);
                    sum += sent, along += sent * centred;
                });
            }
        });
        sum_g[map] = total_g, sum_along[map] = rstd * total_along;
        const R mean_g = total_g / R(pieces.size()), slope = rstd * rstd * total_along / R(pieces.size());
        pieces.each([&](int64_t at, int64_t many, int64_t length) {
            const int64_t count = many * length;
            if (!at_once) {
                values = pieces.taken(x + where + at, of_x, many, length);
                grads = pieces.taken((curved ? dx : grad) + where + at, of_g, many, length);
            }
            const R *const v = values, *const g = grads;
            if (curved) {
#pragma omp simd
                for (int64_t i = 0; i < count; i++) y[i] = factor * (g[i] - mean_g - (v[i] - first - mean) * slope);
            } else {
#pragma omp simd
                for (int64_t i = 0; i < count; i++) {
                    const R centred = v[i] - first - mean;
                    const R sent = let_through(g[i], centred);
                    y[i] = factor * (sent - mean_g - centred * slope);
                }
            }
            pieces.write(dx + where + at, y, many, length);
        });
    });
}

} // namespace

// `batch`: over all samples, whose lines follow each other; else of each sample.
#define FORWARD                                                                                                        \
    SHAPE, MAPS(x), MAPS(y), void *statistics, const void *weight, const void *bias, int kind, double slope,           \
        double eps, int batch, void *running_mean, void *running_var, double momentum
#define BACKWARD                                                                                                       \
    SHAPE, MAPS(grad), MAPS(x), MAPS(dx), const void *statistics, const void *weight, const void *bias, void *sums,    \
        int kind, double slope, int batch

EXPORT void forward(FORWARD) {
    const Shape shape = batch ? Shape{1, samples * positions, channels} : Shape{samples, positions, channels};
    const Rows rows(shape, x_line != channels || y_line != channels);
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        const Parameters<R> of(shape, statistics, weight, bias);
        R *const mean = static_cast<R *>(statistics), *const rstd = mean + shape.samples * channels;
        const Found<R> found{
            mean, rstd, static_cast<R *>(running_mean), static_cast<R *>(running_var), eps, momentum,
        };
        const auto x = AS(T, x), y = AS(T, y);
        of_samples(shape, threads, [=, &rows](int64_t n, int together) {
            lines_statistics<T>(shape, rows, x, n, found, together);
            lines_apply<T>(shape, rows, x, y, of, n, Activation{kind, slope}, together);
        });
    })
}

EXPORT void backward(BACKWARD) {
    const Shape shape = batch ? Shape{1, samples * positions, channels} : Shape{samples, positions, channels};
    const Rows rows(shape, x_line != channels || grad_line != channels || dx_line != channels);
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        const Parameters<R> of(shape, statistics, weight, bias);
        R *const sum_g = static_cast<R *>(sums), *const sum_along = sum_g + shape.samples * channels;
        const auto grad = AS(T, grad), x = AS(T, x), dx = AS(T, dx);
        of_samples(shape, threads, [=, &rows](int64_t n, int together) {
            lines_backward<T>(shape, rows, grad, x, dx, of, sum_g, sum_along, n, Activation{kind, slope}, together);
        });
    })
}

EXPORT void rows_forward(FORWARD) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        const Parameters<R> of(Shape{batch ? 1 : samples, positions, channels}, statistics, weight, bias);
        R *const mean = static_cast<R *>(statistics), *const rstd = const_cast<R *>(of.rstd);
        const Found<R> found{
            mean, rstd, static_cast<R *>(running_mean), static_cast<R *>(running_var), eps, momentum,
        };
        rows_forward<T>(shape, batch, AS(T, x).data, AS(T, y).data, found, of, Activation{kind, slope}, threads);
    })
}

EXPORT void rows_backward(BACKWARD) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        const Parameters<R> of(Shape{batch ? 1 : samples, positions, channels}, statistics, weight, bias);
        R *const sum_g = static_cast<R *>(sums), *const sum_along = sum_g + (of.rstd - of.mean);
        rows_backward<T>(
            shape, batch, AS(T, grad).data, AS(T, x).data, AS(T, dx).data, of, sum_g, sum_along,
            Activation{kind, slope}, threads
        );
    })
}
