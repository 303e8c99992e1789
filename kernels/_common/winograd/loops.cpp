// 3x3 convolutions of channels_last maps for a quarter or a sixth of the multiplications: Winograd's F(4x4, 3x3) and
// F(8x8, 3x3).
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
// The matrices interpolate polynomials at nodes q: 0, p, -p, 1/p and -1/p for one p or two, and infinity. A row of G are
// powers of q over the product of its differences from the other nodes, a row of B^T the coefficients of the product of
// x minus each other node, a column of A^T powers of q; for infinity only the highest counts. With p = a = 1/sqrt(2) and
// 1/p = b = sqrt(2) = 2 a results are off by a quarter of what they are with 1 and 2, which the paper has:
//
//          1   0  -5/2  0   1  0               1       0      0
//          0  -b  -2    a   1  0             -2/3  -2/3 a   -1/3               1   1    1    1    1   0
//    B^T = 0   b  -2   -a   1  0         G = -2/3   2/3 a   -1/3         A^T = 0   a   -a    b   -b   0
//          0  -a  -1/2  b   1  0              1/6   1/6 b    1/3               0  1/2  1/2   2    2   0
//          0   a  -1/2 -b   1  0              1/6  -1/6 b    1/3               0  a/2 -a/2  2b  -2b   1
//          0   1   0  -5/2  0  1               0       0      1
//
// Tiles of 8x8 take 100 multiplications for 64 results, 1.44 times fewer, and lose up to 1e-4 of the largest result with the
// best p, 2/5 and 4/5: too much for float, and nothing for bfloat16, which rounds a result by up to 2e-3 of itself.
//
// Tiles are taken so few at a time that what belongs to them stays in a core's own cache. No result depends on how many
// threads there are. Maps and taps are float or bfloat16, all that is between them is float.
//
// Contiguous maps of images are made channels_last, or made of such, a band of rows at a time, in the cache.
#include <optional>
#include <vector>

#include "convolution.h"
#include "norm.h"
#include "product.h"
#include "transpose.h"

