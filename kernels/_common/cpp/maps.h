// Loops over channels_last maps of several samples, a line of channels after another.
//
// Everything is computed in `Real<T>`: float for float, bfloat16 and float16, double for double. A sample's results do not
// depend on how many threads there are.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#ifdef __F16C__
#include <immintrin.h>
#endif

#define EXPORT extern "C" __attribute__((visibility("default")))

// Export `name_packed`, which takes all arguments of a function in one piece of memory, eight bytes each: to convert twenty
// one by one takes Python as long as a small map takes.
#define EXPORT_PACKED(name)                                                                                            \
    EXPORT void name##_packed(const int64_t *places) { call_with(name, places); }

template <class Argument> Argument taken(const int64_t *place) {
    Argument argument;
    std::memcpy(&argument, place, sizeof argument);
    return argument;
}

template <class... Arguments, size_t... I>
void call_with(void (*function)(Arguments...), const int64_t *places, std::index_sequence<I...>) {
    function(taken<Arguments>(places + I)...);
}

template <class... Arguments> void call_with(void (*function)(Arguments...), const int64_t *places) {
    call_with(function, places, std::index_sequence_for<Arguments...>());
}

// bfloat16 as it lies in memory: the upper half of a float.
struct BFloat16 {
    uint16_t bits;
};

// float16 as it lies in memory. Few processors calculate with it; compilers make no vectors of the instructions that
// convert it, so that single values are converted in whole numbers, and many by `real` and `put`.
struct Float16 {
    uint16_t bits;
};

template <class T> struct RealOf { using type = T; };
template <> struct RealOf<BFloat16> { using type = float; };
template <> struct RealOf<Float16> { using type = float; };
template <class T> using Real = typename RealOf<T>::type;

inline float as_float(uint32_t bits) {
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

inline uint32_t as_bits(float x) {
    uint32_t result;
    std::memcpy(&result, &x, sizeof result);
    return result;
}

inline float read(float x) { return x; }
inline double read(double x) { return x; }
inline float read(BFloat16 x) { return as_float(uint32_t(x.bits) << 16); }
inline float read(Float16 x) {
    // A product with 2^112 moves the exponent, also of subnormal numbers; infinity and NaN keep the greatest.
    const uint32_t size = uint32_t(x.bits & 0x7fffu) << 13, sign = uint32_t(x.bits & 0x8000u) << 16;
    const uint32_t greatest = size >= 0x0f800000u ? 0x7f800000u : 0u;
    return as_float(as_bits(as_float(size) * 0x1p112f) | greatest | sign);
}

inline void write(float &to, float x) { to = x; }
inline void write(double &to, double x) { to = x; }
inline void write(BFloat16 &to, float x) {
    const uint32_t bits = as_bits(x);
    const uint32_t nearest_even = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
    to.bits = uint16_t(x != x ? 0x7fc0u : nearest_even);
}

inline void write(Float16 &to, float x) {
    const uint32_t sign = as_bits(x) & 0x80000000u, size = as_bits(x) ^ sign;
    const uint32_t nearest_even = (size + 0xc8000fffu + ((size >> 13) & 1)) >> 13;
    const uint32_t subnormal = as_bits(as_float(size) + 0.5f) - as_bits(0.5f); // the sum rounds
    const uint32_t finite = size < 0x38800000u ? subnormal : nearest_even;
    const uint32_t result = size >= 0x47800000u ? (size > 0x7f800000u ? 0x7e00u : 0x7c00u) : finite;
    to.bits = uint16_t(result | sign >> 16);
}

// Neighbours in memory as they are computed with: where they lie, or converted into `buffer`.
template <class T, class Width> const Real<T> *real(const T *from, Real<T> *buffer, Width count) {
    if constexpr (std::is_same_v<T, Real<T>>) return from;
    int64_t done = 0;
#ifdef __F16C__
    if constexpr (std::is_same_v<T, Float16>) {
        int64_t i = 0;
        done = count / 8 * 8;
#ifdef __AVX512F__
        for (; i + 16 <= done; i += 16) {
            const auto halves = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(from + i));
            _mm512_storeu_ps(buffer + i, _mm512_cvtph_ps(halves));
        }
#endif
        for (; i < done; i += 8) {
            const auto halves = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + i));
            _mm256_storeu_ps(buffer + i, _mm256_cvtph_ps(halves));
        }
    }
#endif
#pragma omp simd
    for (int64_t i = done; i < count; i++) buffer[i] = read(from[i]);
    return buffer;
}

// Store values that were computed with.
template <class T, class Width> void put(T *to, const Real<T> *values, Width count) {
    int64_t done = 0;
#ifdef __F16C__
    if constexpr (std::is_same_v<T, Float16>) {
        int64_t i = 0;
        done = count / 8 * 8;
#ifdef __AVX512F__
        for (; i + 16 <= done; i += 16) {
            const auto halves = _mm512_cvtps_ph(_mm512_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT);
            _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + i), halves);
        }
#endif
        for (; i < done; i += 8) {
            const auto halves = _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT);
            _mm_storeu_si128(reinterpret_cast<__m128i *>(to + i), halves);
        }
    }
