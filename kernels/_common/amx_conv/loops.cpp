// 3x3 convolutions of channels_last maps in bfloat16, padded by one, by a processor's tiles (AMX).
//
// Images are copied into one line of positions, a row behind another, with zeros in front of each row and a row of zeros
// between images. There each tap is a fixed distance away from the position that it is for, and what the three taps of a row
// read are neighbours. So a convolution is a sum of three products of matrices, one for each row of taps, (positions x 3 C) by
// (3 C x O). The first matrix is nowhere written: its rows overlap in the line. What comes out at the zeros is left out.
//
// As many rows are taken together as stay in a core's own cache. No result depends on how many threads there are.
#include <vector>

#include "amx.h"
#include "convolution.h"
#include "transpose.h"

#ifndef HAS_TILES
#error "this compiler does not know the processor's AMX"
#endif

namespace {

constexpr int64_t TAPS = 3;

// Images in one line of positions.
struct Line {
    int64_t samples, height, width;
    int64_t row() const { return width + 1; }
    int64_t rows() const { return samples * (height + 1) - 1; } // between those of zeros at either end

    // Where the maps of a row lie; null: zeros.
    BFloat16 *find(Maps<BFloat16> maps, int64_t r) const {
        const int64_t i = r % (height + 1);
        return r < 0 || r >= rows() || i == height ? nullptr : maps.at(r / (height + 1), i * width);
    }
};

// Copy the rows begin .. end - 1, and zeros for `more` positions.
void copy(Line line, Maps<BFloat16> maps, int64_t channels, bool relu, int64_t begin, int64_t end, int64_t more, BFloat16 *to) {
    const auto zeros = [&](int64_t positions) { to = std::fill_n(to, positions * channels, BFloat16{}); };
    for (int64_t r = begin; r < end; r++) {
        const BFloat16 *from = line.find(maps, r);
        zeros(from ? 1 : line.row());
        if (!from) continue;
        for (int64_t j = 0; j < line.width; j++, from += maps.line, to += channels) as_factors(from, relu, to, channels);
    }
    zeros(more);
}

// As `store`, by the processor's own instruction: tiles, too, take what is nearly zero for zero.
inline void store_rounded(BFloat16 *to, Vector x) { *reinterpret_cast<__m256i_u *>(to) = __m256i(_mm512_cvtneps_pbh(__m512(x))); }

// Positions whose sums are in memory at a time, those that are read beyond the last row for them, and bytes of a core's own
// cache for what is read.
constexpr int64_t SPAN = 2 * SIDE, MORE = SPAN + 1, BYTES = 1 << 15;

// Maps `out` of x, or of ReLU(x), and bias, or added to y; bias may be null. Words: for each row of taps (3 in / 2, out).
void convolution(
    int threads, Line line, Maps<BFloat16> x, int64_t in, bool relu, const Pair *words, Maps<BFloat16> y, int64_t out,
    const BFloat16 *bias, bool add
) {
    if (line.samples * line.height * line.width == 0) return;
    const int64_t row = line.row(), fit = std::max<int64_t>(BYTES / (row * in * sizeof(BFloat16)) - 2, 4);
    const int64_t together = std::min(fit, divided(line.rows(), 2 * threads)), chunks = divided(line.rows(), together);
#pragma omp parallel num_threads(threads) if (line.rows() * row * in > FEW)
    {
        const auto values = unwritten<BFloat16>(((together + 2) * row + MORE) * in);
        const auto sums = unwritten<float>(SPAN * out);
        std::vector<BFloat16 *> places(together * row);
        const Tiles tiles;
#pragma omp for schedule(static)
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            const int64_t first = chunk * together, count = std::min(together, line.rows() - first);
            copy(line, x, in, relu, first - 1, first + count + 1, MORE, values.get());
            for (int64_t r = 0; r < count; r++) {
                BFloat16 *const to = line.find(y, first + r);
                for (int64_t j = 0; j < row; j++) places[r * row + j] = to && j < line.width ? to + j * y.line : nullptr;
            }
            for (int64_t begin = 0; begin < count * row; begin += SPAN) {
                const auto *const pairs = reinterpret_cast<const Pair *>(values.get() + begin * in);
                tile_product<false>(SPAN, out, {TAPS, TAPS * in / 2, pairs, in / 2, row * in / 2, words}, sums.get());
                for (int64_t i = 0; i < std::min(SPAN, count * row - begin); i++)
                    if (BFloat16 *const to = places[begin + i])
                        for (int64_t o = 0; o < out; o += LANES) {
                            Vector sum = load(sums.get() + i * out + o);
                            if (add) sum += load(to + o);
                            if (bias) sum += load(bias + o);
                            store_rounded(to + o, sum);
                        }
            }
        }
    }
}

// Taps (out, 3, 3, in) as words of two neighbours in depth: (3, 3 in / 2, out), or for the gradient of what is read, turned
// round, (3, 3 out / 2, in).
Memory<Pair> in_words(void *taps, int64_t out, int64_t in) {
    const int64_t depth = TAPS * TAPS * in / 2;
    auto words = unwritten<Pair>(depth * out);
    transpose_maps(out, depth, static_cast<Pair *>(taps), depth, words.get(), out, true);
    return words;
}

Memory<Pair> in_words_turned(void *taps, int64_t out, int64_t in) {
    auto words = unwritten<Pair>(TAPS * TAPS * out / 2 * in);
    Pair *to = words.get();
    for (int64_t tap = TAPS * TAPS - 1; tap >= 0; tap--)
        for (int64_t o = 0; o < out; o += 2, to += in) {
            const auto *const first = static_cast<BFloat16 *>(taps) + (o * TAPS * TAPS + tap) * in;
            const auto *const second = first + TAPS * TAPS * in;
#pragma omp simd
            for (int64_t c = 0; c < in; c++) to[c].bits = first[c].bits | uint32_t(second[c].bits) << 16;
        }
    return words;
}

} // namespace

#define LINE Line{samples, positions / width, width}

// y = taps * x + bias, or y += taps * x + bias, where x may go through ReLU; bias may be null.
EXPORT void conv(SHAPE, MAPS(x), MAPS(y), CONVOLUTION, int relu, void *taps, void *bias, int add) {
    const auto words = in_words(taps, out, channels);
    convolution(
        threads, LINE, AS(BFloat16, x), channels, relu, words.get(), AS(BFloat16, y), out, static_cast<BFloat16 *>(bias), add
    );
}

// The gradient of x, or of ReLU(x), (.., channels), from that of y, (.., out).
EXPORT void conv_backward_input(SHAPE, MAPS(grad_x), MAPS(grad_y), CONVOLUTION, void *taps) {
    const auto words = in_words_turned(taps, out, channels);
    convolution(
        threads, LINE, AS(BFloat16, grad_y), out, false, words.get(), AS(BFloat16, grad_x), channels, nullptr, false
    );
}
