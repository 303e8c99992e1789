// What happens to maps between convolutions. Maps of one call have one shape and dtype; an output may be an input.
#include "statistics.h"

// As torch has it: what is not a number stays so.
template <class R> R through_relu(R grad, R x) { return x <= 0 ? R(0) : grad; }

// x_hat = (x - mean) / sqrt(var + eps).
template <class T>
void normalized(Shape shape, Maps<T> x, Maps<T> x_hat, Real<T> *rstd_of, double eps, int threads) {
    using R = Real<T>;
    of_blocks(shape, threads, [=](int64_t n, int64_t c, auto width) {
        Statistics<T> of(x, n, c, width);
        of.take(x, n, c, width, 0, shape.positions);
        R rstd[BLOCK];
#pragma omp simd
        for (int64_t i = 0; i < width; i++) rstd[i] = rstd_of[n * shape.channels + c + i] = of.rstd(i, eps);
        for (int64_t p = 0; p < shape.positions; p++)
#pragma omp simd
            for (int64_t i = 0; i < width; i++)
                write(x_hat.at(n, p)[c + i], (read(x.at(n, p)[c + i]) - of.first[i] - of.mean[i]) * rstd[i]);
    });
}

// out = rstd (g - mean(g) - x_hat mean(g x_hat)) of the gradient g that `gradient(n, p, c)` gives.
template <class T, class Gradient>
void through_normalize(
    Shape shape, Gradient gradient, Maps<T> x_hat, const Real<T> *rstd_of, Maps<T> out, int threads
) {
    using R = Real<T>;
    of_blocks(shape, threads, [=](int64_t n, int64_t c, auto width) {
        R mean[BLOCK] = {}, along[BLOCK] = {};
        for (int64_t begin = 0; begin < shape.positions; begin += PART) {
            const int64_t end = std::min(begin + PART, shape.positions);
            R part_mean[BLOCK] = {}, part_along[BLOCK] = {};
            for (int64_t p = begin; p < end; p++)
#pragma omp simd
                for (int64_t i = 0; i < width; i++) {
                    const R g = gradient(n, p, c + i);
                    part_mean[i] += g;
                    part_along[i] += g * read(x_hat.at(n, p)[c + i]);
                }
#pragma omp simd
            for (int64_t i = 0; i < width; i++) {
                mean[i] += part_mean[i];
                along[i] += part_along[i];
            }
        }
        const R *rstd = rstd_of + n * shape.channels + c;
#pragma omp simd
        for (int64_t i = 0; i < width; i++) {
            mean[i] /= R(shape.positions);
            along[i] /= R(shape.positions);
        }
        for (int64_t p = 0; p < shape.positions; p++)
#pragma omp simd
            for (int64_t i = 0; i < width; i++) {
                const R g = gradient(n, p, c + i), normalized = read(x_hat.at(n, p)[c + i]);
                write(out.at(n, p)[c + i], rstd[i] * (g - mean[i] - normalized * along[i]));
            }
    });
}

EXPORT void normalize(SHAPE, MAPS(x), MAPS(x_hat), void *rstd, double eps) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, normalized<T>(shape, AS(T, x), AS(T, x_hat), static_cast<Real<T> *>(rstd), eps, threads))
}

EXPORT void normalize_backward(
    SHAPE, MAPS(grad), MAPS(x_hat), MAPS(out), const void *rstd
) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        const auto grad = AS(T, grad);
        const auto gradient = [=](int64_t n, int64_t p, int64_t c) { return read(grad.at(n, p)[c]); };
        through_normalize<T>(
            shape, gradient, AS(T, x_hat), static_cast<const Real<T> *>(rstd), AS(T, out), threads
        );
    })
}

// The same behind a ReLU, whose result sent back `grad + other`.
EXPORT void relu_normalize_backward(
    SHAPE, MAPS(grad), MAPS(other), MAPS(x_hat), MAPS(out), const void *rstd
) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        const auto grad = AS(T, grad), other = AS(T, other), x_hat = AS(T, x_hat);
        const auto gradient = [=](int64_t n, int64_t p, int64_t c) {
            const Real<T> both = read(grad.at(n, p)[c]) + read(other.at(n, p)[c]);
            return through_relu(both, read(x_hat.at(n, p)[c]));
        };
        through_normalize<T>(shape, gradient, x_hat, static_cast<const Real<T> *>(rstd), AS(T, out), threads);
    })
}

// out = value(n, p, c) of every element.
template <class T, class Value> void elementwise(Shape shape, Value value, Maps<T> out, int threads) {
    of_lines(shape, threads, [=](int64_t n, int64_t p, int64_t c, auto width) {
#pragma omp simd
        for (int64_t i = 0; i < width; i++) write(out.at(n, p)[c + i], value(n, p, c + i));
    });
}

EXPORT void relu_backward(SHAPE, MAPS(grad), MAPS(x), MAPS(out)) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        const auto grad = AS(T, grad), x = AS(T, x);
        const auto value = [=](int64_t n, int64_t p, int64_t c) {
            return through_relu(read(grad.at(n, p)[c]), read(x.at(n, p)[c]));
        };
        elementwise<T>(shape, value, AS(T, out), threads);
    })
}

// out += values
EXPORT void add(SHAPE, MAPS(values), MAPS(out)) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        const auto values = AS(T, values), out = AS(T, out);
        const auto value = [=](int64_t n, int64_t p, int64_t c) {
            return read(out.at(n, p)[c]) + read(values.at(n, p)[c]);
        };
        elementwise<T>(shape, value, out, threads);
    })
}

// out += what ReLU(x) sent back
EXPORT void add_relu_backward(SHAPE, MAPS(grad), MAPS(x), MAPS(out)) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        const auto grad = AS(T, grad), x = AS(T, x), out = AS(T, out);
        const auto value = [=](int64_t n, int64_t p, int64_t c) {
            return read(out.at(n, p)[c]) + through_relu(read(grad.at(n, p)[c]), read(x.at(n, p)[c]));
        };
        elementwise<T>(shape, value, out, threads);
    })
}