#endif
#pragma omp simd
    for (int64_t i = done; i < count; i++) write(to[i], values[i]);
}

// (N, C, positions): channel c of position p of sample n is at data[n * sample + p * line + c].
template <class T> struct Maps {
    T *data;
    int64_t sample, line;
    T *at(int64_t n, int64_t p) const { return data + n * sample + p * line; }
};

struct Shape {
    int64_t samples, positions, channels;
    int64_t size() const { return samples * positions * channels; }
};

inline int64_t divided(int64_t number, int64_t by) { return (number + by - 1) / by; } // and rounded up

// A thread's, or another part's, of so many, in units of `by`.
struct Share {
    int64_t begin, end;
    Share(int64_t size, int64_t by, int64_t part, int64_t parts)
        : begin(std::min(size, divided(size, by) * part / parts * by)),
          end(std::min(size, divided(size, by) * (part + 1) / parts * by)) {}
};

// Fewer elements than this are not worth a second thread.
constexpr int64_t FEW = 1 << 13;

// body(i), i < count, by so many threads, each of which takes neighbours. A team of one takes as long as a small map.
template <class Body> void in_parallel(int64_t count, int threads, Body body) {
    if (threads == 1) {
        for (int64_t i = 0; i < count; i++) body(i);
        return;
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < count; i++) body(i);
}

// Threads for so much work.
inline int worth(Shape shape, int threads) { return shape.size() > FEW ? threads : 1; }

// Channels that are worked on together: two vectors of 16 floats, a line of a processor's cache of bfloat16.
constexpr int64_t BLOCK = 32;

// Fewer channels than half a block.
struct Few {
    int64_t width;
    operator int64_t() const { return width; }
};

// body(n, begin, end, c, width): `width` channels from c on of a sample's positions begin .. end - 1, at most `span` of
// them. Full blocks have a constant width, so that the compiler makes vectors of them.
template <class Body> void of_spans(Shape shape, int64_t span, int threads, Body body) {
    span = std::max<int64_t>(span, 1);
    const int64_t blocks = divided(shape.channels, BLOCK), spans = divided(shape.positions, span);
#pragma omp parallel for collapse(3) schedule(static) num_threads(threads) if (shape.size() > FEW)
    for (int64_t n = 0; n < shape.samples; n++)
        for (int64_t number = 0; number < spans; number++)
            for (int64_t block = 0; block < blocks; block++) {
                const int64_t begin = number * span, end = std::min(begin + span, shape.positions);
                const int64_t c = block * BLOCK, width = shape.channels - c;
                if (width >= BLOCK)
                    body(n, begin, end, c, std::integral_constant<int64_t, BLOCK>());
                else if (width == BLOCK / 2)
                    body(n, begin, end, c, std::integral_constant<int64_t, BLOCK / 2>());
                else if (width < BLOCK / 2)
                    body(n, begin, end, c, Few{width});
                else
                    body(n, begin, end, c, width);
            }
}

// body(n, c, width): as `of_spans`, with all positions at once.
template <class Body> void of_blocks(Shape shape, int threads, Body body) {
    of_spans(shape, shape.positions, threads, [=](int64_t n, int64_t, int64_t, int64_t c, auto width) {
        body(n, c, width);
    });
}

// Positions of a sample that a thread goes through before it takes others.
constexpr int64_t RUN = 64;

// body(n, p, c, width): as `of_blocks`, but for elementwise work, which may be divided between positions.
template <class Body> void of_lines(Shape shape, int threads, Body body) {
    const int64_t runs = divided(shape.positions, RUN), odd = shape.channels % (BLOCK / 2);
    const int64_t in_blocks = shape.channels / BLOCK * BLOCK, even = shape.channels - odd;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads) if (shape.size() > FEW)
    for (int64_t n = 0; n < shape.samples; n++)
        for (int64_t run = 0; run < runs; run++)
            for (int64_t p = run * RUN; p < std::min((run + 1) * RUN, shape.positions); p++) {
                for (int64_t c = 0; c < in_blocks; c += BLOCK) body(n, p, c, std::integral_constant<int64_t, BLOCK>());
                if (in_blocks < even) body(n, p, in_blocks, std::integral_constant<int64_t, BLOCK / 2>());
                if (odd) body(n, p, even, odd);
            }
}

// Call a function template for a dtype's number; see lines.py.
#define FOR_DTYPE(number, T, ...)                                                                                      \
    switch (number) {                                                                                                  \
    case 0: { using T = float; __VA_ARGS__; break; }                                                                   \
    case 1: { using T = BFloat16; __VA_ARGS__; break; }                                                                \
    case 2: { using T = double; __VA_ARGS__; break; }                                                                  \
    case 3: { using T = Float16; __VA_ARGS__; break; }                                                                 \
    }

// What all exported functions take, and maps among it.
#define SHAPE int dtype, int threads, int64_t samples, int64_t positions, int64_t channels
#define MAPS(name) void *name##_data, int64_t name##_sample, int64_t name##_line
#define AS(T, name) Maps<T>{static_cast<T *>(name##_data), name##_sample, name##_line}
