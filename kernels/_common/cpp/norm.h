// Batch norms as loops compute them, and what those take of one.
#pragma once

#include <vector>

#include "vectors.h"

inline int64_t in_vectors(int64_t columns) { return divided(columns, LANES) * LANES; }

// A batch norm: y = (x - mean) scale + shift of each column, and zeros that fill the last vector.
template <class R> struct Norm {
    std::vector<R> mean, scale, shift, rstd;

    Norm(int64_t C, const void *mean_, const void *var, const void *weight, const void *bias, double eps)
        : mean(in_vectors(C)), scale(mean), shift(mean), rstd(mean) {
        std::copy_n(static_cast<const R *>(mean_), C, mean.data());
        std::copy_n(static_cast<const R *>(bias), C, shift.data());
        for (int64_t c = 0; c < C; c++) {
            rstd[c] = 1 / std::sqrt(static_cast<const R *>(var)[c] + R(eps));
            scale[c] = static_cast<const R *>(weight)[c] * rstd[c];
        }
    }
};

#define NORM const void *mean, const void *var, const void *weight, const void *bias, double eps
#define AS_NORM(R) Norm<R>(channels, mean, var, weight, bias, eps)
