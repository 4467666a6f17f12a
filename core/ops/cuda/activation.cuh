// Activations and their derivatives by compile-time name, as core/kernels/activation.h has them for
// the CPU.
#pragma once

#include <type_traits>

#include "core/kernels/device.cuh"
#include "core/ops/activation.h"

namespace strata {
namespace {

// e^x and x / y; `quick`: to about 20 bits, for results that are stored in two bytes.
template <bool kQuick, class T>
__device__ __forceinline__ T exp_to(T x) {
  if constexpr (kQuick)
    return __expf(x);
  else
    return exp_of(x);
}
template <bool kQuick, class T>
__device__ __forceinline__ T ratio_to(T x, T y) {
  if constexpr (kQuick)
    return __fdividef(x, y);
  else
    return x / y;
}

__device__ __forceinline__ float erf_of(float x) { return erff(x); }
__device__ __forceinline__ double erf_of(double x) { return ::erf(x); }

// Each: y = act(x) and y' = act'(x).
template <Activation A, bool kQuick = false, class T>
__device__ __forceinline__ T act_of(T x) {
  constexpr T kRoot = T(0.7978845608028654);  // sqrt(2 / pi)
  if constexpr (A == Activation::relu) return x > 0 ? x : T(0);
  if constexpr (A == Activation::relu2) return x > 0 ? x * x : T(0);
  if constexpr (A == Activation::silu) return ratio_to<kQuick>(x, T(1) + exp_to<kQuick>(-x));
  if constexpr (A == Activation::gelu)
    return T(0.5) * x * (T(1) + erf_of(x * T(0.7071067811865476)));
  if constexpr (A == Activation::gelu_tanh)
    return T(0.5) * x * (T(1) + tanh_of(kRoot * (x + T(0.044715) * x * x * x)));
  if constexpr (A == Activation::sigmoid) return ratio_to<kQuick>(T(1), T(1) + exp_to<kQuick>(-x));
  if constexpr (A == Activation::tanh) return tanh_of(x);
  if constexpr (A == Activation::softplus)
    return (x > 0 ? x : T(0)) + log1p_of(exp_of(x > 0 ? -x : x));
  if constexpr (A == Activation::exp) return exp_of(x);
  return x;
}

template <Activation A, bool kQuick = false, class T>
__device__ __forceinline__ T act_slope(T x) {
  constexpr T kRoot = T(0.7978845608028654);
  if constexpr (A == Activation::relu) return x > 0 ? T(1) : T(0);
  if constexpr (A == Activation::relu2) return x > 0 ? 2 * x : T(0);
  if constexpr (A == Activation::silu) {
    const T s = act_of<Activation::sigmoid, kQuick>(x);
    return s * (T(1) + x * (T(1) - s));
  }
  if constexpr (A == Activation::gelu)
    return T(0.5) * (T(1) + erf_of(x * T(0.7071067811865476))) +
           x * T(0.3989422804014327) * exp_of(T(-0.5) * x * x);
  if constexpr (A == Activation::gelu_tanh) {
    const T t = tanh_of(kRoot * (x + T(0.044715) * x * x * x));
    return T(0.5) * (1 + t) + T(0.5) * x * (1 - t * t) * kRoot * (1 + 3 * T(0.044715) * x * x);
  }
  if constexpr (A == Activation::sigmoid) {
    const T s = act_of<Activation::sigmoid, kQuick>(x);
    return s * (1 - s);
  }
  if constexpr (A == Activation::tanh) {
    const T t = tanh_of(x);
    return 1 - t * t;
  }
  if constexpr (A == Activation::softplus) return act_of<Activation::sigmoid, kQuick>(x);
  if constexpr (A == Activation::exp) return exp_of(x);
  return T(1);
}

// Calls f with the activation as a compile-time constant: f(std::integral_constant<Activation, A>).
template <class F>
inline void with_activation(Activation act, const F& f) {
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