namespace {

constexpr int TAPS = 3;

// Products of one side's matrix with a column of vectors; results may be `step` vectors apart, as may what is read.
struct Column {
    Vector *of;
    int step;
    Vector &operator[](int i) const { return of[i * step]; }
};

// Nodes p and -p together: `even` and `odd` are the terms of p's row of even and of odd powers, these over p.
inline void pair(Column to, int i, Vector even, float p, Vector odd) {
    to[2 * i + 1] = even + p * odd;
    to[2 * i + 2] = even - p * odd;
}

template <int TILE> struct Nodes;
template <> struct Nodes<4> { static constexpr double p[] = {0.707106781186547524}; };
template <> struct Nodes<8> { static constexpr double p[] = {.4, .8}; };

// Of the nodes in pairs, one for each p and then one for each 1/p: their powers, and their rows of G.
template <int TILE> struct Numbers {
    static constexpr int PAIRS = TILE / 2, INVERSE = PAIRS / 2;
    float power[PAIRS][TILE] = {}, taps[PAIRS][TAPS] = {};

    constexpr Numbers() {
        double node[PAIRS] = {};
        for (int i = 0; i < INVERSE; i++) node[INVERSE + i] = 1 / (node[i] = Nodes<TILE>::p[i]);
        for (int i = 0; i < PAIRS; i++) {
            const double square = node[i] * node[i];
            double differences = 2 * square; // from 0 and -p; those from the other pairs:
            for (int j = 0; j < PAIRS; j++)
                if (j != i) differences *= square - node[j] * node[j];
            double x = 1;
            for (int j = 0; j < TILE; j++, x *= node[i]) {
                power[i][j] = float(x);
                if (j < TAPS) taps[i][j] = float(x / differences);
            }
        }
    }
};
template <int TILE> constexpr Numbers<TILE> NUMBERS{};

// F(TILE x TILE, 3x3).
template <int SIDE> struct Winograd {
    static constexpr int TILE = SIDE, PATCH = TILE + TAPS - 1, POINTS = PATCH * PATCH;
    static constexpr int PAIRS = Numbers<TILE>::PAIRS, INVERSE = Numbers<TILE>::INVERSE;
    // So many tiles are taken together, fewer or more where channels ask for it.
    static constexpr int64_t TOGETHER = TILE == 4 ? 48 : 32;

    static constexpr float power(int i, int exponent) { return NUMBERS<TILE>.power[i][exponent]; }

    // The product of (x - q) for p, -p, 1/p and -1/p, where d has the coefficients of 1, x^2 and x^4.
    static Vector times_both(int i, Vector d0, Vector d2, Vector d4) {
        return d0 + d4 - (power(i, 2) + power(i + INVERSE, 2)) * d2;
    }
    // The product for all other p, of the coefficients from d[at] on.
    static Vector times_others(int i, Column d, int at) {
        return INVERSE == 1 ? d[at] : times_both(1 - i, d[at], d[at + 2], d[at + 4]);
    }

    struct B_T {
        static constexpr int from = PATCH, to = PATCH;
        [[gnu::always_inline]] static void times(Column d, Column out) {
            const auto all = [=](int at) {
                return times_both(0, times_others(0, d, at), times_others(0, d, at + 2), times_others(0, d, at + 4));
            };
            out[0] = all(0);
            out[PATCH - 1] = all(1);
            const auto pair_of = [=](int i, int p, int inverse) {
                const float square = power(inverse, 2);
                const Vector even = times_others(i, d, 4) - square * times_others(i, d, 2);
                const Vector odd = times_others(i, d, 3) - square * times_others(i, d, 1);
                pair(out, p, even, power(p, 1), odd);
            };
#pragma GCC unroll 2
            for (int i = 0; i < INVERSE; i++) {
                pair_of(i, i, i + INVERSE);
                pair_of(i, i + INVERSE, i);
            }
        }
    };

    struct A_T {
        static constexpr int from = PATCH, to = TILE;
        [[gnu::always_inline]] static void times(Column m, Column out) {
            Vector of_pairs[2][PAIRS];
#pragma GCC unroll 4
            for (int i = 0; i < PAIRS; i++) {
                of_pairs[0][i] = m[2 * i + 1] + m[2 * i + 2];
                of_pairs[1][i] = m[2 * i + 1] - m[2 * i + 2];
            }
#pragma GCC unroll 8
            for (int j = 0; j < TILE; j++) {
                Vector y = power(0, j) * of_pairs[j % 2][0];
#pragma GCC unroll 4
                for (int i = 1; i < PAIRS; i++) y += power(i, j) * of_pairs[j % 2][i];
                out[j] = j == 0 ? y + m[0] : j == TILE - 1 ? y + m[PATCH - 1] : y;
            }
        }
    };

    struct A {
        static constexpr int from = TILE, to = PATCH;
        [[gnu::always_inline]] static void times(Column y, Column out) {
            out[0] = y[0];
            out[PATCH - 1] = y[TILE - 1];
#pragma GCC unroll 4
            for (int i = 0; i < PAIRS; i++) {
                Vector even = y[0], odd = y[1];
#pragma GCC unroll 4
                for (int j = 2; j < TILE; j += 2) {
                    even += power(i, j) * y[j];
                    odd += power(i, j) * y[j + 1];
                }
                pair(out, i, even, power(i, 1), odd);
            }
        }
    };

    struct G {
        static constexpr int from = TAPS, to = PATCH;
        [[gnu::always_inline]] static void times(Column w, Column out) {
            out[0] = w[0];
            out[PATCH - 1] = w[2];
#pragma GCC unroll 4
            for (int i = 0; i < PAIRS; i++) {
                const float *const row = NUMBERS<TILE>.taps[i];
                pair(out, i, row[0] * w[0] + row[2] * w[2], row[1], w[1]);
            }
        }
    };

    struct G_T {
        static constexpr int from = PATCH, to = TAPS;
        [[gnu::always_inline]] static void times(Column u, Column out) {
            Vector w0 = u[0], w1{}, w2 = u[PATCH - 1];
#pragma GCC unroll 4
            for (int i = 0; i < PAIRS; i++) {
                const Vector even = u[2 * i + 1] + u[2 * i + 2], odd = u[2 * i + 1] - u[2 * i + 2];
                w0 += NUMBERS<TILE>.taps[i][0] * even;
                w1 += NUMBERS<TILE>.taps[i][1] * odd;
                w2 += NUMBERS<TILE>.taps[i][2] * even;
            }
            out[0] = w0;
            out[1] = w1;
            out[2] = w2;
        }
    };
};

// put(i, x) of what becomes of get(i) between a matrix and its transpose, which compilers are told to write out here: of a
// large source they do not always. Registers hold a patch of 6x6, and none of 10x10.
template <class Matrix, class Get, class Put> void transform(Get get, Put put) {
    constexpr int from = Matrix::from, to = Matrix::to;
    Vector half[to * from];
#pragma GCC unroll 6
    for (int j = 0; j < from; j++) {
        Vector x[from];
#pragma GCC unroll 10
        for (int i = 0; i < from; i++) x[i] = get(i * from + j);
        Matrix::times({x, 1}, {half + j, from});
    }
#pragma GCC unroll 6
    for (int i = 0; i < to; i++) {
        Vector y[to];
        Matrix::times({half + i * from, 1}, {y, 1});
#pragma GCC unroll 10
        for (int j = 0; j < to; j++) put(i * to + j, y[j]);
    }
}

// Memory that a thread keeps for its next convolution: to get fresh pages takes longer than to fill them.
enum Use { TAPS_IN_POINTS, X_IN_POINTS, Y_IN_POINTS, X_IN_LINES, Y_IN_LINES, USES };
inline float *kept(Use use, int64_t size) {
    thread_local struct {
        Memory<float> memory;
        int64_t size = 0;
    } all[USES];
    auto &[memory, before] = all[use];
    if (before < size) {
        memory.reset(); // first, so that there is never both
        memory = unwritten<float>(size);
        before = size;
    }
    return memory.get();
}

// A matrix for each point. Between them lies a line of the cache, or all points of a place would share few of its sets.
struct Points {
    Use use;
    int64_t points, rows, columns, apart = rows * columns + LANES;
    float *memory = kept(use, points * apart);
    float *at(int point, int64_t row, int64_t column = 0) const {
        return memory + point * apart + row * columns + column;
    }
};

// How a convolution sees what it reads: what is beyond its edges, and whether each value stands for 2x2.
enum Edges { ZEROS, REFLECTED, REPLICATED };
struct Sight {
    int64_t edges = ZEROS, doubled = 0;

