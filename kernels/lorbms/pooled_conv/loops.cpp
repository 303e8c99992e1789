// A 1x1 convolution with 2x2 max pooling behind it, and its gradients.
//
// What is convolved is pooled in the cache. Of the four positions of a square, a map's gradient goes to one: gradients take a
// quarter of the products. Where a processor adds two at once that of x takes all, which is no slower, and with tiles both do;
// what is mostly zeros is written into the cache alone. No result depends on how many threads there are.
#include <vector>

#include "amx.h"
#include "transpose.h"

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

inline float where(bool here, float x) { return here ? x : 0; }
inline BFloat16 where(bool here, BFloat16 x) { return {uint16_t(x.bits & -here)}; }

// The greatest of four rows of sums, and which it is: what is not a number wins, as in torch's own pool, else the first.
template <class T> void pool(const float *sums, int64_t O, const T *bias, T *y, uint8_t *which) {
    for (int64_t o = 0; o < O; o += LANES) {
        Vector greatest = load(sums + o);
        decltype(greatest < greatest) place{};
        for (int number = 1; number < 4; number++) {
            const Vector other = load(sums + number * O + o);
            const auto greater = (other > greatest) | (other != other);
            greatest = greater ? other : greatest;
            place = greater ? decltype(place){} + number : place;
        }
        store(y + o, greatest + load(bias + o));
        typedef uint8_t Bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
        *reinterpret_cast<Bytes *>(which + o) = __builtin_convertvector(place, Bytes);
    }
}

// c = x y, perhaps by tiles: then x and c have rows in sixteens.
template <class Word>
void multiply(bool by_tiles, int64_t rows, int64_t columns, int64_t depth, const Word *x, const Word *y, float *c) {
#ifdef HAS_TILES
    if constexpr (std::is_same_v<Word, Pair>)
        if (by_tiles) {
            const Tiles tiles;
            return tile_product<false>(divided(rows, SIDE) * SIDE, columns, {1, depth, x, depth, 0, y}, c);
        }
#endif
    product<false>(rows, columns, depth, x, depth, 1, y, c);
}

// Squares whose positions are multiplied at once.
constexpr int64_t TOGETHER = 24, ROWS = 4 * TOGETHER;

// The result, and which of each square's positions it comes from, of x, or of ReLU(x), and of a weight (O, C).
template <class T>
void convolved(
    Squares squares, int64_t O, Maps<T> y, Maps<uint8_t> which, Maps<T> x, int64_t C, bool relu, bool by_tiles,
    const T *weight, const T *bias, int threads
) {
    using Word = typename Factor<T>::Word;
    using Value = typename Factor<T>::Value;
    const int64_t depth = C / Factor<T>::DEEP;
    const auto turned = unwritten<Word>(depth * O); // the weight
#pragma omp parallel num_threads(threads) if (squares.count() * O > FEW)
    {
        const auto rows = unwritten<Word>(ROWS * depth);
        const auto sums = unwritten<float>(ROWS * O);
        Value *const values = reinterpret_cast<Value *>(rows.get());
#pragma omp for schedule(static)
        for (int64_t o = 0; o < O; o += LANES) {
            as_factors(weight + o * C, false, values, LANES * C);
            transpose_maps(LANES, depth, rows.get(), depth, turned.get() + o, O, true);
        }
#pragma omp for schedule(static)
        for (int64_t first = 0; first < squares.count(); first += TOGETHER) {
            const int64_t count = std::min(TOGETHER, squares.count() - first);
            for (int64_t i = 0; i < 4 * count; i++)
                as_factors(squares.corner(x, first + i / 4, i % 4), relu, values + i * C, C);
            multiply(by_tiles, 4 * count, O, depth, rows.get(), turned.get(), sums.get());
            for (int64_t i = 0; i < count; i++)
                pool(sums.get() + 4 * i * O, O, bias, squares.line(y, first + i), squares.line(which, first + i));
        }
    }
}

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

#ifdef __AVX512F__
const __m512i COUNTED = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#endif

