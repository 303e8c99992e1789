// Neighbouring channels as vectors, which stay in a processor's registers through a loop over positions.
#pragma once

#include "maps.h"

template <class Width> struct Fixed : std::integral_constant<int64_t, 0> {};
template <int64_t N> struct Fixed<std::integral_constant<int64_t, N>> : std::integral_constant<int64_t, N> {};

// As many as `Width` says, or a block of which fewer may be in use: what is beyond is zero, and not stored.
template <class R, class Width> struct Channels {
    typedef R Vector __attribute__((vector_size(64)));
    static constexpr int64_t LANES = 64 / sizeof(R), COUNT = Fixed<Width>::value ? Fixed<Width>::value : BLOCK;
    static constexpr int64_t PARTS = COUNT / LANES;
    Vector part[PARTS];

    Channels() : part{} {}

    template <class T> Channels(const T *from, Width width) {
        R buffer[COUNT];
        if (!Fixed<Width>::value) std::fill_n(buffer, COUNT, R(0));
        const R *const values = real(from, buffer, width);
        if (!Fixed<Width>::value && values != buffer) std::copy_n(values, int64_t(width), buffer);
        std::memcpy(part, Fixed<Width>::value ? values : buffer, sizeof part);
    }

    void to(R *values) const { std::memcpy(values, part, sizeof part); }

    template <class T> void to(T *where, Width width) const {
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