    int64_t seen(int64_t size) const { return size << doubled; }

    // The row or column of so many that is seen at i, where `around` more on each side are seen; -1: zeros.
    int64_t source(int64_t i, int64_t size, int64_t around) const {
        const int64_t last = seen(size) - 1, inside = std::min(std::max<int64_t>(i, 0), last);
        if (i == inside) return i >> doubled;
        if (edges == ZEROS || i < -around || i > last + around) return -1;
        return (edges == REFLECTED ? 2 * inside - i : inside) >> doubled;
    }
};

// Maps whose positions are slices of rows and columns; of an image there is one slice.
template <class T> struct Image {
    Maps<T> maps; // without lines where they are contiguous
    int64_t depth, height, width;
    Sight sight = {};
    bool in_rows() const { return maps.line == 0; }
};

// Rows of an image, of all samples, numbered through.
struct Rows {
    int64_t begin, end;
};

// Positions whose lines are copied together where nothing asks for more.
constexpr int64_t SPAN = 128;

// Rows of contiguous maps as lines, in memory that a thread keeps.
template <class T> struct Band {
    Image<T> image;
    int64_t channels;
    Rows rows;
    T *memory;

    Band(Use use, Image<T> image, int64_t channels, Rows rows)
        : image(image), channels(channels), rows(rows),
          memory(reinterpret_cast<T *>(kept(use, (rows.end - rows.begin) * image.width * channels))) {}

    // Its lines where those of the whole image would be.
    Image<T> lines() const {
        const int64_t row = image.width * channels;
        return {{memory - rows.begin * row, image.height * row, channels}, 1, image.height, image.width, image.sight};
    }

    void copy(bool to_lines) const {
        const auto [data, sample, _] = image.maps;
        const int64_t height = image.height, width = image.width, row = width * channels;
        for (int64_t n = rows.begin / height; n * height < rows.end; n++) {
            const int64_t begin = std::max(rows.begin, n * height), end = std::min(rows.end, (n + 1) * height);
            transpose_maps(
                channels, (end - begin) * width, data + n * sample + (begin - n * height) * width, height * width,
                memory + (begin - rows.begin) * row, channels, to_lines
            );
        }
    }
};

// Taps of a convolution, 3x3 in each of `depth` slices, and zeros that surround what it reads, in depth and in a slice.
struct Taps {
    int64_t depth, before, around;
    Taps turned() const { return {depth, depth - 1 - before, TAPS - 1 - around}; }
};

// Taps (out, depth, 3, 3, channels), or in rows (out, channels, depth, 3, 3), of the maps' type T or of float.
enum Lie { IN_ROWS = 1, IN_FLOAT = 2 };
template <class T> struct TapMaps {
    void *data;
    int64_t lie, depth, channels;

    // of(i, k, tap) for each tap i in a slice of the channels c + k, of `LANES`.
    template <class Of> void each(int64_t o, int64_t slice, int64_t c, Of of) const {
        lie & IN_FLOAT ? each(static_cast<float *>(data), o, slice, c, of) : each(static_cast<T *>(data), o, slice, c, of);
    }

    template <class W, class Of> void each(W *taps, int64_t o, int64_t slice, int64_t c, Of of) const {
        constexpr int64_t SLICE = TAPS * TAPS;
        taps += o * depth * SLICE * channels;
        W *const row = taps + (c * depth + slice) * SLICE, *const line = taps + slice * SLICE * channels + c;
        if (lie & IN_ROWS)
            for (int k = 0; k < LANES; k++)
                for (int i = 0; i < SLICE; i++) of(i, k, row[k * depth * SLICE + i]);
        else
            for (int i = 0; i < SLICE; i++)
                for (int k = 0; k < LANES; k++) of(i, k, line[i * channels + k]);
    }
};

// Columns of tiles, TILE x TILE positions of each slice, which cover maps; some columns, and slices, are worked on together.
template <int TILE> struct Tiles {
    int64_t samples, depth, height, width, down = divided(height, TILE), across = divided(width, TILE);
    int64_t columns() const { return samples * down * across; }
    int64_t positions() const { return samples * depth * height * width; }

    // Where SIDE x SIDE positions have their channels, the first of them `around` positions before the tile's, up and to the
    // left, in a slice of maps which may have another size than those that are covered: `outside` beyond them.
    template <int SIDE, class T>
    void find(T **places, Image<T> in, int64_t column, int64_t slice, int64_t around, T *outside) const {
        const int64_t n = column / (down * across);
        const int64_t top = column / across % down * TILE - around, left = column % across * TILE - around;
        const int64_t after = next(in);
        int64_t columns[SIDE];
        for (int j = 0; j < SIDE; j++) columns[j] = in.sight.source(left + j, in.width, around);
        for (int64_t i = top; i < top + SIDE; i++) {
            const int64_t row = in.sight.source(i, in.height, around);
            const bool inside = slice >= 0 && slice < in.depth && row >= 0;
            T *const first = in.maps.at(n, (slice * in.height + row) * in.width);
            for (int j = 0; j < SIDE; j++) {
                T *const place = inside && columns[j] >= 0 ? first + columns[j] * in.maps.line : outside;
                *places++ = place;
                __builtin_prefetch(place + after); // of the next tile: no processor foresees it in a stack
            }
        }
    }

    // Rows of an image in which `count` tiles have SIDE x SIDE positions, as `find` finds them.
    template <int SIDE, class T> Rows rows(Image<T> in, int64_t column, int64_t count, int64_t around) const {
        const int64_t end = column + count - 1, tall = in.sight.seen(in.height);
        const auto row = [=](int64_t t, int64_t below) {
            const int64_t i = std::max<int64_t>(t / across % down * TILE - around + below, 0);
            return t / (down * across) * in.height + in.sight.source(std::min(i, tall - 1), in.height, 0);
        };
        return {row(column, 0), row(end, SIDE - 1) + 1};
    }

    // The image as lines, as far as `count` tiles read SIDE x SIDE positions of it.
    template <int SIDE, class T>
    Image<T> read(Use use, Image<T> in, int64_t channels, int64_t column, int64_t count, int64_t around) const {
        if (!in.in_rows()) return in;
        const Band<T> band(use, in, channels, rows<SIDE>(in, column, count, around));
        band.copy(true);
        return band.lines();
    }

    // Elements from a tile to the one after it.
    template <class T> int64_t next(Image<T> in) const {
        return (depth > 1 ? in.height * in.width : TILE >> in.sight.doubled) * in.maps.line;
    }
};

// Tiles that are worked on together, about `most`: slices of a column, as those that are read twice are between two runs,
// and as many columns for each thread, or all would wait for one of them. With maps in rows, whole rows of tiles.
struct Together {
    int64_t run, columns, runs, blocks;
    template <int TILE> Together(Tiles<TILE> tiles, int64_t most, int threads, bool in_rows) {
        runs = divided(tiles.depth, most);
        run = divided(tiles.depth, runs);
        const int64_t unit = in_rows ? tiles.across : 1, units = tiles.columns() / unit;
        const int64_t rounds = divided(divided(units, std::max<int64_t>(most / run / unit, 1)), threads);
        columns = unit * divided(units, rounds * threads);
        blocks = divided(tiles.columns(), columns) * runs;
    }
};

inline Vector rectified(Vector x) { return x < 0.f ? Vector{} : x; } // what is not a number stays so

// A batch norm of `LANES` channels.
struct NormOfLanes {
    Vector mean, scale, shift;
    NormOfLanes(const Norm<float> &norm, int64_t c)
        : mean(load(norm.mean.data() + c)), scale(load(norm.scale.data() + c)), shift(load(norm.shift.data() + c)) {}
    Vector of_centred(Vector x) const { return x * scale + shift; }
};

// What is convolved of vectors that are read from channel c on, at a place in the maps or outside.
struct AsRead {
    auto from(int64_t) const {
        return [](Vector x, const void *) { return x; };
    }
};
struct Rectified {
    auto from(int64_t) const {
        return [](Vector x, const void *) { return rectified(x); };
    }
};
struct Normalized { // and rectified
    const Norm<float> &norm;
    const void *outside;
    int64_t first; // channel of the norm

