// Norms of contiguous maps, of which one is a row of positions of a sample, or of each sample.
#pragma once

#include "activation.h"
#include "affine.h"
#include "join.h"

namespace {

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

// Sums of a block, one after another.
inline double joined(double *sums) {
    for (int64_t half = BLOCK / 2; half; half /= 2)
        for (int64_t lane = 0; lane < half; lane++) sums[lane] += sums[lane + half];
    return sums[0];
}

// Sum of value(i), i < count, in so many sums that no addition waits for the one before; a few values' in R, and these in
// double, so that one large value costs the others no digits.
template <class R, class Value> double total(int64_t count, Value value) {
    constexpr int64_t FEW_VALUES = 4;
    double sums[BLOCK] = {};
    int64_t i = 0;
    for (; i + FEW_VALUES * BLOCK <= count; i += FEW_VALUES * BLOCK)
#pragma omp simd
        for (int64_t lane = 0; lane < BLOCK; lane++) {
            R sum = value(i + lane);
            for (int64_t k = 1; k < FEW_VALUES; k++) sum += value(i + lane + k * BLOCK);
            sums[lane] += sum;
        }
    for (; i < count; i += BLOCK)
#pragma omp simd
        for (int64_t lane = 0; lane < std::min(BLOCK, count - i); lane++) sums[lane] += value(i + lane);
    return joined(sums);
}

// Adds to two sums `add(i, a, b)`, i < count, in the same way: compilers make vectors of branches only so.
template <class R, class Add> void totals(int64_t count, double &a, double &b, Add add) {
    constexpr int64_t FEW_VALUES = 8 * BLOCK;
    double all_a[BLOCK] = {}, all_b[BLOCK] = {};
    for (int64_t begin = 0; begin < count; begin += FEW_VALUES) {
        R as[BLOCK] = {}, bs[BLOCK] = {};
        const int64_t end = std::min(begin + FEW_VALUES, count), even = end - (end - begin) % BLOCK;
        for (int64_t i = begin; i < even; i += BLOCK)
#pragma omp simd
            for (int64_t lane = 0; lane < BLOCK; lane++) add(i + lane, as[lane], bs[lane]);
#pragma omp simd
        for (int64_t lane = 0; lane < end - even; lane++) add(even + lane, as[lane], bs[lane]);
#pragma omp simd
        for (int64_t lane = 0; lane < BLOCK; lane++) all_a[lane] += as[lane], all_b[lane] += bs[lane];
    }
    a += joined(all_a), b += joined(all_b);
}

// body(map, c, where, pieces): for each map, of channel c, the place of its first value.
template <class Body> void of_maps(Shape shape, bool batch, int threads, Body body) {
    const int64_t maps = batch ? shape.channels : shape.samples * shape.channels;
    const Pieces pieces{batch ? shape.samples : 1, shape.positions, shape.channels * shape.positions};
    in_parallel(maps, worth(shape, threads), [&](int64_t map) {
        body(map, map % shape.channels, map * shape.positions, pieces);
    });
}

template <class T>
void contiguous_forward(
    Shape shape, bool batch, const T *x, T *y, Found<Real<T>> found, Parameters<Real<T>> of, Activation activation,
    int threads
) {
    using R = Real<T>;
    of_maps(shape, batch, threads, [=](int64_t map, int64_t c, int64_t where, Pieces pieces) {
        const R first = read(x[where]), *held = nullptr;
        double mean = 0, squares = 0, before = 0;
        R values[ROW], buffer[ROW];
        pieces.each([&](int64_t at, int64_t many, int64_t length) { // Chan, Golub and LeVeque, 1979
            const int64_t count = many * length;
            const R *const from = held = pieces.taken(x + where + at, buffer, many, length);
            const double part_mean = total<R>(count, [=](int64_t i) { return from[i] - first; }) / double(count);
            const R middle = R(part_mean);
            const double part_squares = total<R>(count, [=](int64_t i) {
                const R centred = from[i] - first - middle;
                return centred * centred;
            });
            join(&mean, &squares, before, &part_mean, &part_squares, double(count), 1);
            before += double(count);
        });
        found.take(map, first, mean, squares, pieces.size());
        const Affine<R> affine = of.affine(map, c, first);
        pieces.each([&](int64_t at, int64_t many, int64_t length) {
            const R *const from = pieces.size() > ROW ? pieces.taken(x + where + at, buffer, many, length) : held;
#pragma omp simd
            for (int64_t i = 0; i < many * length; i++)
                values[i] = (from[i] - affine.origin) * affine.factor + affine.offset;
            activate(activation, values, many * length);
            pieces.write(y + where + at, values, many, length);
        });
    });
}

template <class T>
void contiguous_backward(
    Shape shape, bool batch, const T *grad, const T *x, T *dx, Parameters<Real<T>> of, Sums sums,
    Activation activation, int threads
) {
    using R = Real<T>;
    // What took exponentials lies in dx for the second time, or in a buffer; everything else is made again.
    const bool curved = activation.kind >= SILU, relu = activation.kind == RELU;
    const R bend = activation.kind == LEAKY_RELU ? R(activation.slope) : R(1);
    of_maps(shape, batch, threads, [=](int64_t map, int64_t c, int64_t where, Pieces pieces) {
        const Affine<R> affine = of.affine(map, c, read(x[where]));
        const R origin = affine.origin, mean = affine.mean, factor = affine.factor, offset = affine.offset;
        const double rstd = of.rstd[map];
        const bool at_once = pieces.size() <= ROW;
        double total_g = 0, total_along = 0;
        R y[ROW], of_x[ROW], of_g[ROW], through_it[ROW];
        const R *values = nullptr, *grads = nullptr;
        const auto let_through = [=](R g, R apart) {
            const R below = relu ? R(0) : g * bend;
            return apart * factor + offset <= 0 ? below : g;
        };
        pieces.each([&](int64_t at, int64_t many, int64_t length) {
            const int64_t count = many * length;
            const R *const v = values = pieces.taken(x + where + at, of_x, many, length);
            const R *g = grads = pieces.taken(grad + where + at, of_g, many, length);
            if (curved) {
#pragma omp simd
                for (int64_t i = 0; i < count; i++) {
                    y[i] = (v[i] - origin) * factor + offset;
                    through_it[i] = g[i];
                }
                through(activation, through_it, y, count);
                g = grads = through_it;
                if (!at_once) pieces.write(dx + where + at, through_it, many, length);
                total_g += total<R>(count, [=](int64_t i) { return g[i]; });
                total_along += total<R>(count, [=](int64_t i) { return g[i] * (v[i] - origin - mean); });
            } else {
                totals<R>(count, total_g, total_along, [=](int64_t i, R &sum, R &along) {
                    const R apart = v[i] - origin, sent = let_through(g[i], apart);
                    sum += sent, along += sent * (apart - mean);
                });
            }
        });
        sums.take(map, total_g, rstd * total_along);
        const double share = 1 / double(pieces.size());
        const R mean_g = R(total_g * share), slope = R(rstd * rstd * total_along * share);
        pieces.each([&](int64_t at, int64_t many, int64_t length) {
            const int64_t count = many * length;
            if (!at_once) {
                values = pieces.taken(x + where + at, of_x, many, length);
                grads = pieces.taken((curved ? dx : grad) + where + at, of_g, many, length);
            }
            const R *const v = values, *const g = grads;
            if (curved) {
#pragma omp simd
                for (int64_t i = 0; i < count; i++) y[i] = factor * (g[i] - mean_g - (v[i] - origin - mean) * slope);
            } else {
#pragma omp simd
                for (int64_t i = 0; i < count; i++) {
                    const R apart = v[i] - origin, sent = let_through(g[i], apart);
                    y[i] = factor * (sent - mean_g - (apart - mean) * slope);
                }
            }
            pieces.write(dx + where + at, y, many, length);
        });
    });
}

} // namespace
