// What a norm does to each value of a map, and the statistics that it comes from.
#pragma once

#include <cmath>
#include <vector>

#include "maps.h"

namespace {

// A map's result is (x - origin) factor + offset, which is as exact as x: the origin is 0 where the mean is so near to it
// that no product is much larger than what comes out, and else the mean, from which x is subtracted without rounding.
template <class R> struct Affine {
    R origin, mean, factor, offset; // mean of x - origin
};

// Deviations that a mean may be from zero and be near.
constexpr double NEAR = 2;

// Of each map, mean (of the differences from its first position) and 1 / deviation, (2, N, C), N being 1 for norms over
// all samples; scale and shift of channels. In double, as a mean near zero is the difference of two numbers that are not.
template <class R> struct Parameters {
    const double *mean, *rstd;
    const R *weight, *bias;

    Parameters(Shape shape, const void *statistics, const void *weight, const void *bias)
        : mean(static_cast<const double *>(statistics)), rstd(mean + shape.samples * shape.channels),
          weight(static_cast<const R *>(weight)), bias(static_cast<const R *>(bias)) {}

    Affine<R> affine(int64_t map, int64_t c, R first) const {
        const double mean_of_x = double(first) + mean[map];
        const bool near = mean[map] != 0 && std::abs(mean_of_x) * rstd[map] <= NEAR; // a flat map is exactly zero
        const R origin = near ? R(0) : R(mean_of_x);
        const double apart = mean_of_x - origin;
        const R factor = R(rstd[map] * (weight ? weight[c] : R(1)));
        return {origin, R(apart), factor, R((bias ? double(bias[c]) : 0) - apart * factor)};
    }
};

// Where statistics go, and averages of mean and unbiased variance that follow those of a batch, if there are any.
template <class R> struct Found {
    double *mean, *rstd;
    R *running_mean, *running_var;
    double eps, momentum;

    void take(int64_t map, R first, double mean_of_map, double squares, int64_t count) const {
        const double var = squares / count + eps;
        mean[map] = mean_of_map;
        // 0, as torch has it, of a flat map, and where squares were too small for R.
        rstd[map] = R(var) <= 0 ? 0 : 1 / std::sqrt(var);
        const auto follow = [=](R *average, double value) {
            if (average) average[map] = R(momentum * value + (1 - momentum) * average[map]);
        };
        follow(running_mean, first + mean_of_map), follow(running_var, squares / (count - 1));
    }
};

// Where sums go of each map, of the gradients of its result and of their products with x_hat, if anybody reads them:
// (2, N, C).
struct Sums {
    double *values;
    int64_t maps;

    void take(int64_t map, double of_g, double along) const {
        if (values) values[map] = of_g, values[maps + map] = along;
    }
};

// body(sums), whose sums over samples are the gradients of shift and scale, either may be left out.
template <class R, class Body> void with_sums(Shape shape, void *to_shift, void *to_scale, int threads, Body body) {
    const int64_t C = shape.channels, maps = shape.samples * C;
    if (!to_shift && !to_scale) return body(Sums{nullptr, maps});
    std::vector<double> values(2 * maps);
    body(Sums{values.data(), maps});
    double *const of_kinds[] = {values.data(), values.data() + maps};
    R *const to[] = {static_cast<R *>(to_shift), static_cast<R *>(to_scale)};
    in_parallel(divided(C, BLOCK), worth(Shape{shape.samples, 1, C}, threads), [=](int64_t block) {
        const int64_t begin = block * BLOCK, end = std::min(begin + BLOCK, C);
        for (int kind = 0; kind < 2; kind++) {
            if (!to[kind]) continue;
            double *const sums = of_kinds[kind];
            for (int64_t n = 1; n < shape.samples; n++)
                for (int64_t c = begin; c < end; c++) sums[c] += sums[n * C + c];
            for (int64_t c = begin; c < end; c++) to[kind][c] = R(sums[c]);
        }
    });
}

} // namespace