    auto from(int64_t c) const {
        return [lanes = NormOfLanes(norm, first + c), outside = outside](Vector x, const void *place) {
            return place == outside ? Vector{} : rectified(lanes.of_centred(x - lanes.mean));
        };
    }
};

// Transform the channels at all places into a row of the points, and where asked their sums into one behind these; at the
// next tile's they are `next` elements further. By itself: beside others compilers make worse of it.
template <class Matrix, bool SUMS, class Convolved, class T>
__attribute__((noinline)) void
to_points(T *const *places, int64_t next, const Points &to, int64_t row, const Convolved &convolved) {
    const int64_t apart = to.apart;
    for (int64_t c = 0; c < to.columns; c += LANES) {
        float *const points = to.at(0, row, c);
        const auto convolved_of = convolved.from(c);
        Vector sum{};
        transform<Matrix>(
            [&](int i) {
                __builtin_prefetch(places[i] + c + next);
                const Vector x = load(places[i] + c);
                if constexpr (SUMS) sum += x;
                return convolved_of(x, places[i]);
            },
            [=](int i, Vector x) { store(points + i * apart, x); }
        );
        if constexpr (SUMS) store(points + Matrix::to * Matrix::to * apart, sum);
    }
}

// What is convolved of the maps that are read: themselves, what ReLU lets through of them, or of their norm.
struct Reading {
    bool relu;
    const Norm<float> *norm = nullptr;

