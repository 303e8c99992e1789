// 3x3 convolutions of channels_last maps for a quarter of the multiplications: Winograd's F(4x4, 3x3).
//
// A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", 2015 (arXiv 1509.09308). A tile y of 4x4
// results depends on a patch d of 6x6 inputs, around it, and with the taps w it is
//
//     y = A^T [(G w G^T) . (B^T d B)] A          (. is elementwise: 36 multiplications instead of 144)
//
// Channels are summed between the brackets, so that each of the 36 points is a product of matrices, (tiles x channels in)
// by (channels in x channels out). The gradient of d is the same convolution with the taps turned round; that of w is
//
//     G^T [(A dy A^T) . (B^T d B)] G             (summed over tiles between the brackets)
//
// The matrices interpolate polynomials at 0, a, -a, b, -b and infinity. With a = 1/sqrt(2) and b = sqrt(2) = 2 a
// results are off by a quarter of what they are with 1 and 2, which the paper has.
//
//          1   0  -5/2  0   1  0               1       0      0
//          0  -b  -2    a   1  0             -2/3  -2/3 a   -1/3               1   1    1    1    1   0
//    B^T = 0   b  -2   -a   1  0         G = -2/3   2/3 a   -1/3         A^T = 0   a   -a    b   -b   0
//          0  -a  -1/2  b   1  0              1/6   1/6 b    1/3               0  1/2  1/2   2    2   0
//          0   a  -1/2 -b   1  0              1/6  -1/6 b    1/3               0  a/2 -a/2  2b  -2b   1
//          0   1   0  -5/2  0  1               0       0      1
//
// Tiles are taken so few at a time that what belongs to them stays in a core's own cache. No result depends on how many
// threads there are. Maps and taps are float or bfloat16, all that is between them is float.
#include <cstdlib>
#include <memory>
#include <vector>

#include "maps.h"

namespace {

constexpr int TILE = 4, PATCH = 6, TAPS = 3, POINTS = PATCH * PATCH;
constexpr float a = 0.707106781186547524f, b = 2 * a;

// At most so many tiles are taken together.
constexpr int64_t TOGETHER = 48;

inline int64_t divided(int64_t number, int64_t by) { return (number + by - 1) / by; } // and rounded up

// Channels of a vector.
#ifdef __AVX512F__
constexpr int64_t LANES = 16;
#else
constexpr int64_t LANES = 8;
#endif
typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
inline Vector load(const float *from) { return *reinterpret_cast<const Unaligned *>(from); }
inline void store(float *to, Vector x) { *reinterpret_cast<Unaligned *>(to) = x; }

// bfloat16, converted as in maps.h.
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));
typedef uint16_t UnalignedHalves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
inline Vector load(const BFloat16 *from) {
    const Halves halves = *reinterpret_cast<const UnalignedHalves *>(from);
    return Vector(__builtin_convertvector(halves, Bits) << 16);
}
inline void store(BFloat16 *to, Vector x) {
    const Bits bits = Bits(x), nearest_even = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    const Bits result = x != x ? Bits{} + 0x7fc0u : nearest_even;
    *reinterpret_cast<UnalignedHalves *>(to) = __builtin_convertvector(result, Halves);
}

// Products of one side's matrix with a column of vectors; results may be `step` vectors apart, as may what is read.
struct Column {
    Vector *of;
    int step;
    Vector &operator[](int i) const { return of[i * step]; }
};

// Each +-a and +-b together: `even` and `odd` are a row's terms of even and of odd powers.
inline void pair(Column to, int first, Vector even, Vector odd) {
    to[first] = even + odd;
    to[first + 1] = even - odd;
}

struct B_T {
    static constexpr int from = PATCH, to = PATCH;
    static void times(Column d, Column out) {
        out[0] = d[0] - 2.5f * d[2] + d[4];
        pair(out, 1, d[4] - 2.f * d[2], a * d[3] - b * d[1]);
        pair(out, 3, d[4] - .5f * d[2], b * d[3] - a * d[1]);
        out[5] = d[1] - 2.5f * d[3] + d[5];
    }
};

struct A_T {
    static constexpr int from = PATCH, to = TILE;
    static void times(Column m, Column out) {
        const Vector even_a = m[1] + m[2], odd_a = m[1] - m[2], even_b = m[3] + m[4], odd_b = m[3] - m[4];
        out[0] = m[0] + even_a + even_b;
        out[1] = a * odd_a + b * odd_b;
        out[2] = .5f * even_a + 2.f * even_b;
        out[3] = a / 2 * odd_a + 2 * b * odd_b + m[5];
    }
};

