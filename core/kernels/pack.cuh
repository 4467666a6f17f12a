// Loads and stores of up to 16 bytes at once.
#pragma once

#include "core/kernels/device.cuh"
#include "core/kernels/half.cuh"

namespace strata {
namespace {

// Elements of a 16-byte access.
template <class T>
constexpr int kPack = 16 / int(sizeof(T));

template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T v[N];
  __device__ __forceinline__ T& operator[](int i) { return v[i]; }
  __device__ __forceinline__ const T& operator[](int i) const { return v[i]; }
};

template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* at) {
  return *reinterpret_cast<const Pack<T, N>*>(at);
}

template <int N, class T>
__device__ __forceinline__ void store_pack(T* at, const Pack<T, N>& value) {
  *reinterpret_cast<Pack<T, N>*>(at) = value;
}

// The same numbers in the type they are computed in, and back.
template <class T, int N>
__device__ __forceinline__ Pack<Accum<T>, N> widen(const Pack<T, N>& p) {
  Pack<Accum<T>, N> out;
#pragma unroll
  for (int e = 0; e < N; ++e) out.v[e] = wide(p.v[e]);
  return out;
}
template <class T, class A, int N>
__device__ __forceinline__ Pack<T, N> narrow(const Pack<A, N>& p) {
  Pack<T, N> out;
#pragma unroll
  for (int e = 0; e < N; ++e) out.v[e] = narrow_to<T>(p.v[e]);
  return out;
}

// target = or += value, as the gradient's place asks, rounded once.
template <class T, int N>
__device__ __forceinline__ void put_accum(T* target, Pack<Accum<T>, N> value, bool accumulate) {
  if (accumulate) {
    const Pack<Accum<T>, N> before = widen(load_pack<N>(target));
#pragma unroll
    for (int e = 0; e < N; ++e) value.v[e] += before.v[e];
  }
  store_pack(target, narrow<T>(value));
}

// Whether every row of x starts at a multiple of `bytes`; an absent tensor does not stand in the
// way.
inline bool rows_aligned(const Tensor& x, int64_t bytes) {
  return !x || (reinterpret_cast<uintptr_t>(x.data) % uintptr_t(bytes) == 0 &&
                x.pitch * int64_t(size_of(x.dtype)) % bytes == 0);
}
inline bool packable(const Tensor& x) { return rows_aligned(x, 16); }

}  // namespace
}  // namespace strata