    template <class Matrix, class T>
    void to_points(
        T *const *places, int64_t next, const Points &to, int64_t row, const T *outside, int64_t first = 0
    ) const {
        if (norm)
            ::to_points<Matrix, false>(places, next, to, row, Normalized{*norm, outside, first});
        else if (relu)
            ::to_points<Matrix, false>(places, next, to, row, Rectified{});
        else
            ::to_points<Matrix, false>(places, next, to, row, AsRead{});
    }
};
constexpr Reading AS_READ{false};

// Where the gradient of what a convolution reads goes: through ReLU and norm of x, which lies as the maps that its results
// are added to. Its sums by tiles, by themselves and with x less its mean, are added at last.
template <class T> struct Through {
    const Norm<float> &norm;
    const T *x;
    float *sum_g, *sum_along;
};

// G w G^T for a slice of taps of a convolution of `to.rows / depth` maps into `to.columns`, for `LANES` of C and of O.
template <class F, class T>
void taps_to_points(TapMaps<T> taps, int64_t slice, int64_t o, int64_t c, bool turned, const Points &to) {
    float at[TAPS * TAPS][LANES][LANES];
    for (int l = 0; l < LANES; l++)
        if (turned)
            taps.each(o + l, slice, c, [&](int i, int k, auto tap) { at[TAPS * TAPS - 1 - i][l][k] = read(tap); });
        else
            taps.each(o + l, slice, c, [&](int i, int k, auto tap) { at[i][k][l] = read(tap); });
    const int64_t depth = taps.depth, column = turned ? c : o, apart = to.apart;
    const int64_t row = turned ? (depth - 1 - slice) * (to.rows / depth) + o : slice * taps.channels + c;
    for (int k = 0; k < LANES; k++) {
        float *const points = to.at(0, row + k, column);
        transform<typename F::G>(
            [&](int i) { return load(at[i][k]); }, [=](int i, Vector u) { store(points + i * apart, u); }
        );
    }
}

// Add a tile of the channels from c on, and write its sums.
template <class Matrix, class T, class Get>
void add_through(
    Get get, T *const *places, const T *unread, const T *first, const Through<T> &through, int64_t channels, int64_t c,
    float *sums
) {
    const NormOfLanes norm(through.norm, c);
    Vector of_g{}, along{};
    transform<Matrix>(get, [&](int i, Vector g) {
        T *const place = places[i];
        if (place == unread) return;
        __builtin_prefetch(place + c + 64, 1);
        __builtin_prefetch(through.x + (place - first) + c + 64);
        const Vector centred = load(through.x + (place - first) + c) - norm.mean;
        g = norm.of_centred(centred) <= 0.f ? Vector{} : g;
        of_g += g;
        along += g * centred;
        store(place + c, load(place + c) + norm.scale * g);
    });
    store(sums, of_g);
    store(sums + channels, along);
}

// y = w * x + bias, or y += w * x + bias, where w is `taps`, turned round or not, and x is padded and as `reading` says; or
// y is added what w * x becomes `through` a norm.
template <class F, bool TURNED, class T>
void convolution(
    int threads, int64_t samples, Image<T> x, int64_t in, Taps shape, Reading reading, TapMaps<T> taps, const T *bias,
    bool add, Image<T> y, int64_t out, const Through<T> *through = nullptr
) {
    using B_T = typename F::B_T;
    const Tiles<F::TILE> tiles{samples, y.depth, y.height, y.width};
    const int64_t depth = shape.depth, C = TURNED ? out : in, O = TURNED ? in : out;
    // Fewer tiles together where all their points would leave the cache, unless the taps', read anew each time, are more.
    const int64_t most = std::min(F::TOGETHER, std::max<int64_t>((1 << 18) / F::POINTS, depth * in * out) / (in + out));
    const Together together(tiles, most, threads, x.in_rows() || y.in_rows());
    const Points of_taps{TAPS_IN_POINTS, F::POINTS, depth * in, out};
    const auto of_tiles = unwritten<float>(through ? 2 * tiles.columns() * out : 0);
#pragma omp parallel num_threads(threads) if (tiles.positions() * in > FEW)
    {
#pragma omp for collapse(3) schedule(static)
        for (int64_t slice = 0; slice < depth; slice++)
            for (int64_t o = 0; o < O; o += LANES)
                for (int64_t c = 0; c < C; c += LANES)
                    taps_to_points<F>(taps, slice, o, c, TURNED, of_taps);
        const Points of_x{X_IN_POINTS, F::POINTS, (together.run + depth - 1) * together.columns, in};
        const Points of_y{Y_IN_POINTS, F::POINTS, together.run * together.columns, out};
        std::vector<T> zeros(in), unread(out);
        T *places[F::POINTS];
#pragma omp for schedule(static)
        for (int64_t block = 0; block < together.blocks; block++) {
            const int64_t column = block / together.runs * together.columns, slice = block % together.runs * together.run;
            const int64_t count = std::min(together.columns, tiles.columns() - column);
            const int64_t run = std::min(together.run, y.depth - slice);
            const Image<T> from = tiles.template read<F::PATCH>(X_IN_LINES, x, in, column, count, shape.around);
            for (int64_t t = 0; t < count; t++)
                for (int64_t s = 0; s < run + depth - 1; s++) {
                    tiles.template find<F::PATCH>(
                        places, from, column + t, slice + s - shape.before, shape.around, zeros.data()
                    );
                    const int64_t row = t * (run + depth - 1) + s;
                    reading.to_points<B_T>(places, tiles.next(from), of_x, row, zeros.data());
                }
            // Channels of as many slices as taps have are neighbours, as if they were those of one.
            const int64_t rows = depth == 1 ? count * run : run;
            for (int i = 0; i < F::POINTS; i++)
                for (int64_t row = 0; row < count * run; row += rows)
                    product<false>(
                        rows, out, depth * in, of_x.at(i, row / rows * (run + depth - 1)), in, 1, of_taps.at(i, 0),
                        of_y.at(i, row)
                    );
            std::optional<Band<T>> band;
            if (y.in_rows()) band.emplace(Y_IN_LINES, y, out, tiles.template rows<F::TILE>(y, column, count, 0));
            const Image<T> to = band ? band->lines() : y;
            for (int64_t t = 0; t < count; t++)
                for (int64_t s = 0; s < run; s++) {
                    tiles.template find<F::TILE>(places, to, column + t, slice + s, 0, unread.data());
                    for (int64_t c = 0; c < out; c += LANES) {
                        const float *const points = of_y.at(0, t * run + s, c);
                        const int64_t apart = of_y.apart;
                        const auto get = [=](int i) { return load(points + i * apart); };
                        if (TURNED && through) {
                            float *const sums = of_tiles.get() + 2 * (column + t) * out + c;
                            add_through<typename F::A_T>(get, places, unread.data(), y.maps.data, *through, out, c, sums);
                        } else
                            transform<typename F::A_T>(get, [&](int i, Vector sum) {
                                if (add) sum += load(places[i] + c);
                                if (bias) sum += load(bias + c);
                                store(places[i] + c, sum);
                            });
                    }
                }
            if (band) band->copy(false);
        }
        if (TURNED && through) {
#pragma omp for schedule(static)
            for (int64_t c = 0; c < out; c += LANES) {
                Vector of_g{}, along{};
                for (int64_t t = 0; t < tiles.columns(); t++) {
                    const float *const sums = of_tiles.get() + 2 * t * out + c;
                    of_g += load(sums);
                    along += load(sums + out);
                }
                store(through->sum_g + c, load(through->sum_g + c) + of_g);
                store(through->sum_along + c, load(through->sum_along + c) + along);
            }
        }
    }
}

// Channels in parts, each of which one thread does everything with that only these take part in.
struct Parts {
    int64_t channels;
    int count;