struct A {
    static constexpr int from = TILE, to = PATCH;
    static void times(Column y, Column out) {
        out[0] = y[0];
        pair(out, 1, y[0] + .5f * y[2], a * y[1] + a / 2 * y[3]);
        pair(out, 3, y[0] + 2.f * y[2], b * y[1] + 2 * b * y[3]);
        out[5] = y[3];
    }
};

struct G {
    static constexpr int from = TAPS, to = PATCH;
    static void times(Column w, Column out) {
        out[0] = w[0];
        pair(out, 1, -2.f / 3 * w[0] - 1.f / 3 * w[2], -2 * a / 3 * w[1]);
        pair(out, 3, 1.f / 6 * w[0] + 1.f / 3 * w[2], b / 6 * w[1]);
        out[5] = w[2];
    }
};

struct G_T {
    static constexpr int from = PATCH, to = TAPS;
    static void times(Column u, Column out) {
        const Vector even_a = u[1] + u[2], odd_a = u[1] - u[2], even_b = u[3] + u[4], odd_b = u[3] - u[4];
        out[0] = u[0] - 2.f / 3 * even_a + 1.f / 6 * even_b;
        out[1] = b / 6 * odd_b - 2 * a / 3 * odd_a;
        out[2] = 1.f / 3 * even_b - 1.f / 3 * even_a + u[5];
    }
};

// put(i, x) of what becomes of get(i) between a matrix and its transpose.
template <class Matrix, class Get, class Put> void transform(Get get, Put put) {
    constexpr int from = Matrix::from, to = Matrix::to;
    Vector x[from * from], half[to * from], y[to * to];
#pragma GCC unroll 36
    for (int i = 0; i < from * from; i++) x[i] = get(i);
#pragma GCC unroll 6
    for (int j = 0; j < from; j++) Matrix::times({x + j, from}, {half + j, from});
#pragma GCC unroll 6
    for (int i = 0; i < to; i++) Matrix::times({half + i * from, 1}, {y + i * to, 1});
#pragma GCC unroll 36
    for (int i = 0; i < to * to; i++) put(i, y[i]);
}

struct Free {
    void operator()(float *memory) const { std::free(memory); }
};

// A matrix for each point. Between them lies a line of the cache, or all points of a place would share few of its sets.
struct Points {
    int64_t rows, columns, apart = rows * columns + LANES;
    std::unique_ptr<float[], Free> memory{static_cast<float *>(std::aligned_alloc(64, POINTS * apart * sizeof(float)))};
    float *at(int point, int64_t row, int64_t column = 0) const {
        return memory.get() + point * apart + row * columns + column;
    }
};

// c = x y, or c += x y, of `R` rows and V vectors; y has `depth` rows.
template <int R, int V, bool ADD>
void few_rows(
    int64_t depth, const float *x, int64_t row, int64_t step, const float *y, int64_t y_row, float *c, int64_t c_row
) {
    Vector sums[R][V];
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) sums[r][v] = ADD ? load(c + r * c_row + v * LANES) : Vector{};
    for (int64_t k = 0; k < depth; k++) {
        Vector of_y[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) of_y[v] = load(y + k * y_row + v * LANES);
#pragma GCC unroll 16
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) sums[r][v] += x[r * row + k * step] * of_y[v];
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++) store(c + r * c_row + v * LANES, sums[r][v]);
}

template <int R, int V, bool ADD>
void all_rows(
    int64_t rows, int64_t depth, const float *x, int64_t row, int64_t step, const float *y, int64_t y_row, float *c,
    int64_t c_row
) {
    for (; rows >= R; rows -= R, x += R * row, c += R * c_row)
        few_rows<R, V, ADD>(depth, x, row, step, y, y_row, c, c_row);
    if constexpr (R > 1)
        if (rows) all_rows<(R + 1) / 2, V, ADD>(rows, depth, x, row, step, y, y_row, c, c_row);
}

// c = x y, or c += x y; x[i, k] is at x[i * row + k * step]. As many sums at once as registers hold: 24 of AVX-512's 32, 12 of AVX2's 16.
template <bool ADD>
void product(
    int64_t rows, int64_t columns, int64_t depth, const float *x, int64_t row, int64_t step, const float *y, float *c
) {
    for (int64_t column = 0; column < columns;) {
        const int64_t left = (columns - column) / LANES, most = LANES == 16 ? 4 : 2;
        const int64_t vectors = left == most + 1 ? (most + 2) / 2 : std::min(left, most);
        const auto with = [&](auto some_rows) {
            some_rows(rows, depth, x, row, step, y + column, columns, c + column, columns);
        };
        if constexpr (LANES == 16)
            switch (vectors) {
            case 1: with(all_rows<14, 1, ADD>); break;
            case 2: with(all_rows<12, 2, ADD>); break;
            case 3: with(all_rows<8, 3, ADD>); break;
            case 4: with(all_rows<6, 4, ADD>); break;
            }
        else if (vectors == 1)
            with(all_rows<10, 1, ADD>);
        else
            with(all_rows<6, 2, ADD>);
        column += vectors * LANES;
    }
}

