// Products of matrices of bfloat16 by a processor's tiles (AMX), summed in float. Linux gives them to a process that asks; torch
// does (`of_torch.has_amx`).
#pragma once

#include "product.h"

// AVX-512 as well: vectors are a tile's rows.
#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define HAS_TILES

// A tile has up to 16 rows of 64 bytes: of 16 floats, or of 16 words.
constexpr int64_t SIDE = 16;

// While it lives a thread has eight tiles: four for sums, and for either factor a full one and one of half a depth.
struct Tiles {
    struct alignas(64) Configuration {
        uint8_t palette = 1, start = 0, none[14] = {};
        uint16_t bytes[16] = {64, 64, 64, 64, 64, 32, 64, 64};
        uint8_t rows[16] = {SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE / 2};
    };
    Tiles() {
        const Configuration all;
        asm volatile("ldtilecfg %0" ::"m"(all));
    }
    ~Tiles() { asm volatile("tilerelease"); }
};
template <int TILE> void load_tile(const void *from, int64_t row) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(4 * row), "i"(TILE) : "memory");
}
template <int TILE> void store_tile(void *to, int64_t row) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(4 * row), "i"(TILE) : "memory");
}
template <int TILE> void zero_tile() { asm volatile("tilezero %%tmm%c0" ::"i"(TILE)); }
template <int SUM, int X, int Y> void add_product() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(SUM), "i"(X), "i"(Y));
}

// Add to M x N tiles of sums what X and Y give, of as many tiles of either, which are loaded one after another.
template <int M, int N, int X, int Y>
void add_products(const Pair *x, int64_t row, const Pair *y, int64_t y_row) {
    load_tile<X>(x, row);
    load_tile<Y>(y, y_row);
    add_product<0, X, Y>();
    if constexpr (M == 2) {
        load_tile<X>(x + SIDE * row, row);
        add_product<N, X, Y>();
    }
    if constexpr (N == 2) {
        load_tile<Y>(y + SIDE, y_row);
        add_product<M * N - 1, X, Y>();
    }
    if constexpr (M == 2 && N == 2) {
        load_tile<X>(x, row);
        add_product<1, X, Y>();
    }
}

// A sum of products, as for the three rows of a convolution's taps: x of each is `x_step` further on, y behind the one before.
struct Terms {
    int64_t count, depth; // in words, a multiple of half a tile's
    const Pair *x;
    int64_t row, x_step;
    const Pair *y;
};

template <int M, int N, bool ADD> void sum_tiles(const Terms &terms, int64_t y_row, float *c) {
    const auto of_sums = [&](auto of) {
        of(std::integral_constant<int, 0>(), c);
        if constexpr (N == 2) of(std::integral_constant<int, 1>(), c + SIDE);
        if constexpr (M == 2) of(std::integral_constant<int, N>(), c + SIDE * y_row);
        if constexpr (M == 2 && N == 2) of(std::integral_constant<int, 3>(), c + SIDE * y_row + SIDE);
    };
    of_sums([&](auto tile, float *sums) { ADD ? load_tile<tile>(sums, y_row) : zero_tile<tile>(); });
    const Pair *x = terms.x, *y = terms.y;
    for (int64_t i = 0; i < terms.count; i++, x += terms.x_step, y += terms.depth * y_row) {
        int64_t k = 0;
        for (; k + SIDE <= terms.depth; k += SIDE) add_products<M, N, 4, 6>(x + k, terms.row, y + k * y_row, y_row);
        if (k < terms.depth) add_products<M, N, 5, 7>(x + k, terms.row, y + k * y_row, y_row);
    }
    of_sums([&](auto tile, float *sums) { store_tile<tile>(sums, y_row); });
}

// c = x y, or c += x y, of rows and columns in sixteens; y and c have so many columns.
template <bool ADD> void tile_product(int64_t rows, int64_t columns, Terms terms, float *c) {
    for (int64_t column = 0; column < columns; column += 2 * SIDE, terms.y += 2 * SIDE) {
        const bool wide = columns - column > SIDE;
        Terms of_rows = terms;
        for (int64_t r = 0; r < rows; r += 2 * SIDE, of_rows.x += 2 * SIDE * terms.row) {
            const auto sum = rows - r > SIDE ? wide ? sum_tiles<2, 2, ADD> : sum_tiles<2, 1, ADD>
                                             : wide ? sum_tiles<1, 2, ADD> : sum_tiles<1, 1, ADD>;
            sum(of_rows, columns, c + r * columns + column);
        }
    }
}
#endif
