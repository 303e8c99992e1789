// Mean and squares about it of a block of channels, over some of a sample's positions.
#pragma once

#include "channels.h"
#include "join.h"

// Positions whose sums are taken before they join those of all others: few enough to stay in the nearest cache.
constexpr int64_t PART = 64;

// Everything is relative to the first position, so that a flat map is exactly zero.
template <class T> struct Statistics {
    using R = Real<T>;
    R first[BLOCK], mean[BLOCK] = {}, squares[BLOCK] = {};
    R count = 0;

    template <class Width> Statistics(Maps<T> x, int64_t n, int64_t c, Width width) {
#pragma omp simd
        for (int64_t i = 0; i < width; i++) first[i] = read(x.at(n, 0)[c + i]);
    }

    template <class Width> void join(const R *other_mean, const R *other_squares, R other_count, Width width) {
        ::join(mean, squares, count, other_mean, other_squares, other_count, width);
        count += other_count;
    }

    // Take positions begin .. end - 1 in.
    template <class Width> void take(Maps<T> x, int64_t n, int64_t c, Width width, int64_t begin, int64_t end) {
        using Part = Channels<R, Width>;
        for (int64_t from = begin; from < end; from += PART) {
            const int64_t to = std::min(from + PART, end);
            const Part origin(first, width);
            Part sum, squared;
            for (int64_t p = from; p < to; p++) sum = sum + (Part(x.at(n, p) + c, width) - origin);
            const Part mean_of_part = sum * (1 / R(to - from));
            for (int64_t p = from; p < to; p++) {
                const Part centred = Part(x.at(n, p) + c, width) - origin - mean_of_part;
                squared = squared + centred * centred;
            }
            R part_mean[BLOCK], part_squares[BLOCK];
            mean_of_part.to(part_mean);
            squared.to(part_squares);
            join(part_mean, part_squares, R(to - from), width);
        }
    }

    // 1 / sqrt(var + eps), and 0, as torch has it, of a flat map without eps.
    R rstd(int64_t i, double eps) const {
        const R var = squares[i] / count + R(eps);
        return var == 0 ? R(0) : 1 / std::sqrt(var);
    }
};
