// The triangular system of a dense block, and the transposed one, in one call: the loops that other libraries export, one
// after another. Some 2 L calls from Python take longer than the loops themselves where maps are small, and threads that
// wait for so long fall asleep.
#include <vector>

#include "convolution.h"

namespace {

// How the weights of layers, (growth, taps, channels + l * growth) of layer l, lie in the system's blocks: see `fused.System`.
struct Packing {
    int64_t layers, taps, channels, growth;

    // of(l, column, block, row, columns): what layer l reads from a column on, of as many as the block has, is there from a
    // layer's row on.
    template <class Of> void each(Of of) const {
        int64_t block = 0;
        for (int64_t l = 0; l < layers; l++) of(l, 0, block, l, channels);
        pushes(0, layers, block, of);
    }

    template <class Of> void pushes(int64_t first, int64_t last, int64_t &block, Of of) const {
        if (last - first == 1) return;
        const int64_t middle = (first + last) / 2;
        pushes(first, middle, block, of);
        block++;
        for (int64_t l = middle; l < last; l++)
            of(l, channels + first * growth, block, l - middle, (middle - first) * growth);
        pushes(middle, last, block, of);
    }
};

template <class T> void into_block(const Real<T> *weight, T *block, int64_t columns) { put(block, weight, columns); }

template <class T> void into_weight(Real<T> *weight, const T *block, int64_t columns) {
#pragma omp simd
    for (int64_t c = 0; c < columns; c++) weight[c] = read(block[c]);
}

// copy(weight, block, columns) for each line of the weights and where it lies in the blocks.
template <class T, class Copy>
void of_parts(Packing packing, Real<T> *const *weights, T *const *blocks, int threads, Copy copy) {
    struct Part {
        Real<T> *weight;
        T *block;
        int64_t line, columns;
    };
    std::vector<Part> parts;
    const int64_t lines = packing.growth * packing.taps;
    packing.each([&](int64_t l, int64_t column, int64_t block, int64_t row, int64_t columns) {
        const int64_t line = packing.channels + l * packing.growth;
        parts.push_back({weights[l] + column, blocks[block] + row * lines * columns, line, columns});
    });
    in_parallel(lines, threads, [&](int64_t line) {
        for (const Part &part : parts)
            copy(part.weight + line * part.line, part.block + line * part.columns, part.columns);
    });
}

struct Loops {
    void (*normalize)(SHAPE, MAPS(x), MAPS(x_hat), void *rstd, double eps);
    void (*normalize_backward)(SHAPE, MAPS(grad), MAPS(x_hat), MAPS(out), const void *rstd);
    void (*add)(SHAPE, MAPS(values), MAPS(out));
    void (*add_relu_backward)(SHAPE, MAPS(grad), MAPS(x), MAPS(out));
    void (*conv)(SHAPE, MAPS(x), MAPS(y), CONVOLUTION, int relu, void *taps, void *bias, int add);
    void (*conv_backward_input)(SHAPE, MAPS(grad_x), MAPS(grad_y), CONVOLUTION, void *taps);
    void (*conv_backward_taps)(SHAPE, MAPS(x), MAPS(grad_y), CONVOLUTION, int relu, void *grad, float *sums);
};

// Of the convolution by which layers push their maps into later ones: its taps, their gradient or null, Winograd's tiles.
struct Push {
    void *taps, *gradient;
    int64_t tile;
};

// The maps of layers, or of those from one on.
struct OfLayers {
    char *data;
    int64_t sample, line, bytes; // of a layer's maps in a line
    OfLayers from(int64_t layer) const { return {data + layer * bytes, sample, line, bytes}; }
};

#define OF(maps) maps.data, maps.sample, maps.line
#define OF_LAYERS(name) OfLayers{static_cast<char *>(name##_data), name##_sample, name##_line, bytes}
#define HEAD(layers) dtype, threads, samples, positions, (layers) * growth
#define BY(push, layers) push.tile, 1, width, (layers) * growth, 1, 0, 1, 0, 0, 0

struct System {
    int dtype, threads;
    int64_t samples, positions, width, growth;
    const Loops &loops;
    void *const *rstd; // of each layer's maps, or null: no norm
    const Push *push;  // before the next one of the solve, behind that of the transposed