// The gradients of a square's maps that go to one of its corners, and of which maps they are, times a weight (O, C).
template <class T> struct Corner {
    const T *const weight;
    const int64_t O, C;
    std::vector<int32_t> maps = std::vector<int32_t>(O + LANES);
    std::vector<float> gradients = std::vector<float>(O + LANES);
    int64_t count = 0;

    void find(const T *grad, const uint8_t *which, int number) {
        count = 0;
        int64_t o = 0;
#ifdef __AVX512F__
        for (; o + LANES <= O; o += LANES) {
            const auto place = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(which + o)));
            const auto here = _mm512_cmpeq_epi32_mask(place, _mm512_set1_epi32(number));
            const auto map = _mm512_add_epi32(COUNTED, _mm512_set1_epi32(int32_t(o)));
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

    template <int V> void add(Vector (&sums)[V], int64_t c) const {
        for (int64_t i = 0; i < count; i++) {
            const T *const row = weight + maps[i] * C + c;
            for (int v = 0; v < V; v++) sums[v] += gradients[i] * load(row + v * LANES);
        }
    }
};

// The gradient of x, which goes through ReLU or not, of a weight (O, C): a quarter of the products.
template <class T>
void to_input_by_corners(
    Squares squares, int64_t O, Maps<T> grad, Maps<uint8_t> which, Maps<T> x, Maps<T> to_x, int64_t C, bool relu,
    bool, const T *weight, int threads
) {
#pragma omp parallel num_threads(threads) if (squares.count() * O > FEW)
    {
        Corner<T> corner{weight, O, C};
#pragma omp for schedule(static)
        for (int64_t square = 0; square < squares.count(); square++)
            for (int number = 0; number < 4; number++) {
                corner.find(squares.line(grad, square), squares.line(which, square), number);
                T *const to = squares.corner(to_x, square, number);
                const T *const from = squares.corner(x, square, number);
                of_vectors(C, [&](auto V, int64_t c) {
                    Vector sums[V] = {};
                    corner.add(sums, c);
                    for (int v = 0; v < V; v++) {
                        const int64_t at = c + v * LANES;
                        store(to + at, relu ? (load(from + at) <= 0.f ? Vector{} : sums[v]) : sums[v]);
                    }
                });
            }
    }
}

// The same with all products, most of them with zeros.
template <class T>
void to_input_by_squares(
    Squares squares, int64_t O, Maps<T> grad, Maps<uint8_t> which, Maps<T> x, Maps<T> to_x, int64_t C, bool relu,
    bool by_tiles, const T *weight, int threads
) {
    using Word = typename Factor<T>::Word;
    using Value = typename Factor<T>::Value;
    constexpr int64_t DEEP = Factor<T>::DEEP;
    const int64_t depth = O / DEEP;
    const auto words = unwritten<Word>(depth * C); // the weight
#pragma omp parallel num_threads(threads) if (squares.count() * O > FEW)
    {
        const auto rows = unwritten<Word>(ROWS * depth);
        const auto sums = unwritten<float>(ROWS * C);
        Value *const values = reinterpret_cast<Value *>(rows.get());
#pragma omp for schedule(static)
        for (int64_t k = 0; k < depth; k++)
            for (int64_t c = 0; c < C; c += LANES) {
                Vector of[DEEP];
                for (int64_t i = 0; i < DEEP; i++) of[i] = load(weight + (k * DEEP + i) * C + c);
                store_words(words.get() + k * C + c, of);
            }
#pragma omp for schedule(static)
        for (int64_t first = 0; first < squares.count(); first += TOGETHER) {
            const int64_t count = std::min(TOGETHER, squares.count() - first);
            for (int64_t i = 0; i < 4 * count; i++) {
                const T *const g = squares.line(grad, first + i / 4);
                const uint8_t *const place = squares.line(which, first + i / 4);
                const uint8_t number = i % 4;
                Value *const row = values + i * O;
#pragma omp simd
                for (int64_t o = 0; o < O; o++) as_factor(row[o], where(place[o] == number, g[o]));
            }
            multiply(by_tiles, 4 * count, C, depth, rows.get(), words.get(), sums.get());
            for (int64_t i = 0; i < 4 * count; i++) {
                const T *const from = squares.corner(x, first + i / 4, i % 4);
                T *const to = squares.corner(to_x, first + i / 4, i % 4);
                for (int64_t c = 0; c < C; c += LANES) {
                    const Vector sum = load(sums.get() + i * C + c);
                    store(to + c, relu ? (load(from + c) <= 0.f ? Vector{} : sum) : sum);
                }
            }
        }
    }
}

