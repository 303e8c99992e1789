// The greatest of each square of four, and which it was: 0 to 3 in reading order, the first of equal ones.
#include "maps.h"

// Where squares are in maps of some width, by their number.
struct Squares {
    int64_t width, across;
    int64_t corner(int64_t square, int number) const {
        return (square / across * 2 + number / 2) * width + square % across * 2 + number % 2;
    }
};

using Which = Maps<uint8_t>;

template <class T> void pooled(Shape shape, Squares squares, Maps<T> x, Maps<T> y, Which which, int threads) {
    of_lines(shape, threads, [=](int64_t n, int64_t square, int64_t c, auto width) {
        const T *corners[4];
        for (int number = 0; number < 4; number++) corners[number] = x.at(n, squares.corner(square, number)) + c;
        T *const greatest_of = y.at(n, square) + c;
        uint8_t *const which_of = which.at(n, square) + c;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) {
            Real<T> greatest = read(corners[0][i]);
            uint8_t place = 0;
            for (int number = 1; number < 4; number++) {
                const Real<T> other = read(corners[number][i]);
                // What is not a number wins, as in torch's own pool.
                const bool greater = (other > greatest) | (other != other);
                greatest = greater ? other : greatest;
                place = greater ? uint8_t(number) : place;
            }
            write(greatest_of[i], greatest);
            which_of[i] = place;
        }
    });
}

template <class T> void unpooled(Shape shape, Squares squares, Maps<T> grad, Which which, Maps<T> out, int threads) {
    of_lines(shape, threads, [=](int64_t n, int64_t square, int64_t c, auto width) {
        const T *const of_square = grad.at(n, square) + c;
        const uint8_t *const place = which.at(n, square) + c;
        for (int number = 0; number < 4; number++) {
            T *const of_corner = out.at(n, squares.corner(square, number)) + c;
#pragma omp simd
            for (int64_t i = 0; i < width; i++) write(of_corner[i], place[i] == number ? read(of_square[i]) : 0);
        }
    });
}

EXPORT void pool(SHAPE, MAPS(y), MAPS(which), MAPS(x), int64_t width) {
    const Shape shape{samples, positions, channels};
    const Squares squares{width, width / 2};
    FOR_DTYPE(dtype, T, pooled<T>(shape, squares, AS(T, x), AS(T, y), AS(uint8_t, which), threads))
}

// Corners that a square's gradient does not go to become 0; a last odd row or column is not written.
EXPORT void unpool(SHAPE, MAPS(grad), MAPS(which), MAPS(out), int64_t width) {
    const Shape shape{samples, positions, channels};
    const Squares squares{width, width / 2};
    FOR_DTYPE(dtype, T, unpooled<T>(shape, squares, AS(T, grad), AS(uint8_t, which), AS(T, out), threads))
}
