#include "core/ops/softmax.h"

#include <type_traits>

#include "core/kernels/expect.cuh"
#include "core/ops/cuda/elementwise.cuh"
#include "core/ops/cuda/row_reduce.cuh"

namespace strata {
namespace {

// The row is read three times, from the cache after the first; V elements at a time.
template <class T, int V>
__global__ void softmax_kernel(SoftmaxArgs a) {
  using A = Accum<T>;
  __shared__ A room[kWarp];
  const int64_t rows = a.x.rows(), d = a.x.cols();
  const A scale = A(a.scale);
  for (int64_t r = int64_t(blockIdx.x) * blockDim.y + threadIdx.y; r < rows;
       r += int64_t(gridDim.x) * blockDim.y) {
    const T* x = a.x.row<T>(r);
    T* y = a.y.row<T>(r);
    A largest = -INFINITY, sum = 0;
#pragma unroll 4
    for (int64_t c = threadIdx.x * V; c < d; c += blockDim.x * V) {
      const Pack<A, V> p = load_accum<T, V>(x + c);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        const A z = scale * p[i];
        largest = z > largest ? z : largest;
      }
    }
    largest = row_max(largest, room);
#pragma unroll 4
    for (int64_t c = threadIdx.x * V; c < d; c += blockDim.x * V) {
      const Pack<A, V> p = load_accum<T, V>(x + c);
#pragma unroll
      for (int i = 0; i < V; ++i) sum += exp_of(scale * p[i] - largest);
    }
    sum = row_sum(sum, room);
#pragma unroll 4
    for (int64_t c = threadIdx.x * V; c < d; c += blockDim.x * V) {
      Pack<A, V> p = load_accum<T, V>(x + c);
#pragma unroll
      for (int i = 0; i < V; ++i) p[i] = exp_of(scale * p[i] - largest) / sum;
      store_pack(y + c, narrow<T>(p));
    }
  }
}

// dx = scale y (dy - sum(y dy))
template <class T, int V>
__global__ void softmax_backward_kernel(SoftmaxBackwardArgs a) {
  using A = Accum<T>;
  __shared__ A room[kWarp];
  const int64_t rows = a.y.rows(), d = a.y.cols();
  const A scale = A(a.scale);
  for (int64_t r = int64_t(blockIdx.x) * blockDim.y + threadIdx.y; r < rows;
       r += int64_t(gridDim.x) * blockDim.y) {
    const T *y = a.y.row<T>(r), *dy = a.dy.row<T>(r);
    A dot = 0;
#pragma unroll 4
    for (int64_t c = threadIdx.x * V; c < d; c += blockDim.x * V) {
      const Pack<A, V> p = load_accum<T, V>(y + c), g = load_accum<T, V>(dy + c);
#pragma unroll
      for (int i = 0; i < V; ++i) dot += p[i] * g[i];
    }
    dot = row_sum(dot, room);
#pragma unroll 4
    for (int64_t c = threadIdx.x * V; c < d; c += blockDim.x * V) {
      const Pack<A, V> p = load_accum<T, V>(y + c);
      Pack<A, V> g = load_accum<T, V>(dy + c);
#pragma unroll
      for (int i = 0; i < V; ++i) g[i] = scale * p[i] * (g[i] - dot);
      put_accum<T>(a.dx.grad, r, c, g, a.dx.accumulate);
    }
  }
}

// Packs of two-byte numbers where every row starts on 16 bytes. One number at a time else, which
// keeps the order of the sums.
template <class T, class F>
void with_packs(std::initializer_list<const Tensor*> tensors, int64_t cols, const F& f) {
  bool packs = is_half<T> && cols % kPack<T> == 0;
  for (const Tensor* t : tensors) packs = packs && wide_rows<T>(*t);
  if constexpr (is_half<T>)
    if (packs) return f(std::integral_constant<int, kPack<T>>{});
  f(std::integral_constant<int, 1>{});
}

template <class T>
void softmax_cuda(const SoftmaxArgs& a, Stream s) {
  expect_read<T>("softmax", {&a.x, &a.y});
  with_packs<T>({&a.x, &a.y}, a.x.cols(), [&](auto v) {
    const dim3 block = row_threads(a.x.cols() / v.value);
    softmax_kernel<T, v.value><<<row_grid(a.x.rows(), block), block, 0, stream_of(s)>>>(a);
  });
  check_launch("softmax");
}

template <class T>
void softmax_backward_cuda(const SoftmaxBackwardArgs& a, Stream s) {
  expect_read<T>("softmax_backward", {&a.y, &a.dy});
  expect_either<T>("softmax_backward", {&a.dx.grad});
  with_packs<T>({&a.y, &a.dy, &a.dx.grad}, a.y.cols(), [&](auto v) {
    const dim3 block = row_threads(a.y.cols() / v.value);
    softmax_backward_kernel<T, v.value><<<row_grid(a.y.rows(), block), block, 0, stream_of(s)>>>(a);
  });
  check_launch("softmax_backward");
}

}  // namespace

STRATA_CUDA_KERNEL("softmax", SoftmaxArgs, softmax_cuda)
STRATA_CUDA_HALF_KERNEL("softmax", SoftmaxArgs, softmax_cuda)
STRATA_CUDA_KERNEL("softmax_backward", SoftmaxBackwardArgs, softmax_backward_cuda)
STRATA_CUDA_BF16_KERNEL("softmax_backward", SoftmaxBackwardArgs, softmax_backward_cuda)

}  // namespace strata
