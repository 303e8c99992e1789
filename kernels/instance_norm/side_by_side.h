// Norms of contiguous maps of few positions, a block of which is gone through side by side.
#pragma once

#include "activation.h"
#include "affine.h"
#include "transpose.h"

namespace {

constexpr int64_t FEW_POSITIONS = 128;

// Position p of map number `lane`: values[p][lane]. Where there are fewer maps than a block, the others are zero.
template <class R> using SideBySide = R[FEW_POSITIONS][BLOCK];

template <class T> void take_side_by_side(const T *from, int64_t maps, int64_t positions, SideBySide<Real<T>> &values) {
    Real<T> buffer[FEW_POSITIONS * BLOCK];
    const Real<T> *const read = real(from, buffer, maps * positions);
    if (maps < BLOCK) std::memset(values, 0, sizeof values);
    transpose_maps(maps, positions, const_cast<Real<T> *>(read), positions, values[0], BLOCK, true);
}

template <class T> void put_side_by_side(T *to, SideBySide<Real<T>> &values, int64_t maps, int64_t positions) {
    Real<T> buffer[FEW_POSITIONS * BLOCK];
    transpose_maps(maps, positions, buffer, positions, values[0], BLOCK, false);
    put(to, buffer, maps * positions);
}

// body(p, lane)
template <class Body> void of_lanes(int64_t positions, Body body) {
    for (int64_t p = 0; p < positions; p++)
#pragma omp simd
        for (int64_t lane = 0; lane < BLOCK; lane++) body(p, lane);
}

// body(map, maps): the first of a block, and how many there are.
template <class Body> void of_blocks_of_maps(Shape shape, int threads, Body body) {
    const int64_t maps = shape.samples * shape.channels;
    in_parallel(divided(maps, BLOCK), worth(shape, threads), [&](int64_t block) {
        body(block * BLOCK, std::min(BLOCK, maps - block * BLOCK));
    });
}

// What does not change from one position to the next.
template <class R> struct Affines {
    R origin[BLOCK] = {}, mean[BLOCK] = {}, factor[BLOCK] = {}, offset[BLOCK] = {};

    void take(int64_t lane, Affine<R> of) {
        origin[lane] = of.origin, mean[lane] = of.mean, factor[lane] = of.factor, offset[lane] = of.offset;
    }
};

template <class T>
void side_by_side_forward(
    Shape shape, const T *x, T *y, Found<Real<T>> found, Parameters<Real<T>> of, Activation activation, int threads
) {
    using R = Real<T>;
    const int64_t positions = shape.positions;
    of_blocks_of_maps(shape, threads, [=](int64_t map, int64_t maps) {
        SideBySide<R> v;
        take_side_by_side(x + map * positions, maps, positions, v);
        R middle[BLOCK];
        double mean[BLOCK] = {}, squares[BLOCK] = {};
        of_lanes(positions, [&](int64_t p, int64_t lane) { mean[lane] += v[p][lane] - v[0][lane]; });
        of_lanes(1, [&](int64_t, int64_t lane) { mean[lane] /= double(positions), middle[lane] = R(mean[lane]); });
        of_lanes(positions, [&](int64_t p, int64_t lane) {
            const R centred = v[p][lane] - v[0][lane] - middle[lane];
            squares[lane] += centred * centred;
        });
        Affines<R> affine;
        for (int64_t lane = 0; lane < maps; lane++) {
            found.take(map + lane, v[0][lane], mean[lane], squares[lane], positions);
            affine.take(lane, of.affine(map + lane, (map + lane) % shape.channels, v[0][lane]));
        }
        of_lanes(positions, [&](int64_t p, int64_t lane) {
            v[p][lane] = (v[p][lane] - affine.origin[lane]) * affine.factor[lane] + affine.offset[lane];
        });
        activate(activation, v[0], positions * BLOCK);
        put_side_by_side(y + map * positions, v, maps, positions);
    });
}

template <class T>
void side_by_side_backward(
    Shape shape, const T *grad, const T *x, T *dx, Parameters<Real<T>> of, Sums sums, Activation activation,
    int threads
) {
    using R = Real<T>;
    const int64_t positions = shape.positions;
    of_blocks_of_maps(shape, threads, [=](int64_t map, int64_t maps) {
        SideBySide<R> v, g, y;
        take_side_by_side(x + map * positions, maps, positions, v);
        take_side_by_side(grad + map * positions, maps, positions, g);
        Affines<R> affine;
        for (int64_t lane = 0; lane < maps; lane++)
            affine.take(lane, of.affine(map + lane, (map + lane) % shape.channels, v[0][lane]));
        of_lanes(positions, [&](int64_t p, int64_t lane) {
            const R apart = v[p][lane] - affine.origin[lane];
            y[p][lane] = apart * affine.factor[lane] + affine.offset[lane], v[p][lane] = apart - affine.mean[lane];
        });
        through(activation, g[0], y[0], positions * BLOCK);
        R total_g[BLOCK] = {}, total_along[BLOCK] = {}, mean_g[BLOCK], slope[BLOCK] = {};
        of_lanes(positions, [&](int64_t p, int64_t lane) {
            total_g[lane] += g[p][lane], total_along[lane] += g[p][lane] * v[p][lane];
        });
        for (int64_t lane = 0; lane < maps; lane++) {
            const double rstd = of.rstd[map + lane], along = rstd * total_along[lane];
            sums.take(map + lane, total_g[lane], along), slope[lane] = R(rstd * along / double(positions));
        }
        of_lanes(1, [&](int64_t, int64_t lane) { mean_g[lane] = total_g[lane] / R(positions); });
        of_lanes(positions, [&](int64_t p, int64_t lane) {
            y[p][lane] = affine.factor[lane] * (g[p][lane] - mean_g[lane] - v[p][lane] * slope[lane]);
        });
        put_side_by_side(dx + map * positions, y, maps, positions);
    });
}

} // namespace
