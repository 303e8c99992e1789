// Mean and squares about it of values that come in parts.
#pragma once

#include <cstdint>

// Join those of another part, of several columns (Chan, Golub and LeVeque, 1979).
template <class R, class Width>
void join(R *mean, R *squares, R before, const R *other_mean, const R *other_squares, R count, Width columns) {
    const R share = count / (before + count);
#pragma omp simd
    for (int64_t c = 0; c < columns; c++) {
        const R apart = other_mean[c] - mean[c], moved = apart * share;
        mean[c] += moved;
        squares[c] += other_squares[c] + moved * before * apart;
    }
}