template <class T> Vector activated(const T *from, bool relu) {
    const Vector value = load(from);
    return relu ? (value < 0.f ? Vector{} : value) : value;
}

// Add to the gradient of W (O, C), of the maps begin .. end - 1, what a group's squares give.
template <class Group> void add_vectors(const Group &group, int64_t begin, int64_t end, float *of_W) {
    for (int64_t o = begin; o < end; o++)
        of_vectors(group.C, [&](auto V, int64_t c) {
            Vector sums[V];
            float *const to = of_W + o * group.C + c;
            for (int v = 0; v < V; v++) sums[v] = load(to + v * LANES);
            group.add_products(sums, o, c);
            for (int v = 0; v < V; v++) store(to + v * LANES, sums[v]);
        });
}

// Squares read together: the products of their gradients with x at the corners that these go to.
template <class T> struct Group {
    static constexpr int64_t MANY = 32;
    const int64_t O, C;
    std::vector<float> of_x = std::vector<float>(MANY * 4 * C), of_grad = std::vector<float>(MANY * O);
    const uint8_t *places[MANY] = {};
    int64_t count = 0;

    // One more; `corner(number)` is where x lies.
    template <class At> void read(const T *grad, const uint8_t *which, At corner, bool relu) {
        const int64_t t = count++;
        places[t] = which;
        for (int64_t o = 0; o < O; o += LANES) store(&of_grad[t * O + o], load(grad + o));
        for (int number = 0; number < 4; number++)
            for (int64_t c = 0; c < C; c += LANES)
                store(&of_x[(4 * t + number) * C + c], activated(corner(number) + c, relu));
    }

    void add(int64_t begin, int64_t end, float *of_W) const { add_vectors(*this, begin, end, of_W); }

    template <int V> void add_products(Vector (&sums)[V], int64_t o, int64_t c) const {
        for (int64_t t = 0; t < count; t++) {
            const float *const row = &of_x[(4 * t + places[t][o]) * C + c];
            for (int v = 0; v < V; v++) sums[v] += of_grad[t * O + o] * load(row + v * LANES);
        }
    }
};

