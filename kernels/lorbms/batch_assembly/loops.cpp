// Images from where they lie to a batch in [-1, 1]: one read of the bytes and one write of the floats.
#include <cstdint>
#include <cstring>

// A product is rounded before the sum, as in the definition, so that all forms give the same numbers.
#if defined(__clang__)
#pragma clang fp contract(off)
#else
#pragma GCC optimize("fp-contract=off")
#endif

struct BFloat16 {
    uint16_t bits;
};

template <class T> static inline T rounded(float x) { return static_cast<T>(x); }

// To the nearest, ties to even; there are no infinities here and no NaN.
template <> inline BFloat16 rounded(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

template <class T> static inline T in_range(uint8_t u8) { return rounded<T>(u8 * (2.0f / 255.0f) - 1.0f); }

// One line of an image, mirrored or not; its pixels are `step` apart in the batch, its channels `plane`.
template <class T>
static void line_of(const uint8_t *from, bool mirrored, int64_t width, int64_t step, int64_t plane, T *to) {
    for (int64_t channel = 0; channel < 3; channel++)
        for (int64_t x = 0; x < width; x++)
            to[channel * plane + x * step] = in_range<T>(from[3 * (mirrored ? width - 1 - x : x) + channel]);
}

template <class T>
static void assemble(
    const int64_t *addresses, const uint8_t *flip, int64_t n, int64_t height, int64_t width, bool channels_last,
    T *batch, int threads
) {
    const int64_t size = 3 * height * width;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *image = reinterpret_cast<const uint8_t *>(addresses[i]);
        T *to = batch + i * size;
        const bool mirrored = flip && flip[i];
        if (channels_last && !mirrored)
            for (int64_t j = 0; j < size; j++) to[j] = in_range<T>(image[j]);
        else
            for (int64_t y = 0; y < height; y++) {
                const uint8_t *line = image + 3 * y * width;
                if (channels_last)
                    line_of(line, mirrored, width, 3, 1, to + 3 * y * width);
                else
                    line_of(line, mirrored, width, 1, height * width, to + y * width);
            }
    }
}

// dtype: 0 float32, 1 bfloat16, 2 float64. flip: a byte for each image, or none.
extern "C" void assemble_batch(
    int dtype, int threads, const int64_t *addresses, const uint8_t *flip, int64_t n, int64_t height, int64_t width,
    bool channels_last, void *batch
) {
    if (dtype == 0)
        assemble(addresses, flip, n, height, width, channels_last, static_cast<float *>(batch), threads);
    else if (dtype == 1)
        assemble(addresses, flip, n, height, width, channels_last, static_cast<BFloat16 *>(batch), threads);
    else
        assemble(addresses, flip, n, height, width, channels_last, static_cast<double *>(batch), threads);
}
