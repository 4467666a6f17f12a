// For kernels that live on memory bandwidth: what they compute when the result is stored in two
// bytes.
#pragma once

#include "core/ops/cuda/pack.cuh"

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

// Throws Error unless a parameter of Keep::accum has the type that kernels of T read.
template <class T>
void expect_accum(const char* op, const char* what, const Tensor& x) {
  if (x && x.dtype != dtype_of<Accum<T>>())
    kernel_error("%s: the %s must be %s, got %s", op, what, name_of(dtype_of<Accum<T>>()),
                 name_of(x.dtype));
}

}  // namespace
}  // namespace strata
