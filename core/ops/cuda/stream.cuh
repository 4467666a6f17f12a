// For kernels that live on memory bandwidth: what they compute when the result is stored in two
// bytes.
#pragma once

#include "core/kernels/pack.cuh"

namespace strata {
namespace {

// 1 / (1 + e^-x), to about 20 bits where T has two bytes.
template <class T>
__device__ __forceinline__ Accum<T> sigmoid_for(Accum<T> x) {
  if constexpr (is_half<T>)
    return __fdividef(1.0f, 1.0f + __expf(-x));
  else
    return sigmoid_of(x);
}

}  // namespace
}  // namespace strata
