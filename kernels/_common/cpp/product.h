// Products of matrices that lie in a core's own cache, of floats or of pairs of bfloat16, summed in float.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

#include "vectors.h"

struct Free {
    void operator()(void *memory) const { std::free(memory); }
};
template <class Value> using Memory = std::unique_ptr<Value[], Free>;

// Memory, unwritten, from the beginning of a line of the cache on.
template <class Value> Memory<Value> unwritten(int64_t size) {
    Memory<Value> memory(static_cast<Value *>(std::aligned_alloc(64, divided(size * sizeof(Value), 64) * 64)));
    if (!memory) throw std::bad_alloc();
    return memory;
}

// Two of bfloat16 that are neighbours in depth; they may have been written one at a time.
struct __attribute__((may_alias)) Pair {
    uint32_t bits;
};

// What matrices of T are multiplied as: words of one float or, where the processor multiplies these, a pair.
template <class T> struct Factor {
    using Value = float;
    using Word = float;
    static constexpr int64_t DEEP = 1;
};
#ifdef __AVX512BF16__
template <> struct Factor<BFloat16> {
    using Value = BFloat16;
    using Word = Pair;
    static constexpr int64_t DEEP = 2;
};
inline void store_words(Pair *to, const Vector (&x)[2]) {
    *reinterpret_cast<Unaligned *>(to) = Vector(as_bfloat16(x[0]) | as_bfloat16(x[1]) << 16);
}
inline Vector load(const Pair *from) { return *reinterpret_cast<const Unaligned *>(from); }
inline Vector plus_product(Vector sum, Pair x, Vector y) {
    return Vector(_mm512_dpbf16_ps(__m512(sum), __m512bh(_mm512_set1_epi32(int(x.bits))), __m512bh(y)));
}
#endif
inline void store_words(float *to, const Vector (&x)[1]) { store(to, x[0]); }
inline Vector plus_product(Vector sum, float x, Vector y) { return sum + x * y; }

inline void as_factor(float &to, float x) { to = x; }
inline void as_factor(float &to, BFloat16 x) { to = read(x); }
inline void as_factor(BFloat16 &to, BFloat16 x) { to = x; }

// Neighbours as such values, through ReLU or not.
template <class T> void as_factors(const T *from, bool relu, typename Factor<T>::Value *to, int64_t count) {
    if (relu)
#pragma omp simd
        for (int64_t i = 0; i < count; i++) as_factor(to[i], through_relu(from[i]));
    else
#pragma omp simd
        for (int64_t i = 0; i < count; i++) as_factor(to[i], from[i]);
}

// c = x y, or c += x y, of `R` rows and V vectors; y has `depth` rows of words.
template <int R, int V, bool ADD, class Word>
void few_rows(
    int64_t depth, const Word *x, int64_t row, int64_t step, const Word *y, int64_t y_row, float *c, int64_t c_row
) {
    Vector sums[R][V];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sums[r][v] = Vector{};
    for (int64_t k = 0; k < depth; k++) {
        Vector of_y[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) of_y[v] = load(y + k * y_row + v * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) sums[r][v] = plus_product(sums[r][v], x[r * row + k * step], of_y[v]);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) {
            float *const to = c + r * c_row + v * LANES;
            store(to, ADD ? load(to) + sums[r][v] : sums[r][v]); // at last: sums of parts are off by less
        }
}

template <int R, int V, bool ADD, class Word>
void all_rows(
    int64_t rows, int64_t depth, const Word *x, int64_t row, int64_t step, const Word *y, int64_t y_row, float *c,
    int64_t c_row
) {
    for (; rows >= R; rows -= R, x += R * row, c += R * c_row)
        few_rows<R, V, ADD>(depth, x, row, step, y, y_row, c, c_row);
    if constexpr (R > 1)
        if (rows) all_rows<(R + 1) / 2, V, ADD>(rows, depth, x, row, step, y, y_row, c, c_row);
}

// c = x y, or c += x y; x[i, k] is at x[i * row + k * step], columns are multiples of LANES. As many sums at once as
// registers hold: 24 of AVX-512's 32, 12 of AVX2's 16.
template <bool ADD, class Word>
void product(
    int64_t rows, int64_t columns, int64_t depth, const Word *x, int64_t row, int64_t step, const Word *y, float *c
) {
    for (int64_t column = 0; column < columns;) {
        const int64_t left = (columns - column) / LANES, most = LANES == 16 ? 4 : 2;
        const int64_t vectors = left == most + 1 ? (most + 2) / 2 : std::min(left, most);
        const auto with = [&](auto some_rows) {
            some_rows(rows, depth, x, row, step, y + column, columns, c + column, columns);
        };
        if constexpr (LANES == 16)
            switch (vectors) {
            case 1: with(all_rows<14, 1, ADD, Word>); break;
            case 2: with(all_rows<12, 2, ADD, Word>); break;
            case 3: with(all_rows<8, 3, ADD, Word>); break;
            case 4: with(all_rows<6, 4, ADD, Word>); break;
            }
        else if (vectors == 1)
            with(all_rows<10, 1, ADD, Word>);
        else
            with(all_rows<6, 2, ADD, Word>);
        column += vectors * LANES;
    }
}