    // As many as threads, where they are equal or nearly, and large.
    Parts(int64_t channels, int threads, bool one) : channels(channels), count(1) {
        const int64_t units = channels / LANES;
        if (!one && units >= 4 * threads && (units % threads == 0 || units >= 8 * threads)) count = threads;
    }
    Share share(int part) const { return {channels, LANES, part, count}; }

    // A part's of all points, which lie one behind the other.
    Points of(const Points &all, int part) const {
        const auto [begin, end] = share(part);
        float *const first = all.memory + all.points * (all.rows * begin + LANES * part);
        return {all.use, all.points, all.rows, end - begin, all.rows * (end - begin) + LANES, first};
    }
};

// The gradient of taps, and the sums of that of y, for a bias, if they are not null.
template <class F, class T>
void taps_gradient(
    int threads, int64_t samples, Image<T> x, int64_t C, Taps shape, Reading reading, Image<T> grad_y, int64_t O,
    TapMaps<T> grad, float *sums
) {
    const Tiles<F::TILE> tiles{samples, grad_y.depth, grad_y.height, grad_y.width};
    using A = typename F::A;
    using B_T = typename F::B_T;
    const int64_t depth = shape.depth;
    // More tiles together where there are many taps, which are read and written anew each time.
    const bool in_rows = x.in_rows() || grad_y.in_rows();
    const Together together(tiles, std::max(F::TOGETHER, 2 * depth * C * O / (C + O)), 1, in_rows);
    // Threads share what y gives, and what x gives, too, unless it has many more channels: to find its places once for
    // each part takes less than to read what another core has written, where cores are far from each other.
    const Parts parts(C, threads, in_rows || C < 8 * O || tiles.positions() * C <= FEW);
    const int64_t room = LANES * parts.count; // behind each part's points
    const Points all_of_x{
        X_IN_POINTS, F::POINTS, (together.run + depth - 1) * together.columns, C,
        (together.run + depth - 1) * together.columns * C + room
    };
    const Points of_y{Y_IN_POINTS, F::POINTS + 1, together.run * together.columns, O}; // after points, tiles' sums
    const Points all_of_taps{TAPS_IN_POINTS, F::POINTS, depth * O, C, depth * O * C + room};
    if (sums) std::fill_n(sums, O, 0.f);
#pragma omp parallel num_threads(threads) if (tiles.positions() * C > FEW)
    {
        std::vector<T> zeros(std::max(C, O));
        T *places[F::POINTS];
        for (int64_t block = 0; block < together.blocks; block++) {
            const int64_t column = block / together.runs * together.columns, slice = block % together.runs * together.run;
            const int64_t count = std::min(together.columns, tiles.columns() - column);
            const int64_t run = std::min(together.run, grad_y.depth - slice);
            const int64_t rows = (run + depth - 1) * count;
#pragma omp for schedule(static)
            for (int part = 0; part < threads; part++) {
                const int64_t begin = rows * part / threads, end = rows * (part + 1) / threads, t = column + begin;
                if (begin == end && parts.count == 1) continue;
                const auto from = tiles.template read<F::PATCH>(X_IN_LINES, x, C, t, end - begin, shape.around);
                const auto to = tiles.template read<F::TILE>(Y_IN_LINES, grad_y, O, t, end - begin, 0);
                const bool apart = parts.count > 1;
                const int64_t first = apart ? parts.share(part).begin : 0;
                const Points of_x = parts.of(all_of_x, apart ? part : 0);
                for (int64_t row = apart ? 0 : begin; row < (apart ? rows : end); row++) {
                    const int64_t t = column + row % count, s = slice + row / count;
                    tiles.template find<F::PATCH>(places, from, t, s - shape.before, shape.around, zeros.data());
                    if (apart)
                        for (T *&place : places) place += first;
                    reading.to_points<B_T>(places, tiles.next(from), of_x, row, zeros.data() + first, first);
                    if (row < begin || row >= std::min(end, run * count)) continue;
                    tiles.template find<F::TILE>(places, to, t, s, 0, zeros.data());
                    (sums ? to_points<A, true, AsRead, T> : to_points<A, false, AsRead, T>)(
                        places, tiles.next(to), of_y, row, {}
                    );
                }
            }
            if (sums) {
#pragma omp for schedule(static) nowait
                for (int64_t o = 0; o < O; o += LANES) {
                    Vector sum{}; // of few, so that it is exact
                    for (int64_t row = 0; row < count * run; row++) sum += load(of_y.at(F::POINTS, row, o));
                    store(sums + o, load(sums + o) + sum);
                }
            }
#pragma omp for collapse(3) schedule(static)
            for (int part = 0; part < parts.count; part++)
                for (int i = 0; i < F::POINTS; i++)
                    for (int64_t k = 0; k < depth; k++) {
                        const Points of_x = parts.of(all_of_x, part), of_taps = parts.of(all_of_taps, part);
                        (block ? product<true, float> : product<false, float>)(
                            O, of_x.columns, count * run, of_y.at(i, 0), 1, O, of_x.at(i, k * count), of_taps.at(i, k * O)
                        );
                    }
        }
#pragma omp for collapse(2) schedule(static)
        for (int part = 0; part < parts.count; part++)
            for (int64_t o = 0; o < O; o++) {
                const Points of_taps = parts.of(all_of_taps, part);
                for (int64_t k = 0; k < depth; k++)
                    for (int64_t c = 0; c < of_taps.columns; c += LANES) {
                        Vector values[TAPS * TAPS];
                        const float *const points = of_taps.at(0, k * O + o, c);
                        const int64_t apart = of_taps.apart;
                        transform<typename F::G_T>(
                            [=](int i) { return load(points + i * apart); }, [&](int i, Vector x) { values[i] = x; }
                        );
                        grad.each(o, k, parts.share(part).begin + c, [&](int i, int l, auto &tap) { write(tap, values[i][l]); });
                    }
            }
    }
}

// The gradient of an image from that of what was seen of it, lines, `around` more on each side.
template <class T>
void unseen(int threads, int64_t samples, Image<T> seen, Image<T> x, int64_t channels, int64_t around) {
    // Where each row or column is seen, of as many.
    const auto places = [=](int64_t size) {
        std::vector<std::vector<int64_t>> at(size);
        for (int64_t i = -around; i < x.sight.seen(size) + around; i++)
            if (const int64_t from = x.sight.source(i, size, around); from >= 0) at[from].push_back(i + around);
        return at;
    };
    const auto rows = places(x.height), columns = places(x.width);
    const int64_t all = samples * x.height, together = divided(SPAN, x.width);
#pragma omp parallel for schedule(static) num_threads(threads) if (all * x.width * channels > FEW)
    for (int64_t begin = 0; begin < all; begin += together) {
        std::optional<Band<T>> band;
        const Rows of{begin, std::min(begin + together, all)};
        if (x.in_rows()) band.emplace(X_IN_LINES, x, channels, of);
        const Image<T> to = band ? band->lines() : x;
        for (int64_t row = of.begin; row < of.end; row++)
            for (int64_t j = 0; j < x.width; j++) {
                const int64_t n = row / x.height, i = row % x.height;
                T *const sum = to.maps.at(n, i * x.width + j);
                if (rows[i].size() * columns[j].size() == 1) {
                    std::copy_n(seen.maps.at(n, rows[i][0] * seen.width + columns[j][0]), channels, sum);
                    continue;
                }
                for (int64_t c = 0; c < channels; c += LANES) {
                    Vector total{};
                    for (const int64_t k : rows[i])
                        for (const int64_t l : columns[j]) total += load(seen.maps.at(n, k * seen.width + l) + c);
                    store(sum + c, total);
                }
            }
        if (band) band->copy(false);
    }
}

} // namespace

