// Values moved from rows of positions (contiguous maps) to lines of channels (channels_last), and back, in square blocks
// that are transposed in registers.
#pragma once

#include "maps.h"

namespace transposing {

// A vector of neighbours, as bits: nothing is calculated.
#ifdef __AVX512F__
constexpr int N = 16;
#else
constexpr int N = 8;
#endif
template <class T> struct Vectors {
    using Bits = std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
    typedef Bits Vector __attribute__((vector_size(N * sizeof(T))));
    typedef Bits Unaligned __attribute__((vector_size(N * sizeof(T)), aligned(sizeof(T)), may_alias));
};

// Exchange the blocks of S x S beside the diagonal of each 2S x 2S, for S = N / 2, ..., 1.
template <int S, class Vector> [[gnu::always_inline]] inline void exchange(Vector (&rows)[N]) {
#ifndef __clang__
    Vector upper, lower; // numbers of a pair's elements
    for (int j = 0; j < N; j++) upper[j] = j & S ? N + j - S : j, lower[j] = j & S ? N + j : j + S;
#endif
#pragma GCC unroll 16
    for (int i = 0; i < N; i++)
        if (!(i & S)) {
            const Vector a = rows[i], b = rows[i + S];
#ifdef __clang__ // has no such function
#pragma unroll
            for (int j = 0; j < N; j++) rows[i][j] = j & S ? b[j - S] : a[j], rows[i + S][j] = j & S ? b[j] : a[j + S];
#else
            rows[i] = __builtin_shuffle(a, b, upper);
            rows[i + S] = __builtin_shuffle(a, b, lower);
#endif
        }
    if constexpr (S > 1) exchange<S / 2>(rows);
}

// An N x N block whose rows are `from_row` apart, to columns.
template <class T> void transpose(const T *from, int64_t from_row, T *to, int64_t to_row) {
    typename Vectors<T>::Vector rows[N];
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) rows[i] = *reinterpret_cast<const typename Vectors<T>::Unaligned *>(from + i * from_row);
    exchange<N / 2>(rows);
#pragma GCC unroll 16
    for (int i = 0; i < N; i++) *reinterpret_cast<typename Vectors<T>::Unaligned *>(to + i * to_row) = rows[i];
}

} // namespace transposing

// Copy between rows, `row` apart, of so many channels, and lines, `line` apart, of so many positions.
template <class T>
void transpose_maps(int64_t channels, int64_t positions, T *rows, int64_t row, T *lines, int64_t line, bool to_lines) {
    using transposing::N;
    if (channels < N || positions < N) {
        for (int64_t c = 0; c < channels; c++)
            for (int64_t p = 0; p < positions; p++)
                if (to_lines)
                    lines[p * line + c] = rows[c * row + p];
                else
                    rows[c * row + p] = lines[p * line + c];
        return;
    }
    for (int64_t block = 0; block < channels; block += N)
        for (int64_t span = 0; span < positions; span += N) {
            // The last ones are copied twice where they are fewer than a block.
            const int64_t c = std::min(block, channels - N), p = std::min(span, positions - N);
            T *const of_row = rows + c * row + p, *const of_line = lines + p * line + c;
            if (to_lines)
                transposing::transpose(of_row, row, of_line, line);
            else
                transposing::transpose(of_line, line, of_row, row);
        }
}
