// Vectors of floats as wide as the processor's, and their reading and writing as float or bfloat16.
#pragma once

#include "maps.h"

// Channels of a vector.
#ifdef __AVX512F__
constexpr int64_t LANES = 16;
#else
constexpr int64_t LANES = 8;
#endif
typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
inline Vector load(const float *from) { return *reinterpret_cast<const Unaligned *>(from); }
inline void store(float *to, Vector x) { *reinterpret_cast<Unaligned *>(to) = x; }

// bfloat16, converted as in maps.h.
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
inline Vector load(const BFloat16 *from) {
    const Halves halves = *reinterpret_cast<const Halves *>(from);
#ifdef __AVX512F__
    return Vector(Bits(_mm512_cvtepu16_epi32(__m256i(halves))) << 16); // compilers do it in halves
#else
    return Vector(__builtin_convertvector(halves, Bits) << 16);
#endif
}
// In the lower half of each lane.
inline Bits as_bfloat16(Vector x) {
    const Bits bits = Bits(x), nearest_even = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    return x != x ? Bits{} + 0x7fc0u : nearest_even;
}
inline void store(BFloat16 *to, Vector x) {
    *reinterpret_cast<Halves *>(to) = __builtin_convertvector(as_bfloat16(x), Halves);
}

// ReLU; a value less than zero is one with a sign up to infinity's.
inline float through_relu(float x) { return x < 0 ? 0 : x; }
inline BFloat16 through_relu(BFloat16 x) { return {x.bits > 0x8000 && x.bits <= 0xff80 ? uint16_t(0) : x.bits}; }
