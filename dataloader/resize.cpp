// Averages over equal areas of a square, as resize.py takes them: down the rows, then along them.
// Every product is rounded before it is added, as numpy does it, so that both give the same bytes.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif

// image: lines of `line` bytes. Places and weights: (taps, parts), see `Shares`; columns have a part for each channel.
// averages: (row_parts, column_parts).
extern "C" void average_areas(
    const uint8_t *image, int64_t line, const int64_t *row_places, const float *row_weights, int64_t row_taps,
    int64_t row_parts, const int64_t *column_places, const float *column_weights, int64_t column_taps,
    int64_t column_parts, uint8_t *averages
) {
    const int64_t n = column_taps * column_parts;
    const int64_t first = *std::min_element(column_places, column_places + n);
    const int64_t last = *std::max_element(column_places, column_places + n) + 1;
    std::vector<float> of_line(line), of_areas(column_parts);
    float *down = of_line.data(), *along = of_areas.data();
    for (int64_t row = 0; row < row_parts; row++) {
        for (int64_t tap = 0; tap < row_taps; tap++) {
            const uint8_t *pixels = image + row_places[tap * row_parts + row] * line;
            const float weight = row_weights[tap * row_parts + row];
            if (tap == 0)
                for (int64_t i = first; i < last; i++) down[i] = pixels[i] * weight;
            else
                for (int64_t i = first; i < last; i++) down[i] += pixels[i] * weight;
        }
        for (int64_t tap = 0; tap < column_taps; tap++) {
            const int64_t *places = column_places + tap * column_parts;
            const float *weights = column_weights + tap * column_parts;
            if (tap == 0)
                for (int64_t i = 0; i < column_parts; i++) along[i] = down[places[i]] * weights[i];
            else
                for (int64_t i = 0; i < column_parts; i++) along[i] += down[places[i]] * weights[i];
        }
        for (int64_t i = 0; i < column_parts; i++)
            averages[row * column_parts + i] = static_cast<uint8_t>(static_cast<int32_t>(std::nearbyint(along[i])));
    }
}