#ifdef __AVX512BF16__
// Two squares at a time, of which x lies beside each other for each two of their corners.
template <> struct Group<BFloat16> {
    static constexpr int64_t MANY = 32;
    const int64_t O, C;
    std::vector<Pair> of_x = std::vector<Pair>(MANY / 2 * 16 * C), waiting = std::vector<Pair>(4 * C);
    std::vector<Pair> of_grad = std::vector<Pair>(MANY / 2 * O);
    std::vector<uint8_t> places = std::vector<uint8_t>(MANY / 2 * O);
    const std::vector<BFloat16> zeros = std::vector<BFloat16>(std::max(O, C));
    int64_t count = 0;

    template <class At> void read(const BFloat16 *grad, const uint8_t *which, At corner, bool relu) {
        const int64_t t = count++, pair = t / 2;
        const auto bits = [](Vector x) { return __m512i(x); };
        for (int64_t o = 0; o < O; o += LANES) {
            auto both = bits(load(grad + o));
            auto place = _mm_loadu_si128(reinterpret_cast<const __m128i *>(which + o));
            void *const to = &of_grad[pair * O + o], *const to_place = &places[pair * O + o];
            if (t % 2 == 0) {
                both = _mm512_srli_epi32(both, 16);
                place = _mm_slli_epi16(place, 2);
            } else {
                both = _mm512_or_si512(both, _mm512_loadu_si512(to));
                place = _mm_or_si128(place, _mm_loadu_si128(static_cast<__m128i *>(to_place)));
            }
            _mm512_storeu_si512(to, both);
            _mm_storeu_si128(static_cast<__m128i *>(to_place), place);
        }
        for (int number = 0; number < 4; number++)
            for (int64_t c = 0; c < C; c += LANES) {
                const auto x = bits(activated(corner(number) + c, relu));
                if (t % 2 == 0)
                    _mm512_storeu_si512(&waiting[number * C + c], _mm512_srli_epi32(x, 16));
                else
                    for (int before = 0; before < 4; before++)
                        _mm512_storeu_si512(
                            &of_x[((pair * 4 + before) * 4 + number) * C + c],
                            _mm512_or_si512(x, _mm512_loadu_si512(&waiting[before * C + c]))
                        );
            }
    }

    void add(int64_t begin, int64_t end, float *of_W) {
        const BFloat16 *const none = zeros.data();
        if (count % 2) read(none, reinterpret_cast<const uint8_t *>(none), [=](int) { return none; }, false);
        add_vectors(*this, begin, end, of_W);
    }

    template <int V> void add_products(Vector (&sums)[V], int64_t o, int64_t c) const {
        for (int64_t pair = 0; pair < count / 2; pair++) {
            const Pair *const row = &of_x[(pair * 16 + places[pair * O + o]) * C + c];
            for (int v = 0; v < V; v++) sums[v] = plus_product(sums[v], of_grad[pair * O + o], load(row + v * LANES));
        }
    }
};
#endif

// The group where there are tiles.
template <class T> struct InTiles { using Of = Group<T>; };

#ifdef HAS_TILES
// All products, most of them with zeros: a square's four positions are two words, of x and of the gradient. Of 16 squares the
// first words are neighbours in depth, and then the second ones.
struct TileGroup {
    static constexpr int64_t MANY = 64, HALVES = 2;
    const int64_t O, C;
    const Memory<Pair> of_x = unwritten<Pair>(HALVES * MANY * C), of_lines = unwritten<Pair>(HALVES * MANY * O);
    const Memory<Pair> of_grad = unwritten<Pair>(O * HALVES * MANY);
    const std::vector<BFloat16> zeros = std::vector<BFloat16>(std::max(O, C));
    int64_t count = 0;

    template <class At> void read(const BFloat16 *grad, const uint8_t *which, At corner, bool relu) {
        const int64_t t = count++;
        for (int half = 0; half < HALVES; half++) {
            const int64_t word = (t / SIDE * HALVES + half) * SIDE + t % SIDE;
            const BFloat16 *const left = corner(2 * half), *const right = corner(2 * half + 1);
            const auto bits = [=](BFloat16 x) { return uint32_t(relu ? through_relu(x).bits : x.bits); };
            Pair *const of_both = &of_x[word * C], *const of_line = &of_lines[word * O];
#pragma omp simd
            for (int64_t c = 0; c < C; c++) of_both[c].bits = bits(left[c]) | bits(right[c]) << 16;
#pragma omp simd
            for (int64_t o = 0; o < O; o++)
                of_line[o].bits = which[o] / 2 == half ? uint32_t(grad[o].bits) << which[o] % 2 * 16 : 0;
        }
    }

    void add(int64_t begin, int64_t end, float *of_W) {
        const BFloat16 *const none = zeros.data();
        while (count % SIDE) read(none, reinterpret_cast<const uint8_t *>(none), [=](int) { return none; }, false);
        Pair *const rows = &of_grad[begin * HALVES * MANY];
        for (int64_t word = 0; word < HALVES * count; word += SIDE)
            transpose_maps(end - begin, SIDE, rows + word, HALVES * MANY, &of_lines[word * O + begin], O, false);
        const Tiles tiles;
        tile_product<true>(end - begin, C, {1, HALVES * count, rows, HALVES * MANY, 0, of_x.get()}, of_W + begin * C);
    }
};
template <> struct InTiles<BFloat16> { using Of = TileGroup; };
#endif

