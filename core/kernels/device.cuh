// What every CUDA kernel file needs: error checks, launch sizes, sums over warps and blocks in a
// fixed order.
//
//   template <class T> __global__ void scale_kernel(ScaleArgs a) { ... a.x.row<T>(r)[c] ... }
//   template <class T> void scale_cuda(const ScaleArgs& a, Stream s) {
//     scale_kernel<T><<<blocks_for(n), kThreads, 0, stream_of(s)>>>(a);
//     check_launch("scale");
//   }
//   STRATA_CUDA_KERNEL("scale", ScaleArgs, scale_cuda)
#pragma once

#include <cuda_runtime.h>

#include "core/kernels/error_cuda.h"
#include "core/kernels/register.h"

namespace strata {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

STRATA_INLINE cudaStream_t stream_of(Stream s) { return static_cast<cudaStream_t>(s.handle); }

// Throws Error naming what failed.
inline void check_cuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess)
    device_error(kind_of(status), "%s: CUDA says: %s", what, cudaGetErrorString(status));
}
inline void check_launch(const char* op) { check_cuda(cudaGetLastError(), op); }

// Of the device in use; `what` names what asks.
inline int device_attribute(cudaDeviceAttr attribute, const char* what) {
  int device = 0, value = 0;
  check_cuda(cudaGetDevice(&device), what);
  check_cuda(cudaDeviceGetAttribute(&value, attribute, device), what);
  return value;
}

// Blocks of a grid-stride loop over n elements.
inline int blocks_for(int64_t n, int threads = kThreads) {
  const int64_t blocks = (n + threads - 1) / threads;
  return int(blocks < 1 ? 1 : blocks > (1 << 20) ? (1 << 20) : blocks);
}

#ifdef __CUDACC__

// for (int64_t i : this thread's elements of n)
#define STRATA_GRID_LOOP(i, n)                                                             \
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, i##_n = (n); i < i##_n; \
       i += int64_t(gridDim.x) * blockDim.x)

// Of a kernel whose launch may overlap the one before it in the stream: the next kernel may begin;
// and: all kernels before this one are done, and what they wrote is seen. Neither does anything in
// another launch or on a device below sm_90.
__device__ __forceinline__ void let_next_kernel_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void wait_for_previous_kernels() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

template <class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

// The sum over the four lanes that share a row of a matrix unit's tile.
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

template <class T>
__device__ __forceinline__ T warp_max(T x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const T other = __shfl_xor_sync(kAllLanes, x, offset);
    x = other > x ? other : x;
  }
  return x;
}

// The sum over the block, in every thread. blockDim.x must be a multiple of 32. `room` holds one T
// per warp; it may be used again at once.
template <class T>
__device__ __forceinline__ T block_sum(T x, T* room) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  x = warp_sum(x);
  if (lane == 0) room[warp] = x;
  __syncthreads();
  T sum = 0;
  for (int w = 0; w < warps; ++w) sum += room[w];
  __syncthreads();
  return sum;
}

template <class T>
__device__ __forceinline__ T block_max(T x, T* room) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  x = warp_max(x);
  if (lane == 0) room[warp] = x;
  __syncthreads();
  T most = room[0];
  for (int w = 1; w < warps; ++w) most = room[w] > most ? room[w] : most;
  __syncthreads();
  return most;
}

// target = or += value, as the gradient's place asks.
template <class T>
__device__ __forceinline__ void put(T* target, T value, bool accumulate) {
  *target = accumulate ? *target + value : value;
}

__device__ __forceinline__ float exp_of(float x) { return expf(x); }
__device__ __forceinline__ double exp_of(double x) { return exp(x); }
// 2^x in one instruction, to about 22 bits; zero below 2^-126.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float log_of(float x) { return logf(x); }
__device__ __forceinline__ double log_of(double x) { return log(x); }
__device__ __forceinline__ float log1p_of(float x) { return log1pf(x); }
__device__ __forceinline__ double log1p_of(double x) { return log1p(x); }
__device__ __forceinline__ float tanh_of(float x) { return tanhf(x); }
__device__ __forceinline__ double tanh_of(double x) { return tanh(x); }
__device__ __forceinline__ float sqrt_of(float x) { return sqrtf(x); }
__device__ __forceinline__ double sqrt_of(double x) { return sqrt(x); }
// softplus without overflow
template <class T>
__device__ __forceinline__ T softplus_of(T x) {
  return x > T(20) ? x : log1p_of(exp_of(x));
}
template <class T>
__device__ __forceinline__ T sigmoid_of(T x) {
  return T(1) / (T(1) + exp_of(-x));
}

#endif

}  // namespace strata
