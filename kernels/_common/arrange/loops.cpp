// Maps copied from rows of positions (contiguous) to lines of channels (channels_last), and back.
#include "transpose.h"

namespace {

using transposing::N;

// Positions of a sample that a thread goes through for a few channels before it takes others, at most.
constexpr int64_t SPAN = 256;

// Between row c, position p and line p, channel c of each sample.
template <class T> void arrange(int threads, Shape shape, T *rows, int64_t sample, Maps<T> lines, bool to_lines) {
    const int64_t samples = shape.samples, positions = shape.positions, channels = shape.channels;
    // As many spans for each thread. In a long one rows are read and written as streams, which processors foresee.
    const int64_t rounds = positions / (SPAN * threads) + 1;
    const int64_t width = (positions / (rounds * threads * N) + 1) * N, spans = divided(positions, width);
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads) if (shape.size() > FEW)
    for (int64_t n = 0; n < samples; n++)
        for (int64_t span = 0; span < spans; span++) {
            const int64_t begin = span * width, end = std::min(begin + width, positions);
            T *const row = rows + n * sample + begin;
            transpose_maps(channels, end - begin, row, positions, lines.at(n, begin), lines.line, to_lines);
        }
}

} // namespace

EXPORT void arrange(SHAPE, MAPS(lines), MAPS(rows), int to_lines) {
    const Shape shape{samples, positions, channels};
    const auto copy = [=](auto zero) {
        using T = decltype(zero);
        arrange(threads, shape, static_cast<T *>(rows_data), rows_sample, AS(T, lines), to_lines);
    };
    dtype ? copy(uint16_t{}) : copy(uint32_t{});
}
