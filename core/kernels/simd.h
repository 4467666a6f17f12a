// exp, log, tanh and the activations built on them, as straight-line code that compilers turn into
// vector instructions: write a plain loop over an array and call them on its elements. For kernel
// files only. float is within 3 ulp (errors measured in simd_test.cpp); double is the standard
// library's. The polynomials are near-minimax fits on the intervals given at each.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/kernels/vec.h"

namespace strata {
inline namespace STRATA_ISA_NS {
namespace simd {

STRATA_INLINE int32_t bits(float x) { return __builtin_bit_cast(int32_t, x); }
STRATA_INLINE float from_bits(int32_t x) { return __builtin_bit_cast(float, x); }

// e^x; 0 below the least denormal, infinity above the largest float, NaN for NaN.
STRATA_INLINE float exp(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: leaves round(x) in the low bits
  const float y = x > 89.0f ? 89.0f : x;
  const float z = y < -105.0f ? -105.0f : y;
  const float t = z * 1.44269504f + kRound;
  const int32_t n = bits(t) - bits(kRound);
  const float f = t - kRound;
  const float r = (z - f * 0.693359375f) + f * 2.12194440e-4f;  // |r| <= ln(2)/2
  float p = 0.001392617612f;
  p = p * r + 0.008363173075f;
  p = p * r + 0.04166655466f;
  p = p * r + 0.1666657703f;
  p = p * r + 0.5f;
  const float e = (p * r) * r + r + 1.0f;
  const int32_t half = n >> 1;  // in two steps, so that denormals and the largest floats are right
  return (e * from_bits((half + 127) << 23)) * from_bits((n - half + 127) << 23);
}

// ln(x); -infinity at 0, NaN below.
STRATA_INLINE float log(float x) {
  const bool tiny = x < 1.17549435e-38f;
  const float y = tiny ? x * 8388608.0f : x;
  // y = 2^e m with m in [sqrt(1/2), sqrt(2))
  const int32_t b = bits(y) - 0x3f3504f3;
  const int32_t e = b >> 23;
  const float f = from_bits((b & 0x7fffff) + 0x3f3504f3) - 1.0f;
  const float k = float(e) - (tiny ? 23.0f : 0.0f);
  float p = 0.06971611471f;
  p = p * f - 0.1147973385f;
  p = p * f + 0.1168541992f;
  p = p * f - 0.1242568733f;
  p = p * f + 0.1424905765f;
  p = p * f - 0.1666780232f;
  p = p * f + 0.2000071575f;
  p = p * f - 0.2499999696f;
  p = p * f + 0.3333333118f;
  const float f2 = f * f;
  const float small = p * f2 * f - k * 2.12194440e-4f - 0.5f * f2;
  const float z = (f + small) + k * 0.693359375f;
  const float finite = x == INFINITY ? x : z;
  return x > 0.0f ? finite : (x == 0.0f ? -INFINITY : NAN);
}

// ln(1 + x) for x in [0, 1], right for tiny x too.
STRATA_INLINE float log1p_unit(float x) {
  const float w = 1.0f + x;
  return log(w) + (x - (w - 1.0f)) / w;
}

STRATA_INLINE float tanh(float x) {
  const float a = __builtin_fabsf(x);
  const float z = x * x;
  float p = -0.006096714166f;
  p = p * z + 0.020997179f;
  p = p * z - 0.05385090958f;
  p = p * z + 0.1333276974f;
  p = p * z - 0.3333332894f;
  const float near = p * z * x + x;
  const float big = 1.0f - 2.0f / (exp(2.0f * a) + 1.0f);
  return a < 0.625f ? near : (x < 0.0f ? -big : big);
}

STRATA_INLINE float sigmoid(float x) { return 1.0f / (1.0f + exp(-x)); }

// ln(1 + e^x)
STRATA_INLINE float softplus(float x) {
  const float high = x > 0.0f ? x : 0.0f;
  return high + log1p_unit(exp(-__builtin_fabsf(x)));
}

STRATA_INLINE float erf(float x) {
  const float a0 = __builtin_fabsf(x);
  const float a = a0 > 4.0f ? 4.0f : a0;
  const float z = a * a;
  float p = 7.875875063e-5f;  // erf(a) / a on [0, 1]
  p = p * z - 0.0008016864287f;
  p = p * z + 0.005189087423f;
  p = p * z - 0.02685421201f;
  p = p * z + 0.1128359472f;
  p = p * z - 0.3761262667f;
  p = p * z + 1.128379166f;
  const float t = 1.0f / (a > 1.0f ? a : 1.0f);
  float q = -0.0190850707f;  // erfc(1/t) exp(1/t^2) on [0.24, 1]
  q = q * t + 0.126068085f;
  q = q * t - 0.3638875383f;
  q = q * t + 0.5849980737f;
  q = q * t - 0.5109105052f;
  q = q * t + 0.05254130025f;
  q = q * t + 0.5574934027f;
  q = q * t + 0.0003658295116f;
  const float e = a > 1.0f ? 1.0f - q * exp(-z) : p * a;
  return x != x ? x : (x < 0.0f ? -e : e);
}

STRATA_INLINE double exp(double x) { return std::exp(x); }
STRATA_INLINE double log(double x) { return std::log(x); }
STRATA_INLINE double tanh(double x) { return std::tanh(x); }
STRATA_INLINE double erf(double x) { return std::erf(x); }
STRATA_INLINE double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }
STRATA_INLINE double softplus(double x) {
  return (x > 0.0 ? x : 0.0) + std::log1p(std::exp(-std::fabs(x)));
}

// x sigmoid(x) and its derivative.
template <class T>
STRATA_INLINE T silu(T x) {
  return x / (T(1) + exp(-x));
}
template <class T>
STRATA_INLINE T silu_slope(T x) {
  const T s = sigmoid(x);
  return s * (T(1) + x * (T(1) - s));
}

// x Phi(x) with the exact error function (arXiv 1606.08415), and its derivative.
template <class T>
STRATA_INLINE T gelu(T x) {
  return T(0.5) * x * (T(1) + erf(x * T(0.7071067811865476)));
}
template <class T>
STRATA_INLINE T gelu_slope(T x) {
  return T(0.5) * (T(1) + erf(x * T(0.7071067811865476))) +
         x * T(0.3989422804014327) * exp(T(-0.5) * x * x);
}

}  // namespace simd
}  // namespace STRATA_ISA_NS
}  // namespace strata
