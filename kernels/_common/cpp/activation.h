// Activations, and gradients through them, of values that lie together; numbered as in activation.py.
#pragma once

#include "maps.h"

enum Kind : int { IDENTITY, RELU, LEAKY_RELU, SILU, GELU, GELU_TANH };

struct Activation {
    int kind;
    double slope;
};

inline double exponential(double x) { return std::exp(x); }

// Compilers make vectors of this one, not of the library's: x = n ln 2 + r, and a polynomial of r (Cephes' expf).
inline float exponential(float x) {
    x = x > 88.f ? 88.f : x;
    x = x < -87.f ? -87.f : x;
    const float shifted = x * 1.44269504f + 0x1.8p23f, n = shifted - 0x1.8p23f;
    const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const uint32_t power = as_bits(shifted) - as_bits(0x1.8p23f); // n, whose bits are the last of the sum's
    return (p * r * r + r + 1) * as_float((power + 127) << 23);
}

template <class R> R sigmoid(R x) { return 1 / (1 + exponential(-x)); }

// Share of a normal distribution below y.
inline double normal_below(double y) { return std::erfc(-y * M_SQRT1_2) / 2; }
inline float normal_below(float y) {
    // (1 + erf(x)) / 2 with x = y / sqrt(2), and erf(x) = x p(x^2) / q(x^2), which is XLA's: to rounding, and no exponential.
    float x = y * float(M_SQRT1_2);
    x = x > 3.83250690f ? 3.83250690f : x;
    x = x < -3.83250690f ? -3.83250690f : x;
    const float z = x * x;
    float p = 2.29050659e-4f;
    p = p * z + 3.40829101e-3f;
    p = p * z + 5.09556951e-2f;
    p = p * z + 1.85208322e-1f;
    p = p * z + 1.12837914f;
    float q = -1.17916030e-7f;
    q = q * z + 2.35479665e-5f;
    q = q * z + 1.01796256e-3f;
    q = q * z + 1.40704702e-2f;
    q = q * z + 1.10985052e-1f;
    q = q * z + 4.97469251e-1f;
    q = q * z + 1.f;
    return 0.5f + 0.5f * x * p / q;
}

// The same where `density`, e^(-y^2 / 2), is there.
inline double normal_below(double y, double) { return std::erfc(-y * M_SQRT1_2) / 2; }
inline float normal_below(float y, float density) {
    // Abramowitz and Stegun, 7.1.26: at most 1.5e-7 beside erfc, which is what rounding makes as well.
    const float t = 1 / (1 + 0.3275911f * std::abs(y) * float(M_SQRT1_2));
    float p = 1.061405429f;
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const float beyond = p * t * density / 2;
    return y < 0 ? beyond : 1 - beyond;
}

// GELU's approximation is y sigmoid(2 u) with this u.
template <class R> R of_tanh(R y) { return R(0.7978845608028654) * (y + R(0.044715) * y * y * y); }

template <class R, class Value> void each(R *values, int64_t count, Value value) {
    if constexpr (std::is_same_v<R, double>) { // whose exponentials are the library's: no vectors
        for (int64_t i = 0; i < count; i++) values[i] = value(values[i], i);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) values[i] = value(values[i], i);
    }
}

// Values -> their activations.
template <class R> __attribute__((noinline)) void activate(Activation how, R *values, int64_t count) {
    const R slope = R(how.slope);
    switch (how.kind) {
    case RELU: return each(values, count, [](R y, int64_t) { return y < 0 ? R(0) : y; });
    case LEAKY_RELU: return each(values, count, [=](R y, int64_t) { return y < 0 ? y * slope : y; });
    case SILU: return each(values, count, [](R y, int64_t) { return y * sigmoid(y); });
    case GELU: return each(values, count, [](R y, int64_t) { return y * normal_below(y); });
    case GELU_TANH: return each(values, count, [](R y, int64_t) { return y * sigmoid(2 * of_tanh(y)); });
    }
}

// Gradients of the activations of y -> gradients of y. What is not a number stays so, as in torch.
template <class R>
__attribute__((noinline)) void through(Activation how, R *gradients, const R *values, int64_t count) {
    const R slope = R(how.slope);
    switch (how.kind) {
    case RELU: return each(gradients, count, [=](R g, int64_t i) { return values[i] <= 0 ? R(0) : g; });
    case LEAKY_RELU: return each(gradients, count, [=](R g, int64_t i) { return values[i] > 0 ? g : g * slope; });
    case SILU:
        return each(gradients, count, [=](R g, int64_t i) {
            const R s = sigmoid(values[i]);
            return g * s * (1 + values[i] * (1 - s));
        });
    case GELU:
        return each(gradients, count, [=](R g, int64_t i) {
            const R y = values[i], density = exponential(-y * y / 2);
            return g * (normal_below(y, density) + y * density * R(0.3989422804014327));
        });
    case GELU_TANH:
        return each(gradients, count, [=](R g, int64_t i) {
            const R y = values[i], s = sigmoid(2 * of_tanh(y));
            return g * (s + y * s * (1 - s) * R(1.5957691216057308) * (1 + R(0.134145) * y * y));
        });
    }
}
