#include "core/ops/linear.h"

#include "core/kernels/gemm_cuda.h"
#include "core/ops/cuda/elementwise.cuh"
#include "core/ops/cuda/row_reduce.cuh"

namespace strata {
namespace {

template <class T>
struct FillRows {
  const T* bias;
  Tensor y;

  template <int V>
  __device__ void run(int64_t r, int64_t c) const {
    store(y, r, c, load<T, V>(bias + c));
  }
};

// y = x W^T + b. The bias goes in first, so that the product adds to it in one pass.
template <class T>
void linear_cuda(const LinearArgs& a, Stream s) {
  const int64_t rows = a.x.rows(), d_in = a.x.cols(), d_out = a.y.cols();
  if (a.bias)
    each<T>("linear", s, rows, d_out, {&a.bias, &a.y}, FillRows<T>{a.bias.ptr<T>(), a.y}, true);
  gemm_cuda<T>(s, Trans::no, Trans::yes, rows, d_out, d_in, 1, a.x.ptr<T>(), a.x.pitch,
               a.weight.ptr<T>(), a.weight.pitch, a.bias ? 1 : 0, a.y.ptr<T>(), a.y.pitch);
}

// db = sum over rows of dy: (rows, d_out); a block takes `lanes` columns.
template <class T>
__global__ void __launch_bounds__(kSumThreads, 2)
    bias_gradient_kernel(const T* dy, int64_t pitch, int64_t rows, int64_t d_out, T* db,
                         bool accumulate, int lanes) {
  __shared__ T room[kSumThreads];
  const int64_t slices = (d_out + lanes - 1) / lanes;
  for (int64_t slice = blockIdx.x; slice < slices; slice += gridDim.x) {
    const int64_t c = slice * lanes + threadIdx.x % lanes;
    const T sum = sum_over_rows(int64_t{0}, rows, int64_t{1}, lanes, c < d_out, room,
                                [&](int64_t r) { return dy[r * pitch + c]; });
    if (threadIdx.x < lanes && c < d_out) put(db + c, sum, accumulate);
  }
}

// dx = dy W, dW = dy^T x
template <class T>
void linear_backward_cuda(const LinearBackwardArgs& a, Stream s) {
  const int64_t rows = a.x.rows(), d_in = a.x.cols(), d_out = a.dy.cols();
  const T* dy = a.dy.ptr<T>();
  if (a.dx.wanted)
    gemm_cuda<T>(s, Trans::no, Trans::no, rows, d_in, d_out, 1, dy, a.dy.pitch, a.weight.ptr<T>(),
                 a.weight.pitch, a.dx.accumulate ? 1 : 0, a.dx.grad.ptr<T>(), a.dx.grad.pitch);
  if (a.dweight.wanted)
    gemm_cuda<T>(s, Trans::yes, Trans::no, d_out, d_in, rows, 1, dy, a.dy.pitch, a.x.ptr<T>(),
                 a.x.pitch, a.dweight.accumulate ? 1 : 0, a.dweight.grad.ptr<T>(),
                 a.dweight.grad.pitch);
  if (a.dbias.wanted) {
    const int lanes = sum_lanes(d_out);
    const int blocks = blocks_for(d_out, lanes);
    bias_gradient_kernel<T><<<blocks, kSumThreads, 0, stream_of(s)>>>(
        dy, a.dy.pitch, rows, d_out, a.dbias.grad.ptr<T>(), a.dbias.accumulate, lanes);
    check_launch("linear_backward");
  }
}

}  // namespace

STRATA_CUDA_KERNEL("linear", LinearArgs, linear_cuda)
STRATA_CUDA_KERNEL("linear_backward", LinearBackwardArgs, linear_backward_cuda)

}  // namespace strata
