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

template <class T>
static void assemble(
    const int64_t *addresses, int64_t n, int64_t pixels, bool channels_last, T *batch, int threads
) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *image = reinterpret_cast<const uint8_t *>(addresses[i]);
        T *to = batch + i * 3 * pixels;
        if (channels_last)
            for (int64_t j = 0; j < 3 * pixels; j++) to[j] = in_range<T>(image[j]);
        else
            for (int64_t channel = 0; channel < 3; channel++)
                for (int64_t j = 0; j < pixels; j++) to[channel * pixels + j] = in_range<T>(image[3 * j + channel]);
    }
}

// dtype: 0 float32, 1 bfloat16, 2 float64.
extern "C" void assemble_batch(
    int dtype, int threads, const int64_t *addresses, int64_t n, int64_t height, int64_t width, bool channels_last,
    void *batch
) {
    const int64_t pixels = height * width;
    if (dtype == 0)
        assemble(addresses, n, pixels, channels_last, static_cast<float *>(batch), threads);
    else if (dtype == 1)
        assemble(addresses, n, pixels, channels_last, static_cast<BFloat16 *>(batch), threads);
    else
        assemble(addresses, n, pixels, channels_last, static_cast<double *>(batch), threads);
}
