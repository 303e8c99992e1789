// Convolutions between small maps, of few positions, and large ones, and their gradients, as products of matrices with a
// weight as it lies in memory: it is read, or written, once. Maps are float or bfloat16, all else is float.
#include <vector>

#include "product.h"

namespace {

constexpr int AXES = 3; // depth, height and width; of images the first has one position
constexpr int64_t SPAN = 16;

// A convolution between small maps and large ones: small position i of an axis sees large ones step * i - before + tap.
struct Window {
    int64_t small[AXES], large[AXES], taps[AXES], step[AXES], before[AXES];
    int64_t taps_first; // channels are neighbours in the weight's rows, or taps

    static int64_t all(const int64_t *sizes) { return sizes[0] * sizes[1] * sizes[2]; }

    // In a row of the weight of so many channels: from one to the next, and from one tap to the next.
    int64_t channel() const { return taps_first ? 1 : all(taps); }
    int64_t tap(int64_t channels) const { return taps_first ? channels : 1; }
};
static_assert(sizeof(Window) == (5 * AXES + 1) * sizeof(int64_t)); // as Python hands it over

// Maps, of lines or contiguous.
template <class T> struct Places {
    Maps<T> maps;
    int64_t samples, positions, channels;
    int64_t channel() const { return maps.line ? 1 : positions; } // from one to the next
    T *at(int64_t n, int64_t p) const { return maps.data + n * maps.sample + p * (maps.line ? maps.line : 1); }
};

// Divide a number of a position into those of axes.
inline void divide(int64_t position, const int64_t *sizes, int64_t *on_axes) {
    for (int axis = AXES - 1; axis >= 0; axis--) {
        on_axes[axis] = position % sizes[axis];
        position /= sizes[axis];
    }
}

// body(c, r, m) of each channel, which is r elements from a row's first and m from a position's; all are c if `NEIGHBOURS`.
template <bool NEIGHBOURS, class Body> void of_channels(int64_t channels, int64_t in_row, int64_t in_maps, Body body) {
#pragma omp simd
    for (int64_t c = 0; c < channels; c++) body(c, NEIGHBOURS ? c : c * in_row, NEIGHBOURS ? c : c * in_maps);
}

// Numbers of the large positions that each small one of a sample sees by each tap; -1: outside.
inline std::vector<int64_t> seen(const Window &w) {
    const int64_t positions = w.all(w.small), taps = w.all(w.taps);
    std::vector<int64_t> numbers(positions * taps);
    for (int64_t p = 0; p < positions; p++)
        for (int64_t t = 0; t < taps; t++) {
            int64_t at[AXES], tap[AXES], number = 0;
            divide(p, w.small, at);
            divide(t, w.taps, tap);
            bool inside = true;
            for (int axis = 0; axis < AXES; axis++) {
                const int64_t i = w.step[axis] * at[axis] - w.before[axis] + tap[axis];
                inside = inside && i >= 0 && i < w.large[axis];
                number = number * w.large[axis] + i;
            }
            numbers[p * taps + t] = inside ? number : -1;
        }
    return numbers;
}

// What small positions see of the large maps: that of position p by tap t of channel c at p * position + t * tap + c *
// channel. To be called by all threads.
template <bool NEIGHBOURS, class T>
void gather(
    const std::vector<int64_t> &seen, const Places<T> &large, int64_t taps, float *to, int64_t position, int64_t tap,
    int64_t channel
) {
    const int64_t positions = seen.size() / taps, all = large.samples * positions;
    const auto one = [&](int64_t begin, int64_t end, int64_t p, int64_t t) {
        const int64_t number = seen[p % positions * taps + t];
        const T *const from = large.at(p / positions, std::max<int64_t>(number, 0)) + begin * large.channel();
        float *const first = to + p * position + t * tap + begin * channel;
        of_channels<NEIGHBOURS>(end - begin, channel, large.channel(), [=](int64_t, int64_t r, int64_t m) {
            first[r] = number < 0 ? 0.f : read(from[m]);
        });
    };
    // As many channels as a core's first cache holds of what is written; positions or taps first, whichever are neighbours.
#pragma omp for schedule(static)
    for (int64_t c = 0; c < large.channels; c += SPAN) {
        const int64_t end = std::min(c + SPAN, large.channels);
        if (position == 1)
            for (int64_t t = 0; t < taps; t++)
                for (int64_t p = 0; p < all; p++) one(c, end, p, t);
        else
            for (int64_t p = 0; p < all; p++)
                for (int64_t t = 0; t < taps; t++) one(c, end, p, t);
    }
}

// Sums of such rows, and a bias if it is not null, where small positions saw them; to be called by all threads.
template <bool NEIGHBOURS, class T>
void add(const Window &w, const float *rows, const float *bias, const Places<T> &large) {
    const int64_t all = large.samples * large.positions, row = w.all(w.taps) * large.channels;
    const auto memory = unwritten<float>(large.channels);
    float *const sums = memory.get();
    const auto each = [&](auto body) {
        of_channels<NEIGHBOURS>(large.channels, w.channel(), large.channel(), body);
    };
#pragma omp for schedule(static)
    for (int64_t p = 0; p < all; p++) {
        const int64_t n = p / large.positions;
        int64_t at[AXES], first[AXES];
        divide(p % large.positions, w.large, at);
        // The first tap by which some small position sees it; the others are steps further.
        for (int axis = 0; axis < AXES; axis++) first[axis] = (at[axis] + w.before[axis]) % w.step[axis];
        each([=](int64_t c, int64_t, int64_t) { sums[c] = bias ? bias[c] : 0.f; });
        for (int64_t a = first[0]; a < w.taps[0]; a += w.step[0])
            for (int64_t b = first[1]; b < w.taps[1]; b += w.step[1])
                for (int64_t c = first[2]; c < w.taps[2]; c += w.step[2]) {
                    const int64_t tap[AXES] = {a, b, c};
                    int64_t small = n, number = 0;
                    bool inside = true;
                    for (int axis = 0; axis < AXES; axis++) {
                        const int64_t i = at[axis] + w.before[axis] - tap[axis];
                        inside = inside && i >= 0 && i / w.step[axis] < w.small[axis];
                        small = small * w.small[axis] + i / w.step[axis];
                        number = number * w.taps[axis] + tap[axis];
                    }
                    if (!inside) continue;
                    const float *const from = rows + small * row + number * w.tap(large.channels);
                    each([=](int64_t c, int64_t r, int64_t) { sums[c] += from[r]; });
                }
        T *const to = large.at(n, p % large.positions);
        each([=](int64_t c, int64_t, int64_t m) { write(to[m], sums[c]); });
    }
}

// Small maps as a matrix, (positions, channels); to be called by all threads.
template <class T> void take(const Places<T> &small, float *matrix) {
#pragma omp for schedule(static)
    for (int64_t p = 0; p < small.samples * small.positions; p++) {
        const T *const from = small.at(p / small.positions, p % small.positions);
        for (int64_t c = 0; c < small.channels; c++) matrix[p * small.channels + c] = read(from[c * small.channel()]);
    }
}

// c = x y for some of y's columns, multiples of LANES; both have rows of `width` columns.
inline void columns(
    int64_t rows, int64_t begin, int64_t end, int64_t width, int64_t depth, const float *x, int64_t row, int64_t step,
    const float *y, float *c
) {
    constexpr int V = LANES == 16 ? 4 : 2;
    int64_t column = begin;
    for (; column + V * LANES <= end; column += V * LANES)
        all_rows<6, V, false>(rows, depth, x, row, step, y + column, width, c + column, width);
    for (; column < end; column += LANES)
        all_rows<10, 1, false>(rows, depth, x, row, step, y + column, width, c + column, width);
}

// Rows of the weight whose gradient is written together, and products that are summed at once.
constexpr int64_t ROWS = 6, DEPTH = 256;

// A convolution between maps, the weight, (small maps' channels, `width`), and memory for matrices.
template <class T> struct Convolution {
    const Window &window;
    Places<T> large, small;
    float *weight, *space;
    int threads;
    int64_t all = small.samples * small.positions, taps = window.all(window.taps), width = taps * large.channels;
    bool neighbours = large.channel() == 1 && window.channel() == 1;

    // small = rows(large) weight^T + bias, which may be null. Space: (width + small.channels) * all, up to full vectors.
    void to_small(const float *bias) const {
        const int64_t across = divided(all, LANES) * LANES;
        float *const columns = space, *const made = space + width * across;
        const auto places = seen(window);
#pragma omp parallel num_threads(threads)
        {
            gather<false>(places, large, taps, columns, 1, window.tap(large.channels) * across, window.channel() * across);
#pragma omp for schedule(static)
            for (int part = 0; part < threads; part++) {
                const auto [begin, end] = Share(small.channels, 1, part, threads);
                for (int64_t k = 0; k < width; k += DEPTH) // sums of parts are off by less
                    (k ? product<true, float> : product<false, float>)(
                        end - begin, across, std::min(DEPTH, width - k), weight + begin * width + k, width, 1,
                        columns + k * across, made + begin * across
                    );
                for (int64_t c = begin; c < end; c++)
                    for (int64_t p = 0; p < all; p++) {
                        T *const to = small.at(p / small.positions, p % small.positions) + c * small.channel();
                        write(*to, made[c * across + p] + (bias ? bias[c] : 0.f));
                    }
            }
        }
    }

    // large = added(small weight) + bias, which may be null. Space: (width + small.channels) * all.
    void to_large(const float *bias) const {
        float *const rows = space, *const matrix = space + width * all;
#pragma omp parallel num_threads(threads)
        {
            take(small, matrix);
#pragma omp for schedule(static)
            for (int part = 0; part < threads; part++) {
                const auto [begin, end] = Share(width, LANES, part, threads);
                columns(all, begin, end, width, small.channels, matrix, small.channels, 1, weight, rows);
            }
            (neighbours ? add<true, T> : add<false, T>)(window, rows, bias, large);
        }
    }

    // weight = small^T rows(large). Space: (width + small.channels) * all.
    void to_weight() const {
        float *const rows = space, *const matrix = space + width * all;
        const int64_t channels = small.channels;
        const auto places = seen(window);
#pragma omp parallel num_threads(threads)
        {
            take(small, matrix);
            (neighbours ? gather<true, T> : gather<false, T>)(
                places, large, taps, rows, width, window.tap(large.channels), window.channel()
            );
#pragma omp for schedule(static)
            for (int64_t c = 0; c < channels; c += ROWS)
                columns(
                    std::min(ROWS, channels - c), 0, width, width, all, matrix + c, 1, channels, rows, weight + c * width
                );
        }
    }
};

} // namespace

// What all take: large and small maps, of `channels` and `out`, the weight, and memory for matrices.
#define CONVOLUTION SHAPE, MAPS(large), MAPS(small), const Window *window, int64_t out, float *weight, float *space

// Do something with the convolution of the dtype's T, float or bfloat16.
#define OF_CONVOLUTION(...)                                                                                            \
    const auto compute = [=](auto zero) {                                                                              \
        using T = decltype(zero);                                                                                      \
        const Places<T> of_large{AS(T, large), samples, positions, channels};                                          \
        const Places<T> of_small{AS(T, small), samples, window->all(window->small), out};                              \
        const Convolution<T> convolution{*window, of_large, of_small, weight, space, threads};                         \
        convolution.__VA_ARGS__;                                                                                       \
    };                                                                                                                 \
    dtype ? compute(BFloat16{}) : compute(float{})

EXPORT void to_small(CONVOLUTION, float *bias) { OF_CONVOLUTION(to_small(bias)); }
EXPORT void to_large(CONVOLUTION, float *bias) { OF_CONVOLUTION(to_large(bias)); }
EXPORT void to_weight(CONVOLUTION) { OF_CONVOLUTION(to_weight()); }