    // y from what layers received from x, y_hat normalized; documented at `fused._solve`.
    void solve(int64_t first, int64_t last, OfLayers y, OfLayers y_hat, double eps) {
        if (last - first == 1) {
            if (rstd) loops.normalize(HEAD(1), OF(y.from(first)), OF(y_hat.from(first)), rstd[first], eps);
            return;
        }
        const int64_t middle = (first + last) / 2;
        solve(first, middle, y, y_hat, eps);
        const Push &next = *push++;
        loops.conv(
            HEAD(middle - first), OF(y_hat.from(first)), OF(y.from(middle)), BY(next, last - middle), true, next.taps,
            nullptr, true
        );
        solve(middle, last, y, y_hat, eps);
    }

    // The gradients g of y and g_hat of y_hat, which may be one, made complete; `to_a` has room for those of ReLU(y_hat)
    // of half of the layers. Documented at `system.solve_transposed`.
    void transposed(int64_t first, int64_t last, OfLayers g, OfLayers g_hat, OfLayers y_hat, void *to_a) {
        if (last - first == 1) {
            if (!rstd) return;
            const OfLayers own = g_hat.from(first);
            loops.normalize_backward(HEAD(1), OF(own), OF(y_hat.from(first)), OF(own), rstd[first]);
            if (g.data != g_hat.data) loops.add(HEAD(1), OF(own), OF(g.from(first)));
            return;
        }
        const int64_t middle = (first + last) / 2;
        transposed(middle, last, g, g_hat, y_hat, to_a);
        const Push &next = *--push;
        const OfLayers pushed = g.from(middle), read = y_hat.from(first);
        const int64_t channels = (middle - first) * growth;
        const OfLayers back{static_cast<char *>(to_a), positions * channels, channels, 0};
        loops.conv_backward_input(
            HEAD(middle - first), OF(back), OF(pushed), BY(next, last - middle), next.taps
        );
        if (next.gradient)
            loops.conv_backward_taps(
                HEAD(middle - first), OF(read), OF(pushed), BY(next, last - middle), true, next.gradient, nullptr
            );
        loops.add_relu_backward(HEAD(middle - first), OF(back), OF(read), OF(g_hat.from(first)));
        transposed(first, middle, g, g_hat, y_hat, to_a);
    }
};

} // namespace

// Weights are of the numbers that those of the blocks, of the dtype, are computed as; both lie in channels_last.
#define PACKING                                                                                                        \
    int dtype, int threads, int64_t layers, int64_t taps, int64_t channels, int64_t growth, void *const *weights,      \
        void *const *blocks
#define OF_PARTS(copy)                                                                                                 \
    FOR_DTYPE(                                                                                                         \
        dtype, T,                                                                                                      \
        of_parts<T>(                                                                                                   \
            {layers, taps, channels, growth}, reinterpret_cast<Real<T> *const *>(weights),                             \
            reinterpret_cast<T *const *>(blocks), threads, copy<T>                                                     \
        )                                                                                                              \
    )

EXPORT void pack(PACKING) { OF_PARTS(into_block) }

EXPORT void unpack(PACKING) { OF_PARTS(into_weight) }

// `channels` are those of all layers.
#define SYSTEM const Loops *loops, int64_t width, int64_t layers, const Push *pushes, void *const *rstd
#define MADE_SYSTEM(push)                                                                                              \
    const int64_t growth = channels / layers, bytes = growth * (dtype ? sizeof(BFloat16) : sizeof(float));             \
    System system{dtype, threads, samples, positions, width, growth, *loops, rstd, push}

EXPORT void solve(SHAPE, MAPS(y), MAPS(y_hat), SYSTEM, double eps) {
    MADE_SYSTEM(pushes);
    system.solve(0, layers, OF_LAYERS(y), OF_LAYERS(y_hat), eps);
}

EXPORT void solve_transposed(SHAPE, MAPS(g), MAPS(g_hat), MAPS(y_hat), SYSTEM, void *to_a) {
    MADE_SYSTEM(pushes + layers - 1);
    system.transposed(0, layers, OF_LAYERS(g), OF_LAYERS(g_hat), OF_LAYERS(y_hat), to_a);
}
