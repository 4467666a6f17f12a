// Vectors of the width that this file is compiled for, for kernel files only. Everything is
// force-inlined into an instruction set's own namespace, so that no copy for a newer CPU can be
// linked into code that runs on an older one.
#pragma once

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#include <cstdint>

#ifndef STRATA_ISA
#define STRATA_ISA 0
#endif
#define STRATA_INLINE [[gnu::always_inline]] inline
#define STRATA_ISA_NAME_(n) isa##n
#define STRATA_ISA_NAME(n) STRATA_ISA_NAME_(n)
// Namespace of everything that kernel headers define: strata::isa0 ... strata::isa3.
#define STRATA_ISA_NS STRATA_ISA_NAME(STRATA_ISA)

namespace strata {
inline namespace STRATA_ISA_NS {

#if defined(__AVX512F__)
inline constexpr int kVecBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVecBytes = 32;
#else
inline constexpr int kVecBytes = 16;
#endif

template <class T>
struct VecOf;
template <>
struct VecOf<float> {
  typedef float type __attribute__((vector_size(kVecBytes)));
  typedef float loose __attribute__((vector_size(kVecBytes), aligned(4), may_alias));
};
template <>
struct VecOf<double> {
  typedef double type __attribute__((vector_size(kVecBytes)));
  typedef double loose __attribute__((vector_size(kVecBytes), aligned(8), may_alias));
};
template <class T>
using Vec = typename VecOf<T>::type;
// Elements of one vector.
template <class T>
inline constexpr int kLanes = kVecBytes / int(sizeof(T));

template <class T>
STRATA_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename VecOf<T>::loose*>(p);
}
template <class T>
STRATA_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename VecOf<T>::loose*>(p) = v;
}
template <class T>
STRATA_INLINE Vec<T> splat(T x) {
  return x - Vec<T>{};  // folds to one broadcast; a sum with zero would not (-0.0)
}

// The first n elements (0 < n < lanes); the others are zero and are not touched in memory.
template <class T>
STRATA_INLINE Vec<T> load_part(const T* p, int n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
  else
    return (Vec<T>)_mm512_maskz_loadu_pd((__mmask8)((1u << n) - 1), p);
#else
  Vec<T> v{};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
#endif
}
template <class T>
STRATA_INLINE void store_part(T* p, Vec<T> v, int n) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
  else
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << n) - 1), (__m512d)v);
#else
  for (int i = 0; i < n; ++i) p[i] = v[i];
#endif
}

// Sum over the lanes, by halves: the same order everywhere.
template <class T>
STRATA_INLINE T sum_lanes(Vec<T> v) {
  T lanes[kLanes<T>];
  store(lanes, v);
  for (int half = kLanes<T> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

// Interleaves the low (high) halves of two vectors: a0 b0 a1 b1 ...
template <class T, int High, int... I>
STRATA_INLINE Vec<T> interleave_(Vec<T> a, Vec<T> b) {
  constexpr int n = kLanes<T>;
  if constexpr (n == 2)
    return __builtin_shufflevector(a, b, High, 2 + High);
  else if constexpr (n == 4)
    return __builtin_shufflevector(a, b, 0 + 2 * High, 4 + 2 * High, 1 + 2 * High, 5 + 2 * High);
  else if constexpr (n == 8)
    return __builtin_shufflevector(a, b, 0 + 4 * High, 8 + 4 * High, 1 + 4 * High, 9 + 4 * High,
                                   2 + 4 * High, 10 + 4 * High, 3 + 4 * High, 11 + 4 * High);
  else
    return __builtin_shufflevector(a, b, 0 + 8 * High, 16 + 8 * High, 1 + 8 * High, 17 + 8 * High,
                                   2 + 8 * High, 18 + 8 * High, 3 + 8 * High, 19 + 8 * High,
                                   4 + 8 * High, 20 + 8 * High, 5 + 8 * High, 21 + 8 * High,
                                   6 + 8 * High, 22 + 8 * High, 7 + 8 * High, 23 + 8 * High);
}

// Transposes a square of lanes x lanes in registers (log2(lanes) perfect shuffles).
template <class T>
STRATA_INLINE void transpose(Vec<T> (&v)[kLanes<T>]) {
  constexpr int n = kLanes<T>;
#pragma GCC unroll 4
  for (int stage = 1; stage < n; stage *= 2) {
    Vec<T> next[n];
#pragma GCC unroll 8
    for (int i = 0; i < n / 2; ++i) {
      next[2 * i] = interleave_<T, 0>(v[i], v[i + n / 2]);
      next[2 * i + 1] = interleave_<T, 1>(v[i], v[i + n / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) v[i] = next[i];
  }
}

}  // namespace STRATA_ISA_NS
}  // namespace strata
