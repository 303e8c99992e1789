// Gradients of a 1x1 convolution with 2x2 max pooling behind it.
//
// Of the four positions of a square, a map's gradient goes to one: a quarter of the products of the convolution's own
// gradients, and nothing is written that is mostly zeros. No result depends on how many threads there are.
#include <vector>

#include "vectors.h"

namespace {

// Squares of four positions, in maps of some width.
struct Squares {
    int64_t samples, of_sample, width, across = width / 2;
    int64_t count() const { return samples * of_sample; }
    template <class T> T *line(Maps<T> maps, int64_t square) const {
        return maps.at(square / of_sample, square % of_sample);
    }
    template <class T> T *corner(Maps<T> maps, int64_t square, int number) const {
        const int64_t top = square % of_sample / across * 2, left = square % of_sample % across * 2;
        return maps.at(square / of_sample, (top + number / 2) * width + left + number % 2);
    }
};

// body(V, c): V vectors of channels from c on, as few times as registers hold sums of them.
template <class Body> void of_vectors(int64_t channels, Body body) {
    constexpr int MOST = LANES == 16 ? 14 : 8;
    const int64_t vectors = channels / LANES, times = divided(vectors, MOST), each = divided(vectors, times);
    for (int64_t v = 0; v < vectors; v += each) {
        const auto choose = [&](auto self, auto V) -> void {
            if (V == std::min(each, vectors - v))
                body(V, v * LANES);
            else if constexpr (V > 1)
                self(self, std::integral_constant<int, V - 1>());
        };
        choose(choose, std::integral_constant<int, MOST>());
    }
}

// The gradients of a square's maps that go to one of its corners, and of which maps they are.
struct Corner {
    std::vector<int32_t> maps;
    std::vector<float> gradients;
    int64_t count;
    explicit Corner(int64_t most) : maps(most + LANES), gradients(most + LANES) {}
    template <class T> void find(const T *grad, const uint8_t *which, int number, int64_t O) {
        count = 0;
        int64_t o = 0;
#ifdef __AVX512F__
        for (; o + LANES <= O; o += LANES) {
            const auto place = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(which + o)));
            const auto here = _mm512_cmpeq_epi32_mask(place, _mm512_set1_epi32(number));
            const auto from_o = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            const auto map = _mm512_add_epi32(from_o, _mm512_set1_epi32(int32_t(o)));
            _mm512_storeu_si512(&maps[count], _mm512_maskz_compress_epi32(here, map));
            _mm512_storeu_ps(&gradients[count], _mm512_maskz_compress_ps(here, __m512(load(grad + o))));
            count += __builtin_popcount(here);
        }
#endif
        for (; o < O; o++) {
            maps[count] = int32_t(o);
            gradients[count] = read(grad[o]);
            count += which[o] == number;
        }
    }
};

// The gradient of x, of a weight (O, C).
template <class T>
void to_input(
    Squares squares, int64_t O, Maps<T> grad, Maps<uint8_t> which, Maps<T> to_x, int64_t C, const T *weight, int threads
) {
#pragma omp parallel num_threads(threads) if (squares.count() * O > FEW)
    {
        Corner corner(O);
#pragma omp for schedule(static)
        for (int64_t square = 0; square < squares.count(); square++)
            for (int number = 0; number < 4; number++) {
                corner.find(squares.line(grad, square), squares.line(which, square), number, O);
                T *const to = squares.corner(to_x, square, number);
                of_vectors(C, [&](auto V, int64_t c) {
                    Vector sums[V] = {};
                    for (int64_t i = 0; i < corner.count; i++) {
                        const T *const row = weight + corner.maps[i] * C + c;
                        for (int v = 0; v < V; v++) sums[v] += corner.gradients[i] * load(row + v * LANES);
                    }
                    for (int v = 0; v < V; v++) store(to + c + v * LANES, sums[v]);
                });
            }
    }
}

// Squares that are read together, and of how many, at least, there are sums of their own.
constexpr int64_t TOGETHER = 8, MANY = 32;