// Maps whose positions are rows and columns.
template <class T> struct Image {
    Maps<T> maps;
    int64_t height, width;
};

// Tiles of 4x4 positions that cover maps.
struct Tiles {
    int64_t samples, height, width, down = divided(height, TILE), across = divided(width, TILE);
    int64_t count() const { return samples * down * across; }

    // Where SIDE x SIDE positions have their channels, the first of them `before` positions before the tile's, up and to the
    // left, in maps which may have another size than those that are covered: `outside` beyond them.
    template <int SIDE, class T> void find(T **places, Image<T> in, int64_t tile, int64_t before, T *outside) const {
        const int64_t n = tile / (down * across);
        const int64_t top = tile / across % down * TILE - before, left = tile % across * TILE - before;
        for (int64_t i = top; i < top + SIDE; i++)
            for (int64_t j = left; j < left + SIDE; j++) {
                T *const place = in.maps.at(n, i * in.width + j);
                *places++ = i >= 0 && i < in.height && j >= 0 && j < in.width ? place : outside;
                __builtin_prefetch(place + TILE * in.maps.line); // of the next tile: no processor foresees it in a stack
            }
    }
};

// B^T d B of a tile's patch into a row of the points; ReLU lets through what is not a number.
template <bool RELU, class T> void patch_to_points(T *const *places, const Points &to, int64_t row) {
    for (int64_t c = 0; c < to.columns; c += LANES)
        transform<B_T>(
            [=](int i) {
                const Vector x = load(places[i] + c);
                return RELU ? (x < 0.f ? Vector{} : x) : x;
            },
            [&](int i, Vector x) { store(to.at(i, row, c), x); }
        );
}

// G w G^T for taps (O, 3, 3, C) of a convolution of `to.rows` maps into `to.columns`, for `LANES` of C and of O.
template <class T>
void taps_to_points(const T *taps, int64_t C, int64_t o, int64_t c, bool turned, const Points &to) {
    float at[TAPS * TAPS][LANES][LANES];
    for (int l = 0; l < LANES; l++)
        for (int i = 0; i < TAPS * TAPS; i++)
            for (int k = 0; k < LANES; k++) {
                const float tap = read(taps[((o + l) * TAPS * TAPS + i) * C + c + k]);
                if (turned)
                    at[TAPS * TAPS - 1 - i][l][k] = tap;
                else
                    at[i][k][l] = tap;
            }
    const int64_t row = turned ? o : c, column = turned ? c : o;
    for (int k = 0; k < LANES; k++)
        transform<G>(
            [&](int i) { return load(at[i][k]); }, [&](int i, Vector u) { store(to.at(i, row + k, column), u); }
        );
}

// y = w * x + bias, or y += w * x + bias, where w is `taps`, turned round or not, and x is padded, and ReLU(x) or not.
template <bool TURNED, class T>
void convolution(
    int threads, int64_t samples, Image<T> x, int64_t in, int64_t padding, bool relu, const T *taps, const T *bias,
    bool add, Image<T> y, int64_t out
) {
    const Tiles tiles{samples, y.height, y.width};
    const int64_t C = TURNED ? out : in, O = TURNED ? in : out;
    // As many parts for each thread, or all would wait for one of them.
    const int64_t rounds = divided(divided(tiles.count(), TOGETHER), threads);
    const int64_t together = divided(tiles.count(), rounds * threads);
    const Points of_taps{in, out};
#pragma omp parallel num_threads(threads) if (tiles.count() * in > FEW)
    {
#pragma omp for collapse(2) schedule(static)
        for (int64_t o = 0; o < O; o += LANES)
            for (int64_t c = 0; c < C; c += LANES) taps_to_points(taps, C, o, c, TURNED, of_taps);
        const Points of_x{together, in}, of_y{together, out};
        std::vector<T> zeros(in), unread(out);
        T *places[POINTS];
#pragma omp for schedule(static)
        for (int64_t first = 0; first < tiles.count(); first += together) {
            const int64_t count = std::min(together, tiles.count() - first);
            for (int64_t t = 0; t < count; t++) {
                tiles.find<PATCH>(places, x, first + t, padding, zeros.data());
                (relu ? patch_to_points<true, T> : patch_to_points<false, T>)(places, of_x, t);
            }
            for (int i = 0; i < POINTS; i++)
                product<false>(count, out, in, of_x.at(i, 0), in, 1, of_taps.at(i, 0), of_y.at(i, 0));
            for (int64_t t = 0; t < count; t++) {
                tiles.find<TILE>(places, y, first + t, 0, unread.data());
                for (int64_t c = 0; c < out; c += LANES)
                    transform<A_T>(
                        [&](int i) { return load(of_y.at(i, t, c)); },
                        [&](int i, Vector sum) {
                            if (add) sum += load(places[i] + c);
                            if (bias) sum += load(bias + c);
                            store(places[i] + c, sum);
                        }
                    );
            }
        }
    }
}

