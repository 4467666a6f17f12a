// SIMD vectors of the widest kind that this translation unit is compiled for, with exp2 and tanh.
// For kernel files only: everything has internal linkage, because the same file is compiled once
// per instruction set and no inline code may be shared between the variants.
#pragma once

#include <cstdint>

namespace {

#if defined(__AVX512F__)
#define STRATA_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define STRATA_VECTOR_BYTES 32
#else
#define STRATA_VECTOR_BYTES 16
#endif

template <class T>
struct SimdTypes;
template <>
struct SimdTypes<float> {
  typedef float V __attribute__((vector_size(STRATA_VECTOR_BYTES)));
  typedef float U __attribute__((vector_size(STRATA_VECTOR_BYTES), aligned(4), may_alias));
  typedef int32_t I __attribute__((vector_size(STRATA_VECTOR_BYTES)));
};
template <>
struct SimdTypes<double> {
  typedef double V __attribute__((vector_size(STRATA_VECTOR_BYTES)));
  typedef double U __attribute__((vector_size(STRATA_VECTOR_BYTES), aligned(8), may_alias));
  typedef int64_t I __attribute__((vector_size(STRATA_VECTOR_BYTES)));
};
template <class T>
using Vec = typename SimdTypes<T>::V;
template <class T>
using VecInt = typename SimdTypes<T>::I;
template <class T>
inline constexpr int kLanes = STRATA_VECTOR_BYTES / sizeof(T);

template <class T>
inline Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename SimdTypes<T>::U*>(p);
}
template <class T>
inline void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename SimdTypes<T>::U*>(p) = v;
}
template <class T>
inline Vec<T> splat(T a) {
  return a - Vec<T>{};  // folds to one broadcast; a sum with zero would not (-0.0)
}
template <class T>
inline T sum_lanes(Vec<T> v) {
  T s[kLanes<T>];
  store<T>(s, v);
  for (int half = kLanes<T> / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) s[i] += s[i + half];
  }
  return s[0];
}

template <class V, class T, int N>
inline V horner(V x, const T (&c)[N]) {  // c[0] + c[1] x + ...
  V y = c[N - 1] - V{};
#pragma GCC unroll 16
  for (int i = N - 2; i >= 0; --i) y = y * x + c[i];
  return y;
}

// 2^x for x <= 126 (1022); exactly 1 at 0, exactly 0 below -127 (-1023), NaN stays NaN. Error below
// 1.5 ulp: x = n + f with |f| <= 1/2, and (2^f - 1) / f by its Chebyshev interpolant.
inline Vec<float> exp2(Vec<float> x) {
  constexpr float kC[] = {0.69314719f,  0.24022651f,  0.055503571f,
                          0.009618083f, 0.001339086f, 0.00015453163f};
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves round(x) in the low bits
  x = x < -127.0f ? splat(-127.0f) : x;
  const Vec<float> t = x + kRound;
  const Vec<float> f = x - (t - kRound);
  const Vec<float> power = (Vec<float>)(((VecInt<float>)t + 127) << 23);
  return (horner(f, kC) * f + 1.0f) * power;
}
inline Vec<double> exp2(Vec<double> x) {
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

// tanh: an odd polynomial below 0.6, else through exp2.
template <class T>
inline Vec<T> tanh(Vec<T> x) {
  constexpr double kC[] = {1.0,
                           -0.3333333333333292,
                           0.13333333333279782,
                           -0.05396825394110489,
                           0.021869487823255106,
                           -0.00886322444904499,
                           0.00359201836633917,
                           -0.0014551151922606944,
                           0.0005868485309097056,
                           -0.0002296798422386274,
                           7.845878586228708e-05,
                           -1.6738227470067157e-05};
  constexpr int kTerms = sizeof(T) == 4 ? 8 : 12;
  const Vec<T> a = x < 0 ? -x : x;
  const Vec<T> z = x * x;
  Vec<T> p = splat(T(kC[kTerms - 1]));
#pragma GCC unroll 16
  for (int i = kTerms - 2; i >= 0; --i) p = p * z + T(kC[i]);
  const Vec<T> e = exp2(a * T(-2 * kLog2E));
  const Vec<T> big = (T(1) - e) / (T(1) + e);
  return a < T(0.6) ? x * p : (x < 0 ? -big : big);
}

}  // namespace
