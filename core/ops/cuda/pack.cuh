// Loads and stores of up to 16 bytes at once.
#pragma once

#include "core/kernels/device.cuh"

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

// target = or += value, as the gradient's place asks.
template <int N, class T>
__device__ __forceinline__ void put_pack(T* target, Pack<T, N> value, bool accumulate) {
  if (accumulate) {
    const Pack<T, N> before = load_pack<N>(target);
#pragma unroll
    for (int e = 0; e < N; ++e) value.v[e] += before.v[e];
  }
  store_pack(target, value);
}

// Whether every row of x starts on 16 bytes; an absent tensor does not stand in the way.
inline bool packable(const Tensor& x) {
  return !x || (reinterpret_cast<uintptr_t>(x.data) % 16 == 0 &&
                x.pitch * int64_t(size_of(x.dtype)) % 16 == 0);
}

}  // namespace
}  // namespace strata