// Compute with the dtype's T, float or bfloat16, tiles of F::TILE x F::TILE, the image x and the image y that its
// convolution by taps of this shape gives.
#define FOR_IMAGES(of_x, of_y, ...)                                                                                    \
    const auto compute = [&](auto zero, auto f) {                                                                      \
        using T = decltype(zero);                                                                                      \
        using F = decltype(f);                                                                                         \
        const int64_t height = positions / slices / width, more = 2 * around - (TAPS - 1);                             \
        const Sight sight{edges, doubled};                                                                             \
        const Image<T> x{AS(T, of_x), slices, height, width, sight};                                                   \
        const Image<T> y{                                                                                              \
            AS(T, of_y), slices + 2 * before - (depth - 1), sight.seen(height) + more, sight.seen(width) + more        \
        };                                                                                                             \
        const Taps shape{depth, before, around};                                                                       \
        __VA_ARGS__;                                                                                                   \
    };                                                                                                                 \
    if (dtype == 0)                                                                                                    \
        compute(float{}, Winograd<4>{});                                                                               \
    else if (tile == 4)                                                                                                \
        compute(BFloat16{}, Winograd<4>{});                                                                            \
    else                                                                                                               \
        compute(BFloat16{}, Winograd<8>{})

// y = taps * x + bias, or y += taps * x + bias, where x may go through ReLU; bias may be null.
EXPORT void conv(SHAPE, MAPS(x), MAPS(y), CONVOLUTION, int relu, void *taps, void *bias, int add) {
    FOR_IMAGES(x, y, convolution<F, false, T>(
        threads, samples, x, channels, shape, {bool(relu)}, {taps, lie, depth, channels}, static_cast<T *>(bias), add, y, out
    ));
}

