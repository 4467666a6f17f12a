#include "core/ops/softmax.h"

#include "core/ops/cuda/row_reduce.cuh"

namespace strata {
namespace {

// The row is read three times, from the cache after the first.
template <class T>
__global__ void softmax_kernel(SoftmaxArgs a) {
  __shared__ T room[kWarp];
  const int64_t rows = a.x.rows(), d = a.x.cols();
  const T scale = T(a.scale);
  for (int64_t r = int64_t(blockIdx.x) * blockDim.y + threadIdx.y; r < rows;
       r += int64_t(gridDim.x) * blockDim.y) {
    const T* x = a.x.row<T>(r);
    T* y = a.y.row<T>(r);
    T largest = -INFINITY, sum = 0;
#pragma unroll 4
    for (int64_t c = threadIdx.x; c < d; c += blockDim.x) {
      const T z = scale * x[c];
      largest = z > largest ? z : largest;
    }
    largest = row_max(largest, room);
#pragma unroll 4
    for (int64_t c = threadIdx.x; c < d; c += blockDim.x) sum += exp_of(scale * x[c] - largest);
    sum = row_sum(sum, room);
#pragma unroll 4
    for (int64_t c = threadIdx.x; c < d; c += blockDim.x)
      y[c] = exp_of(scale * x[c] - largest) / sum;
  }
}

// dx = scale y (dy - sum(y dy))
template <class T>
__global__ void softmax_backward_kernel(SoftmaxBackwardArgs a) {
  __shared__ T room[kWarp];
  const int64_t rows = a.y.rows(), d = a.y.cols();
  const T scale = T(a.scale);
  for (int64_t r = int64_t(blockIdx.x) * blockDim.y + threadIdx.y; r < rows;
       r += int64_t(gridDim.x) * blockDim.y) {
    const T *y = a.y.row<T>(r), *dy = a.dy.row<T>(r);
    T* dx = a.dx.grad.row<T>(r);
    T dot = 0;
#pragma unroll 4
    for (int64_t c = threadIdx.x; c < d; c += blockDim.x) dot += y[c] * dy[c];
    dot = row_sum(dot, room);
#pragma unroll 4
    for (int64_t c = threadIdx.x; c < d; c += blockDim.x)
      put(dx + c, scale * y[c] * (dy[c] - dot), a.dx.accumulate);
  }
}

template <class T>
void softmax_cuda(const SoftmaxArgs& a, Stream s) {
  const dim3 block = row_threads(a.x.cols());
  softmax_kernel<T><<<row_grid(a.x.rows(), block), block, 0, stream_of(s)>>>(a);
  check_launch("softmax");
}

template <class T>
void softmax_backward_cuda(const SoftmaxBackwardArgs& a, Stream s) {
  const dim3 block = row_threads(a.y.cols());
  softmax_backward_kernel<T><<<row_grid(a.y.rows(), block), block, 0, stream_of(s)>>>(a);
  check_launch("softmax_backward");
}

}  // namespace

STRATA_CUDA_KERNEL("softmax", SoftmaxArgs, softmax_cuda)
STRATA_CUDA_KERNEL("softmax_backward", SoftmaxBackwardArgs, softmax_backward_cuda)

}  // namespace strata