// The gradients of W, of x or of ReLU(x), and of the bias.
template <class T>
void to_taps(
    Squares squares, int64_t O, Maps<T> grad, Maps<uint8_t> which, Maps<T> x, int64_t C, bool relu, T *to_W, T *to_b,
    int threads
) {
    const int64_t parts = std::clamp<int64_t>(squares.count() / MANY, 1, 16), of_part = divided(squares.count(), parts);
    std::vector<std::vector<float>> sums_of(parts); // of W, and behind it of the bias
#pragma omp parallel num_threads(threads) if (squares.count() * O > FEW)
    {
        std::vector<float> of_x(TOGETHER * 4 * C), of_grad(TOGETHER * O);
        const uint8_t *places[TOGETHER];
#pragma omp for schedule(static)
        for (int64_t part = 0; part < parts; part++) {
            std::vector<float> &of_W = sums_of[part];
            of_W.resize(O * C + O);
            float *const of_b = &of_W[O * C];
            const int64_t end = std::min((part + 1) * of_part, squares.count());
            for (int64_t first = part * of_part; first < end; first += TOGETHER) {
                const int64_t count = std::min(TOGETHER, end - first);
                for (int64_t t = 0; t < count; t++) {
                    places[t] = squares.line(which, first + t);
                    const T *const of_square = squares.line(grad, first + t);
                    for (int64_t o = 0; o < O; o += LANES) {
                        const Vector value = load(of_square + o);
                        store(&of_grad[t * O + o], value);
                        store(of_b + o, load(of_b + o) + value);
                    }
                    for (int number = 0; number < 4; number++) {
                        const T *const from = squares.corner(x, first + t, number);
                        for (int64_t c = 0; c < C; c += LANES) {
                            const Vector value = load(from + c);
                            store(&of_x[(4 * t + number) * C + c], relu ? (value < 0.f ? Vector{} : value) : value);
                        }
                    }
                }
                for (int64_t o = 0; o < O; o++)
                    of_vectors(C, [&](auto V, int64_t c) {
                        Vector sums[V];
                        float *const to = &of_W[o * C + c];
                        for (int v = 0; v < V; v++) sums[v] = load(to + v * LANES);
                        for (int64_t t = 0; t < count; t++) {
                            const float *const row = &of_x[(4 * t + places[t][o]) * C + c];
                            for (int v = 0; v < V; v++) sums[v] += of_grad[t * O + o] * load(row + v * LANES);
                        }
                        for (int v = 0; v < V; v++) store(to + v * LANES, sums[v]);
                    });
            }
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < O * C + O; i += LANES) {
            Vector sum{};
            for (const auto &of_W : sums_of) sum += load(&of_W[i]);
            store(i < O * C ? to_W + i : to_b + i - O * C, sum);
        }
    }
}

} // namespace

#define FOR_MAPS(...)                                                                                                  \
    const Squares squares{samples, positions, width};                                                                  \
    const auto compute = [=](auto zero) {                                                                              \
        using T = decltype(zero);                                                                                      \
        __VA_ARGS__;                                                                                                   \
    };                                                                                                                 \
    dtype ? compute(BFloat16{}) : compute(float{})

// The gradient of x, (.., in), in squares; a last odd row or column is not written.
EXPORT void backward_input(SHAPE, MAPS(grad), MAPS(which), MAPS(to_x), int64_t width, int64_t in, void *weight) {
    FOR_MAPS(to_input<T>(
        squares, channels, AS(T, grad), AS(uint8_t, which), AS(T, to_x), in, static_cast<const T *>(weight), threads
    ));
}

// The gradients of the weight, (channels, in), and of the bias.
EXPORT void backward_taps(
    SHAPE, MAPS(grad), MAPS(which), MAPS(x), int64_t width, int64_t in, int relu, void *to_weight, void *to_bias
) {
    FOR_MAPS(to_taps<T>(
        squares, channels, AS(T, grad), AS(uint8_t, which), AS(T, x), in, relu, static_cast<T *>(to_weight),
        static_cast<T *>(to_bias), threads
    ));
}
