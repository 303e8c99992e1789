// Maps copied from rows of positions (contiguous) to lines of channels (channels_last), and back, in square blocks that
// are transposed in registers.
#include "maps.h"

namespace {

// A vector of neighbours, as bits: nothing is calculated.
#ifdef __AVX512F__
constexpr int N = 16;
#else
constexpr int N = 8;
#endif
template <class T> struct Vectors {
    typedef T Vector __attribute__((vector_size(N * sizeof(T))));
    typedef T Unaligned __attribute__((vector_size(N * sizeof(T)), aligned(sizeof(T)), may_alias));
};

// Exchange the blocks of S x S beside the diagonal of each 2S x 2S, for S = N / 2, ..., 1.
template <int S, class Vector> void exchange(Vector (&rows)[N]) {
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

// Positions of a sample that a thread goes through for a few channels before it takes others, at most.
constexpr int64_t SPAN = 256;

// Between row c, position p and line p, channel c of each sample.
template <class T> void arrange(int threads, Shape shape, T *rows, int64_t sample, Maps<T> lines, bool to_lines) {
    const int64_t samples = shape.samples, positions = shape.positions, channels = shape.channels;
    // As many spans for each thread. In a long one rows are read and written as streams, which processors foresee.
    const int64_t rounds = positions / (SPAN * threads) + 1;
    const int64_t width = (positions / (rounds * threads * N) + 1) * N, spans = divided(positions, width);
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads) if (shape.size() > FEW)
    for (int64_t n = 0; n < samples; n++)
        for (int64_t span = 0; span < spans; span++) {
            const int64_t end = std::min((span + 1) * width, positions);
            for (int64_t c = 0; c < channels; c += N)
                for (int64_t p = span * width; p < end; p += N) {
                    T *const row = rows + n * sample + c * positions + p, *const line = lines.at(n, p) + c;
                    if (c + N <= channels && p + N <= end) {
                        if (to_lines)
                            transpose(row, positions, line, lines.line);
                        else
                            transpose(line, lines.line, row, positions);
                    } else
                        for (int64_t i = 0; i < std::min<int64_t>(N, channels - c); i++)
                            for (int64_t j = 0; j < std::min<int64_t>(N, end - p); j++) {
                                T &of_row = row[i * positions + j], &of_line = line[j * lines.line + i];
                                if (to_lines)
                                    of_line = of_row;
                                else
                                    of_row = of_line;
                            }
                }
        }
}

} // namespace

EXPORT void arrange(SHAPE, MAPS(lines), MAPS(rows), int to_lines) {
    const Shape shape{samples, positions, channels};
    const auto copy = [=](auto zero) {
        using T = decltype(zero);
        arrange(threads, shape, static_cast<T *>(rows_data), rows_sample, AS(T, lines), to_lines);
    };
    dtype ? copy(uint16_t{}) : copy(uint32_t{});
}
