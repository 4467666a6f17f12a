// 2^x on whole vectors, float and double, for the softmax. For kernel files only.
#pragma once

#include "core/kernels/vec.h"

namespace strata {
inline namespace STRATA_ISA_NS {

// Integers of the width of T: what a comparison of vectors gives.
template <class T>
using VecInt = decltype(Vec<T>{} < Vec<T>{});

template <class V, class T, int N>
STRATA_INLINE V horner(V x, const T (&c)[N]) {  // c[0] + c[1] x + ...
  V y = c[N - 1] - V{};
#pragma GCC unroll 16
  for (int i = N - 2; i >= 0; --i) y = y * x + c[i];
  return y;
}

// 2^x for x <= 126 (1022); exactly 1 at 0, exactly 0 below -127 (-1023), NaN stays NaN. Error below
// 1.5 ulp: x = n + f with |f| <= 1/2, and (2^f - 1) / f by its Chebyshev interpolant.
STRATA_INLINE Vec<float> exp2(Vec<float> x) {
  constexpr float kC[] = {0.69314719f,  0.24022651f,  0.055503571f,
                          0.009618083f, 0.001339086f, 0.00015453163f};
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves round(x) in the low bits
  x = x < -127.0f ? splat(-127.0f) : x;
  const Vec<float> t = x + kRound;
  const Vec<float> f = x - (t - kRound);
  const Vec<float> power = (Vec<float>)(((VecInt<float>)t + 127) << 23);
  return (horner(f, kC) * f + 1.0f) * power;
}
STRATA_INLINE Vec<double> exp2(Vec<double> x) {
  constexpr double kC[] = {0.6931471805599453,    0.24022650695910097,   0.0555041086648216,
                           0.009618129107606888,  0.0013333558146416936, 0.0001540353044173605,
                           1.525273382983612e-05, 1.321544258792169e-06, 1.0178062445845774e-07,
                           7.072585949269223e-09, 4.4549605981865186e-10};
  constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  x = x < -1023.0 ? splat(-1023.0) : x;
  const Vec<double> t = x + kRound;
  const Vec<double> f = x - (t - kRound);
  const Vec<double> power = (Vec<double>)(((VecInt<double>)t + 1023) << 52);
  return (horner(f, kC) * f + 1.0) * power;
}

inline constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;

}  // namespace STRATA_ISA_NS
}  // namespace strata
