// For kernels that live on memory bandwidth: copies into shared memory that run ahead of the
// arithmetic, and what they compute when the result is stored in two bytes.
#pragma once

#include "core/ops/cuda/pack.cuh"

namespace strata {
namespace {

// Starts a copy of 16 bytes, both places aligned, into shared memory. Only this thread may read
// them, after await_copies.
__device__ __forceinline__ void copy_ahead(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(
                   uint32_t(__cvta_generic_to_shared(shared))),
               "l"(global)
               : "memory");
}
// Closes the group of copies started since the last call.
__device__ __forceinline__ void close_copies() {
  asm volatile("cp.async.commit_group;\n" ::: "memory");
}
// Waits until at most kOpen groups are under way.
template <int kOpen>
__device__ __forceinline__ void await_copies() {
  asm volatile("cp.async.wait_group %0;\n" ::"n"(kOpen) : "memory");
}

// 1 / (1 + e^-x), to about 20 bits where T has two bytes.
template <class T>
__device__ __forceinline__ Accum<T> sigmoid_for(Accum<T> x) {
  if constexpr (is_half<T>)
    return __fdividef(1.0f, 1.0f + __expf(-x));
  else
    return sigmoid_of(x);
}

// target = or += value, rounded once.
template <class T, int N>
__device__ __forceinline__ void put_wide(T* target, Pack<Accum<T>, N> value, bool accumulate) {
  if (accumulate) {
    const Pack<Accum<T>, N> before = widen(load_pack<N>(target));
#pragma unroll
    for (int e = 0; e < N; ++e) value.v[e] += before.v[e];
  }
  store_pack(target, narrow<T>(value));
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
