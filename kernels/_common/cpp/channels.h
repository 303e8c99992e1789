// Neighbouring channels as vectors, which stay in a processor's registers through a loop over positions.
#pragma once

#include "maps.h"

template <class Width> struct Fixed : std::integral_constant<int64_t, 0> {};
template <int64_t N> struct Fixed<std::integral_constant<int64_t, N>> : std::integral_constant<int64_t, N> {};

#if defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#define MASKED

// Lanes of a vector that `mask` has, of what lies in memory; the others are zero, and not stored.
inline __m512 load(const float *from, uint32_t mask) { return _mm512_maskz_loadu_ps(__mmask16(mask), from); }
inline __m512d load(const double *from, uint32_t mask) { return _mm512_maskz_loadu_pd(__mmask8(mask), from); }
inline __m512 load(const BFloat16 *from, uint32_t mask) {
    return __m512(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(__mmask16(mask), from)), 16));
}
inline __m512 load(const Float16 *from, uint32_t mask) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(__mmask16(mask), from));
}
inline void store(float *to, __m512 x, uint32_t mask) { _mm512_mask_storeu_ps(to, __mmask16(mask), x); }
inline void store(double *to, __m512d x, uint32_t mask) { _mm512_mask_storeu_pd(to, __mmask8(mask), x); }
inline void store(BFloat16 *to, __m512 x, uint32_t mask) { // as `write`
    const __m512i bits = __m512i(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i halfway = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
    const __m512i quiet = _mm512_mask_mov_epi32(
        _mm512_srli_epi32(halfway, 16), _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc0)
    );
    _mm256_mask_storeu_epi16(to, __mmask16(mask), _mm512_cvtepi32_epi16(quiet));
}
inline void store(Float16 *to, __m512 x, uint32_t mask) {
    _mm256_mask_storeu_epi16(to, __mmask16(mask), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
#endif

// As many as `Width` says, or a block, or half of one, of which fewer may be in use: what is beyond is zero, and not stored.
template <class R, class Width> struct Channels {
    typedef R Vector __attribute__((vector_size(64)));
    typedef R InMemory __attribute__((vector_size(64), aligned(sizeof(R)), may_alias));
    static constexpr int64_t LANES = 64 / sizeof(R), ROOM = std::is_same_v<Width, Few> ? BLOCK / 2 : BLOCK;
    static constexpr int64_t COUNT = Fixed<Width>::value ? Fixed<Width>::value : ROOM;
    static constexpr int64_t PARTS = COUNT / LANES;
    Vector part[PARTS];

    Channels() : part{} {}

    // The lanes of a part that are in use, of fewer than a block.
    static uint32_t mask(int64_t i, int64_t width) {
        return (1u << std::clamp<int64_t>(width - i * LANES, 0, LANES)) - 1;
    }

    template <class T> Channels(const T *from, Width width) {
#ifdef MASKED
        if constexpr (!Fixed<Width>::value) {
            for (int64_t i = 0; i < PARTS; i++) part[i] = Vector(load(from + i * LANES, mask(i, width)));
            return;
        }
#endif
        R buffer[COUNT];
        if (!Fixed<Width>::value) std::fill_n(buffer, COUNT, R(0));
        const R *const values = real(from, buffer, width);
        if (!Fixed<Width>::value && values != buffer) std::copy_n(values, int64_t(width), buffer);
        from_memory(Fixed<Width>::value ? values : buffer);
    }

    // Vector by vector: compilers keep in memory what is copied as a whole.
    void from_memory(const R *values) {
        for (int64_t i = 0; i < PARTS; i++) part[i] = reinterpret_cast<const InMemory *>(values)[i];
    }

    void to(R *values) const {
        for (int64_t i = 0; i < PARTS; i++) reinterpret_cast<InMemory *>(values)[i] = part[i];
    }

    template <class T> void to(T *where, Width width) const {
#ifdef MASKED
        if constexpr (!Fixed<Width>::value) {
            for (int64_t i = 0; i < PARTS; i++) store(where + i * LANES, part[i], mask(i, width));
            return;
        }
#endif
        R values[COUNT];
        to(values);
        put(where, values, width);
    }

    friend Channels operator+(Channels a, const Channels &b) {
        for (int64_t i = 0; i < PARTS; i++) a.part[i] += b.part[i];
        return a;
    }
    friend Channels operator-(Channels a, const Channels &b) {
        for (int64_t i = 0; i < PARTS; i++) a.part[i] -= b.part[i];
        return a;
    }
    friend Channels operator*(Channels a, const Channels &b) {
        for (int64_t i = 0; i < PARTS; i++) a.part[i] *= b.part[i];
        return a;
    }
    friend Channels operator*(Channels a, R b) {
        for (int64_t i = 0; i < PARTS; i++) a.part[i] *= b;
        return a;
    }
};
