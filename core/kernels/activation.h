// Activation functions and their derivatives for kernel files. The float versions are branch-free
// polynomials, so that loops over them vectorise; the double versions are the library's.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "core/ops/activation.h"

namespace strata {
namespace {

// e^x to 2 ulp: 2^n times a polynomial on [-ln2/2, ln2/2] (Cephes' coefficients). Below -87.3 it
// is flushed to zero, above 88.7 it is infinite.
STRATA_INLINE float exp_of(float x) {
  const float inside = x < -87.33f ? -87.33f : (x > 88.72f ? 88.72f : x);
  const float n = __builtin_rintf(inside * 1.44269504f);
  const float r = (inside - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  // Two factors, so that n = 128 does not overflow the exponent field.
  const int32_t k = int32_t(n), half = k / 2;
  const float y =
      p * std::bit_cast<float>((half + 127) << 23) * std::bit_cast<float>((k - half + 127) << 23);
  const float high = x > 88.72f ? __builtin_inff() : y;
  const float low = x < -87.33f ? 0.0f : high;
  return x != x ? x : low;
}
STRATA_INLINE double exp_of(double x) { return std::exp(x); }

template <class T>
STRATA_INLINE T sigmoid_of(T x) {
  return T(1) / (T(1) + exp_of(-x));
}

template <class T>
STRATA_INLINE T tanh_of(T x) {
  // Near zero the quotient loses digits; the series takes over.
  if constexpr (sizeof(T) == 8) {
    return std::tanh(x);
  } else {
    const T square = x * x;
    const T series =
        x + x * square * (T(-0.33333333) + square * (T(0.13333333) + square * T(-0.053968254)));
    const T e = exp_of(-2 * (x < 0 ? -x : x));
    const T quotient = (1 - e) / (1 + e);
    const T wide = x < 0 ? -quotient : quotient;
    return square < T(0.04) ? series : wide;
  }
}

template <class T>
STRATA_INLINE T softplus_of(T x) {
  return (x > 0 ? x : T(0)) + std::log1p(exp_of(x > 0 ? -x : x));
}

// Each: y = act(x) and y' = act'(x).
template <Activation A, class T>
STRATA_INLINE T act_of(T x) {
  constexpr T kRoot = T(0.7978845608028654);  // sqrt(2 / pi)
  if constexpr (A == Activation::relu) return x > 0 ? x : T(0);
  if constexpr (A == Activation::relu2) return x > 0 ? x * x : T(0);
  if constexpr (A == Activation::silu) return x * sigmoid_of(x);
  if constexpr (A == Activation::gelu) return x * T(0.5) * std::erfc(-x * T(0.70710678118654752));
  if constexpr (A == Activation::gelu_tanh)
    return T(0.5) * x * (1 + tanh_of(kRoot * (x + T(0.044715) * x * x * x)));
  if constexpr (A == Activation::sigmoid) return sigmoid_of(x);
  if constexpr (A == Activation::tanh) return tanh_of(x);
  if constexpr (A == Activation::softplus) return softplus_of(x);
  if constexpr (A == Activation::exp) return exp_of(x);
  return x;
}

template <Activation A, class T>
STRATA_INLINE T act_slope(T x) {
  constexpr T kRoot = T(0.7978845608028654);
  if constexpr (A == Activation::relu) return x > 0 ? T(1) : T(0);
  if constexpr (A == Activation::relu2) return x > 0 ? 2 * x : T(0);
  if constexpr (A == Activation::silu) {
    const T s = sigmoid_of(x);
    return s * (1 + x * (1 - s));
  }
  if constexpr (A == Activation::gelu)
    return T(0.5) * std::erfc(-x * T(0.70710678118654752)) +
           x * T(0.3989422804014327) * exp_of(T(-0.5) * x * x);
  if constexpr (A == Activation::gelu_tanh) {
    const T t = tanh_of(kRoot * (x + T(0.044715) * x * x * x));
    return T(0.5) * (1 + t) + T(0.5) * x * (1 - t * t) * kRoot * (1 + 3 * T(0.044715) * x * x);
  }
  if constexpr (A == Activation::sigmoid) {
    const T s = sigmoid_of(x);
    return s * (1 - s);
  }
  if constexpr (A == Activation::tanh) {
    const T t = tanh_of(x);
    return 1 - t * t;
  }
  if constexpr (A == Activation::softplus) return sigmoid_of(x);
  if constexpr (A == Activation::exp) return exp_of(x);
  return T(1);
}

// Calls f with the activation as a compile-time constant: f(std::integral_constant<Activation, A>).
template <class F>
STRATA_INLINE void with_activation(Activation act, const F& f) {
  using enum Activation;
  switch (act) {
    case identity:
      return f(std::integral_constant<Activation, identity>{});
    case relu:
      return f(std::integral_constant<Activation, relu>{});
    case relu2:
      return f(std::integral_constant<Activation, relu2>{});
    case silu:
      return f(std::integral_constant<Activation, silu>{});
    case gelu:
      return f(std::integral_constant<Activation, gelu>{});
    case gelu_tanh:
      return f(std::integral_constant<Activation, gelu_tanh>{});
    case sigmoid:
      return f(std::integral_constant<Activation, sigmoid>{});
    case tanh:
      return f(std::integral_constant<Activation, tanh>{});
    case softplus:
      return f(std::integral_constant<Activation, softplus>{});
    case exp:
      return f(std::integral_constant<Activation, exp>{});
  }
}

}  // namespace
}  // namespace strata
