// Numbers of two bytes in CUDA kernels: stored as bf16 or f16, computed with in float32.
//
//   template <class T> __global__ void scale_kernel(ScaleArgs a) {
//     using A = Accum<T>;                                   // float for bf16 and f16, else T
//     Pack<A, N> p = widen(load_pack<N>(a.x.row<T>(r) + c));
//     ...
//     store_pack(a.y.row<T>(r) + c, narrow<T>(p));
//   }
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "core/contract/tensor.h"

namespace strata {

using bf16 = __nv_bfloat16;
using f16 = __half;

template <>
constexpr DType dtype_of<bf16>() {
  return DType::bf16;
}
template <>
constexpr DType dtype_of<f16>() {
  return DType::f16;
}

template <class T>
struct AccumOf {
  using type = T;
};
template <>
struct AccumOf<bf16> {
  using type = float;
};
template <>
struct AccumOf<f16> {
  using type = float;
};
// What sums, statistics, states, gradients of parameters and parameters of Keep::accum are in.
template <class T>
using Accum = typename AccumOf<T>::type;

template <class T>
constexpr bool is_half = sizeof(T) == 2;

#ifdef __CUDACC__

STRATA_INLINE float wide(float x) { return x; }
STRATA_INLINE double wide(double x) { return x; }
STRATA_INLINE float wide(bf16 x) { return __bfloat162float(x); }
STRATA_INLINE float wide(f16 x) { return __half2float(x); }

// x as T, rounded to nearest even.
template <class T, class A>
STRATA_INLINE T narrow_to(A x) {
  if constexpr (dtype_of<T>() == DType::bf16)
    return __float2bfloat16_rn(x);
  else if constexpr (dtype_of<T>() == DType::f16)
    return __float2half_rn(x);
  else
    return T(x);
}

#endif

}  // namespace strata
