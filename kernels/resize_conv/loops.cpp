// Products of a resize convolution's taps spread over its result, and the transpose of that; documented in fused.py.
#include <vector>

#include "maps.h"

namespace {

// Maps of a given height and width, with zeros around.
template <class T> struct Padded {
    Maps<T> maps;
    int64_t height, width;
    const T *zeros;
    const T *at(int64_t n, int64_t row, int64_t column) const {
        const bool inside = row >= 0 && row < height && column >= 0 && column < width;
        return inside ? maps.at(n, row * width + column) : zeros;
    }
};

// z: p p, p q, q p and q q at each position, O maps each; y of twice the height and width.
template <class T> void spread(Shape shape, int64_t width, Maps<T> z, Maps<T> y, int threads) {
    const int64_t O = shape.channels, height = shape.positions / width;
    const std::vector<T> zeros(4 * O);
    const Padded<T> products{z, height, width, zeros.data()};
    of_lines(shape, threads, [=](int64_t n, int64_t p, int64_t c, auto channels) {
        const int64_t r = p / width, s = p % width;
        const T *here = products.at(n, r, s) + c, *right = products.at(n, r, s + 1) + c;
        const T *below = products.at(n, r + 1, s) + c, *across = products.at(n, r + 1, s + 1) + c;
        T *upper = y.at(n, 4 * r * width + 2 * s) + c, *lower = y.at(n, (4 * r + 2) * width + 2 * s) + c;
#pragma omp simd
        for (int64_t i = 0; i < channels; i++) {
            const Real<T> pp = read(here[i]), pq = read(here[O + i]), qp = read(here[2 * O + i]);
            const Real<T> pq_right = read(right[O + i]), qp_below = read(below[2 * O + i]);
            write(upper[i], pp + pq + qp + read(here[3 * O + i]));
            write(upper[y.line + i], pp + pq_right + qp + read(right[3 * O + i]));
            write(lower[i], pp + pq + qp_below + read(below[3 * O + i]));
            write(lower[y.line + i], pp + pq_right + qp_below + read(across[3 * O + i]));
        }
    });
}

template <class T> void gathered(Shape shape, int64_t width, Maps<T> grad, Maps<T> z, int threads) {
    const int64_t O = shape.channels, height = shape.positions / width;
    const std::vector<T> zeros(O);
    const Padded<T> of{grad, 2 * height, 2 * width, zeros.data()};
    of_lines(shape, threads, [=](int64_t n, int64_t p, int64_t c, auto channels) {
        const int64_t r = 2 * (p / width), s = 2 * (p % width);
        const T *g[3][3];
        for (int64_t i = 0; i < 3; i++)
            for (int64_t j = 0; j < 3; j++) g[i][j] = of.at(n, r + i - 1, s + j - 1) + c;
        T *to = z.at(n, p) + c;
#pragma omp simd
        for (int64_t i = 0; i < channels; i++) {
            const Real<T> here = read(g[1][1][i]), right = read(g[1][2][i]), below = read(g[2][1][i]);
            const Real<T> left = read(g[1][0][i]), above = read(g[0][1][i]);
            write(to[i], here + right + below + read(g[2][2][i]));
            write(to[O + i], left + here + read(g[2][0][i]) + below);
            write(to[2 * O + i], above + here + read(g[0][2][i]) + right);
            write(to[3 * O + i], read(g[0][0][i]) + above + left + here);
        }
    });
}

// Sums of a weight's rows 0 and 1, p, of row 2, q, and of all, e, and of columns likewise: ee, ep, eq, pe, qe, pp, pq, qp, qq.
constexpr int SUMS = 9, SIDE = 3;

// Those of each map out and in, in this order, (9, O, C), of a weight (O, C, 3, 3).
template <class T> void folded(Shape shape, Maps<Real<T>> weight, T *sums, int threads) {
    const int64_t O = shape.samples, C = shape.channels;
    in_parallel(O, worth(shape, threads), [=](int64_t o) {
        const Real<T> *w[SUMS];
        for (int i = 0; i < SUMS; i++) w[i] = weight.at(o, i);
#pragma omp simd
        for (int64_t c = 0; c < C; c++) {
            Real<T> p[SIDE], q[SIDE]; // of each column
            for (int j = 0; j < SIDE; j++) p[j] = w[j][c] + w[SIDE + j][c], q[j] = w[2 * SIDE + j][c];
            const Real<T> pp = p[0] + p[1], pq = p[2], qp = q[0] + q[1], qq = q[2];
            const Real<T> all[] = {pp + qp + (pq + qq), pp + qp, pq + qq, pp + pq, qp + qq, pp, pq, qp, qq};
            for (int i = 0; i < SUMS; i++) write(sums[(i * O + o) * C + c], all[i]);
        }
    });
}

// The gradient of a weight from those of its sums.
template <class T> void unfolded(Shape shape, Maps<Real<T>> weight, const T *sums, int threads) {
    const int64_t O = shape.samples, C = shape.channels;
    in_parallel(O, worth(shape, threads), [=](int64_t o) {
        Real<T> *w[SUMS];
        for (int i = 0; i < SUMS; i++) w[i] = weight.at(o, i);
#pragma omp simd
        for (int64_t c = 0; c < C; c++) {
            Real<T> g[SUMS];
            for (int i = 0; i < SUMS; i++) g[i] = read(sums[(i * O + o) * C + c]);
            for (int i = 0; i < SUMS; i++) {
                const int row = i / SIDE / 2, column = i % SIDE / 2; // 0 of p, 1 of q
                w[i][c] = g[0] + g[1 + column] + g[3 + row] + g[5 + 2 * row + column];
            }
        }
    });
}

} // namespace

// `to` is the dtype of the sums, whose numbers are computed as the weight's.
#define OF_WEIGHT(function, Sums)                                                                                      \
    const Shape shape{samples, positions, channels};                                                                   \
    FOR_DTYPE(to, T, function<T>(shape, AS(Real<T>, weight), static_cast<Sums *>(sums), threads))

EXPORT void fold(SHAPE, MAPS(weight), int to, void *sums) { OF_WEIGHT(folded, T) }

EXPORT void unfold(SHAPE, MAPS(weight), int to, const void *sums) { OF_WEIGHT(unfolded, const T) }

EXPORT void spread(SHAPE, MAPS(z), MAPS(y), int64_t width) {
    const Shape shape{samples, positions, channels / 4};
    FOR_DTYPE(dtype, T, spread<T>(shape, width, AS(T, z), AS(T, y), threads))
}

EXPORT void gather(SHAPE, MAPS(z), MAPS(grad), int64_t width) {
    const Shape shape{samples, positions, channels / 4};
    FOR_DTYPE(dtype, T, gathered<T>(shape, width, AS(T, grad), AS(T, z), threads))
}
