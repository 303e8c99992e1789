// The greatest of each square of four, and which it was: 0 to 3 in reading order, the first of equal ones.
#include "vectors.h"

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

// Contiguous maps' rows of squares, `across` each, of which a vector holds so many; the last vector may begin before the
// one before it ends. body(upper, square): where in the maps an upper row of squares' corners begins, and the first square.
template <class Body> void of_rows(Shape shape, int64_t height, int64_t width, int threads, Body body) {
    const int64_t planes = shape.samples * shape.channels, down = height / 2, across = width / 2;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads) if (shape.size() > FEW)
    for (int64_t plane = 0; plane < planes; plane++)
        for (int64_t row = 0; row < down; row++)
            for (int64_t number = 0; number < divided(across, LANES); number++) {
                const int64_t i = std::min(number * LANES, across - LANES);
                body((plane * height + 2 * row) * width + 2 * i, (plane * down + row) * across + i);
            }
}

typedef uint8_t Bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

// Lanes of two vectors, numbered through.
template <class Index> inline Vector shuffled(Vector first, Vector second, Index index) {
#ifdef __clang__ // has no such function
    Vector result;
    for (int i = 0; i < LANES; i++) result[i] = index(i) < LANES ? first[index(i)] : second[index(i) - LANES];
    return result;
#else
    Bits from;
    for (int i = 0; i < LANES; i++) from[i] = index(i);
    return __builtin_shuffle(first, second, from);
#endif
}
inline Vector every_second(Vector first, Vector second, int from) {
    return shuffled(first, second, [=](int i) { return 2 * i + from; });
}
inline Vector in_turn(Vector first, Vector second, int half) {
    return shuffled(first, second, [=](int i) { return half * LANES / 2 + i / 2 + i % 2 * LANES; });
}

template <class T>
void pooled_rows(Shape shape, int64_t height, int64_t width, const T *x, T *y, uint8_t *which, int threads) {
    of_rows(shape, height, width, threads, [=](int64_t upper, int64_t square) {
        Vector greatest{};
        Bits place{};
        for (int number = 0; number < 4; number++) {
            const T *const corners = x + upper + number / 2 * width;
            const Vector other = every_second(load(corners), load(corners + LANES), number % 2);
            const auto greater = (other > greatest) | (other != other) | (number ? 0 : -1);
            greatest = greater ? other : greatest;
            place = greater ? Bits{} + number : place;
        }
        store(y + square, greatest);
        *reinterpret_cast<Bytes *>(which + square) = __builtin_convertvector(place, Bytes);
    });
}

template <class T>
void unpooled_rows(Shape shape, int64_t height, int64_t width, const T *grad, const uint8_t *which, T *out, int threads) {
    of_rows(shape, height, width, threads, [=](int64_t upper, int64_t square) {
        const Vector of_square = load(grad + square);
        const Bits place = __builtin_convertvector(*reinterpret_cast<const Bytes *>(which + square), Bits);
        for (int lower = 0; lower < 2; lower++) {
            const Vector left = place == 2u * lower ? of_square : Vector{};
            const Vector right = place == 2u * lower + 1 ? of_square : Vector{};
            T *const corners = out + upper + lower * width;
            store(corners, in_turn(left, right, 0));
            store(corners + LANES, in_turn(left, right, 1));
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

// The same of contiguous maps of float or bfloat16, in which a row of squares fills a vector.
EXPORT void pool_rows(SHAPE, MAPS(x), MAPS(y), MAPS(which), int64_t height, int64_t width) {
    const Shape shape{samples, positions, channels};
    const auto run = [=](auto *x, auto *y) {
        pooled_rows(shape, height, width, x, y, static_cast<uint8_t *>(which_data), threads);
    };
    if (dtype == 0)
        run(static_cast<float *>(x_data), static_cast<float *>(y_data));
    else
        run(static_cast<BFloat16 *>(x_data), static_cast<BFloat16 *>(y_data));
}

EXPORT void unpool_rows(SHAPE, MAPS(out), MAPS(grad), MAPS(which), int64_t height, int64_t width) {
    const Shape shape{samples, positions, channels};
    const auto run = [=](auto *grad, auto *out) {
        unpooled_rows(shape, height, width, grad, static_cast<uint8_t *>(which_data), out, threads);
    };
    if (dtype == 0)
        run(static_cast<float *>(grad_data), static_cast<float *>(out_data));
    else
        run(static_cast<BFloat16 *>(grad_data), static_cast<BFloat16 *>(out_data));
}