// The gradient of x, or of ReLU(x), (.., channels), from that of y, (.., out).
EXPORT void conv_backward_input(SHAPE, MAPS(grad_x), MAPS(grad_y), CONVOLUTION, void *taps) {
    FOR_IMAGES(grad_x, grad_y, convolution<F, true, T>(
        threads, samples, y, out, shape.turned(), AS_READ, {taps, lie, depth, channels}, nullptr, false, x, channels
    ));
}

// The gradient of taps, where x may go through ReLU, and if they are not null the sums of that of y.
EXPORT void conv_backward_taps(SHAPE, MAPS(x), MAPS(grad_y), CONVOLUTION, int relu, void *grad, float *sums) {
    FOR_IMAGES(x, grad_y, taps_gradient<F, T>(
        threads, samples, x, channels, shape, {bool(relu)}, y, out, {grad, lie, depth, channels}, sums
    ));
}

// The same of ReLU(norm(x)), with zeros around that.
EXPORT void norm_conv(SHAPE, MAPS(x), MAPS(y), CONVOLUTION, NORM, void *taps, void *conv_bias) {
    const auto norm = AS_NORM(float);
    FOR_IMAGES(x, y, convolution<F, false, T>(
        threads, samples, x, channels, shape, {true, &norm}, {taps, lie, depth, channels},
        static_cast<T *>(conv_bias), false, y, out
    ));
}

// Add to `sum` the gradient of x, whose lines are as far apart, and to sum_g and sum_along those of the norm's bias and, but
// for a factor, of its weight.
EXPORT void norm_conv_backward_input(
    SHAPE, MAPS(sum), MAPS(grad_y), CONVOLUTION, NORM, void *taps, void *of_x, float *sum_g, float *sum_along
) {
    const auto norm = AS_NORM(float);
    FOR_IMAGES(sum, grad_y, {
        const Through<T> through{norm, static_cast<T *>(of_x), sum_g, sum_along};
        convolution<F, true, T>(
            threads, samples, y, out, shape.turned(), AS_READ, {taps, lie, depth, channels}, nullptr, false, x, channels,
            &through
        );
    });
}

EXPORT void norm_conv_backward_taps(SHAPE, MAPS(x), MAPS(grad_y), CONVOLUTION, NORM, void *grad, float *sums) {
    const auto norm = AS_NORM(float);
    FOR_IMAGES(x, grad_y, taps_gradient<F, T>(
        threads, samples, x, channels, shape, {true, &norm}, y, out, {grad, lie, depth, channels}, sums
    ));
}

// The gradient of x from that of what was seen of it, lines, (.., channels).
EXPORT void conv_backward_sight(
    SHAPE, MAPS(x), MAPS(seen), int64_t width, int64_t around, int64_t edges, int64_t doubled
) {
    const int64_t height = positions / width;
    const auto compute = [=](auto zero) {
        using T = decltype(zero);
        const Sight sight{edges, doubled};
        const Image<T> of_x{AS(T, x), 1, height, width, sight};
        const Image<T> of_seen{AS(T, seen), 1, sight.seen(height) + 2 * around, sight.seen(width) + 2 * around};
        unseen(threads, samples, of_seen, of_x, channels, around);
    };
    dtype ? compute(BFloat16{}) : compute(float{});
}
