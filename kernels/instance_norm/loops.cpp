// Norms over the positions of each map of a sample, or of all samples together, with or without scale and shift, with or
// without an activation behind them: of channels_last maps, a line of channels after another, and of contiguous ones, a
// row of positions after another.
#if defined(__AVX512F__) && !defined(__clang__)
// By itself GCC takes half of an Intel's vectors: up to 1.2 times the time.
#pragma GCC target("prefer-vector-width=512")
#endif
#include "lines.h"
#include "rows.h"
#include "side_by_side.h"

// `batch`: over all samples, whose lines follow each other; else of each sample.
#define FORWARD                                                                                                        \
    SHAPE, MAPS(x), MAPS(y), void *statistics, const void *weight, const void *bias, int kind, double slope,           \
        double eps, int batch, void *running_mean, void *running_var, double momentum
#define BACKWARD                                                                                                       \
    SHAPE, MAPS(grad), MAPS(x), MAPS(dx), const void *statistics, const void *weight, const void *bias,                \
        void *to_shift, void *to_scale, int kind, double slope, int batch

static void forward(FORWARD) {
    const Shape shape = batch ? Shape{1, samples * positions, channels} : Shape{samples, positions, channels};
    const Rows rows(shape, x_line != channels || y_line != channels);
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        const Parameters<R> of(shape, statistics, weight, bias);
        double *const mean = static_cast<double *>(statistics), *const rstd = mean + shape.samples * channels;
        const Found<R> found{
            mean, rstd, static_cast<R *>(running_mean), static_cast<R *>(running_var), eps, momentum,
        };
        const auto x = AS(T, x), y = AS(T, y);
        of_samples(shape, threads, [=, &rows](int64_t n, int together) {
            lines_statistics<T>(shape, rows, x, n, found, together);
            lines_apply<T>(shape, rows, x, y, of, n, Activation{kind, slope}, together);
        });
    })
}

static void backward(BACKWARD) {
    const Shape shape = batch ? Shape{1, samples * positions, channels} : Shape{samples, positions, channels};
    const Rows rows(shape, x_line != channels || grad_line != channels || dx_line != channels);
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        const Parameters<R> of(shape, statistics, weight, bias);
        const auto grad = AS(T, grad), x = AS(T, x), dx = AS(T, dx);
        with_sums<R>(shape, to_shift, to_scale, threads, [=, &rows](Sums sums) {
            of_samples(shape, threads, [=, &rows](int64_t n, int together) {
                lines_backward<T>(shape, rows, grad, x, dx, of, sums, n, Activation{kind, slope}, together);
            });
        });
    })
}

static void rows_forward(FORWARD) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        const Parameters<R> of(Shape{batch ? 1 : samples, positions, channels}, statistics, weight, bias);
        double *const mean = static_cast<double *>(statistics), *const rstd = const_cast<double *>(of.rstd);
        const Found<R> found{
            mean, rstd, static_cast<R *>(running_mean), static_cast<R *>(running_var), eps, momentum,
        };
        if (!batch && positions <= FEW_POSITIONS)
            return side_by_side_forward<T>(shape, AS(T, x).data, AS(T, y).data, found, of, Activation{kind, slope}, threads);
        contiguous_forward<T>(shape, batch, AS(T, x).data, AS(T, y).data, found, of, Activation{kind, slope}, threads);
    })
}

static void rows_backward(BACKWARD) {
    const Shape shape{samples, positions, channels};
    FOR_DTYPE(dtype, T, {
        using R = Real<T>;
        const Shape of_statistics{batch ? 1 : samples, positions, channels};
        const Parameters<R> of(of_statistics, statistics, weight, bias);
        const T *const grad = AS(T, grad).data, *const x = AS(T, x).data;
        T *const dx = AS(T, dx).data;
        with_sums<R>(of_statistics, to_shift, to_scale, threads, [=](Sums sums) {
            if (!batch && positions <= FEW_POSITIONS)
                side_by_side_backward<T>(shape, grad, x, dx, of, sums, Activation{kind, slope}, threads);
            else
                contiguous_backward<T>(shape, batch, grad, x, dx, of, sums, Activation{kind, slope}, threads);
        });
    })
}

EXPORT_PACKED(forward)
EXPORT_PACKED(backward)
EXPORT_PACKED(rows_forward)
EXPORT_PACKED(rows_backward)