// The gradients of W, of x or of ReLU(x), and of the bias. Of few squares each thread takes maps of its own, else squares
// are summed in parts.
template <class T, class Group>
void to_taps(
    Squares squares, int64_t O, Maps<T> grad, Maps<uint8_t> which, Maps<T> x, int64_t C, bool relu, T *to_W, T *to_b,
    int threads
) {
    constexpr int64_t PARTS = 16, MANY = Group::MANY;
    const int64_t parts = squares.count() < PARTS * MANY ? 1 : PARTS, of_part = divided(squares.count(), parts);
    const int64_t shares = parts > 1 ? 1 : threads, all = O * C + O;
    const auto sums_of = unwritten<float>(parts * all); // of W, and behind it of the bias
#pragma omp parallel num_threads(threads) if (squares.count() * O > FEW)
    {
        Group group{O, C};
#pragma omp for schedule(static)
        for (int64_t i = 0; i < parts * shares; i++) {
            const int64_t part = i / shares, share = i % shares;
            const int64_t begin = O / LANES * share / shares * LANES, end = O / LANES * (share + 1) / shares * LANES;
            float *const of_W = sums_of.get() + part * all, *const of_b = of_W + O * C;
            std::fill(of_W + begin * C, of_W + end * C, 0.f);
            std::fill(of_b + begin, of_b + end, 0.f);
            const int64_t last = std::min((part + 1) * of_part, squares.count());
            for (int64_t first = part * of_part; first < last; first += MANY) {
                group.count = 0;
                for (int64_t square = first; square < std::min(first + MANY, last); square++) {
                    const T *const of_square = squares.line(grad, square);
                    for (int64_t o = begin; o < end; o += LANES) store(of_b + o, load(of_b + o) + load(of_square + o));
                    const auto corner = [&](int number) { return squares.corner(x, square, number); };
                    group.read(of_square, squares.line(which, square), corner, relu);
                }
                group.add(begin, end, of_W);
            }
        }
#pragma omp for schedule(static)
        for (int64_t i = 0; i < all; i += LANES) {
            Vector sum{};
            for (int64_t part = 0; part < parts; part++) sum += load(sums_of.get() + part * all + i);
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

// The result, and which of each square's positions it comes from.
EXPORT void forward(
    SHAPE, MAPS(y), MAPS(which), MAPS(x), int64_t width, int64_t in, int relu, int by_tiles, const void *weight,
    const void *bias
) {
    FOR_MAPS(convolved<T>(
        squares, channels, AS(T, y), AS(uint8_t, which), AS(T, x), in, relu, by_tiles, static_cast<const T *>(weight),
        static_cast<const T *>(bias), threads
    ));
}

// The gradient of x, (.., in), in squares; a last odd row or column is not written.
EXPORT void backward_input(
    SHAPE, MAPS(grad), MAPS(which), MAPS(x), MAPS(to_x), int64_t width, int64_t in, int relu, int by_tiles,
    const void *weight
) {
    FOR_MAPS(
        const auto to_input = Factor<T>::DEEP > 1 ? to_input_by_squares<T> : to_input_by_corners<T>;
        to_input(
            squares, channels, AS(T, grad), AS(uint8_t, which), AS(T, x), AS(T, to_x), in, relu, by_tiles,
            static_cast<const T *>(weight), threads
        )
    );
}

// The gradients of the weight, (channels, in), and of the bias.
EXPORT void backward_taps(
    SHAPE, MAPS(grad), MAPS(which), MAPS(x), int64_t width, int64_t in, int relu, int by_tiles, void *to_weight,
    void *to_bias
) {
    FOR_MAPS(
        const auto taps_of = by_tiles ? to_taps<T, typename InTiles<T>::Of> : to_taps<T, Group<T>>;
        taps_of(
            squares, channels, AS(T, grad), AS(uint8_t, which), AS(T, x), in, relu, static_cast<T *>(to_weight),
            static_cast<T *>(to_bias), threads
        )
    );
}