// The gradient of taps, (O, 3, 3, C).
template <class T>
void taps_gradient(
    int threads, int64_t samples, Image<T> x, int64_t C, int64_t padding, bool relu, Image<T> grad_y, int64_t O, T *grad
) {
    const Tiles tiles{samples, grad_y.height, grad_y.width};
    const Points of_x{TOGETHER, C}, of_y{TOGETHER, O}, of_taps{O, C};
    std::fill_n(of_taps.at(0, 0), POINTS * of_taps.apart, 0.f);
#pragma omp parallel num_threads(threads) if (tiles.count() * C > FEW)
    {
        std::vector<T> zeros(std::max(C, O));
        T *places[POINTS];
        for (int64_t first = 0; first < tiles.count(); first += TOGETHER) {
            const int64_t count = std::min(TOGETHER, tiles.count() - first);
#pragma omp for schedule(static)
            for (int64_t t = 0; t < count; t++) {
                tiles.find<PATCH>(places, x, first + t, padding, zeros.data());
                (relu ? patch_to_points<true, T> : patch_to_points<false, T>)(places, of_x, t);
                tiles.find<TILE>(places, grad_y, first + t, 0, zeros.data());
                for (int64_t o = 0; o < O; o += LANES)
                    transform<A>(
                        [&](int i) { return load(places[i] + o); },
                        [&](int i, Vector x) { store(of_y.at(i, t, o), x); }
                    );
            }
#pragma omp for schedule(static)
            for (int i = 0; i < POINTS; i++)
                product<true>(O, C, count, of_y.at(i, 0), 1, O, of_x.at(i, 0), of_taps.at(i, 0));
        }
#pragma omp for collapse(2) schedule(static)
        for (int64_t o = 0; o < O; o++)
            for (int64_t c = 0; c < C; c += LANES)
                transform<G_T>(
                    [&](int i) { return load(of_taps.at(i, o, c)); },
                    [&](int i, Vector x) { store(grad + (o * TAPS * TAPS + i) * C + c, x); }
                );
    }
}

} // namespace

// Compute with the dtype's T, float or bfloat16, and the image x of these positions and the image y of `out` maps that its
// convolution gives, padded by so much on each side.
#define FOR_IMAGES(of_x, of_y, ...)                                                                                    \
    const auto compute = [=](auto zero) {                                                                              \
        using T = decltype(zero);                                                                                      \
        const int64_t height = positions / width, more = 2 * padding - (TAPS - 1);                                     \
        const Image<T> x{AS(T, of_x), height, width}, y{AS(T, of_y), height + more, width + more};                     \
        __VA_ARGS__;                                                                                                   \
    };                                                                                                                 \
    dtype ? compute(BFloat16{}) : compute(float{})

// y = taps * x + bias, or y += taps * x + bias, where x may go through ReLU; bias may be null, taps are (out, 3, 3,
// channels).
EXPORT void conv2d(
    SHAPE, MAPS(x), MAPS(y), int64_t width, int64_t out, int64_t padding, int relu, void *taps, void *bias, int add
) {
    FOR_IMAGES(x, y, convolution<false, T>(
        threads, samples, x, channels, padding, relu, static_cast<T *>(taps), static_cast<T *>(bias), add, y, out
    ));
}

// The gradient of x, or of ReLU(x), (.., channels), from that of y, (.., out).
EXPORT void conv2d_backward_input(
    SHAPE, MAPS(grad_x), MAPS(grad_y), int64_t width, int64_t out, int64_t padding, void *taps
) {
    FOR_IMAGES(grad_x, grad_y, convolution<true, T>(
        threads, samples, y, out, TAPS - 1 - padding, false, static_cast<T *>(taps), nullptr, false, x, channels
    ));
}

// The gradient of taps, (out, 3, 3, channels), where x may go through ReLU.
EXPORT void conv2d_backward_taps(
    SHAPE, MAPS(x), MAPS(grad_y), int64_t width, int64_t out, int64_t padding, int relu, void *grad
) {
    FOR_IMAGES(x, grad_y, taps_gradient<T>(
        threads, samples, x, channels, padding, relu, y, out, static_cast<T *>(grad)
    ));
}
