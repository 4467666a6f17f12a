#include "core/ops/linear.h"

#include <algorithm>

#include "core/kernels/gemm_cuda.h"
#include "core/kernels/skinny_cuda.h"
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
    store(y, r, c, load_pack<V>(bias + c));
  }
};

// Where rows of two-byte numbers are that few, a product is a reading of the matrix.
template <class T>
bool skinny(const LinearArgs& a, Stream s) {
  SkinnyProduct<T> p;
  p.rows = a.x.rows();
  if (p.rows > kSkinnyRows || a.y.dtype != dtype_of<T>()) return false;
  if (a.bias && a.bias.dtype != dtype_of<T>()) return false;
  p.n = a.y.cols();
  p.k = a.x.cols();
  p.x = a.x.ptr<T>(), p.ld_x = a.x.pitch;
  p.w = a.weight.ptr<T>(), p.ld_w = a.weight.pitch;
  p.y = a.y.ptr<T>(), p.ld_y = a.y.pitch;
  p.bias = a.bias.ptr<T>();
  // Outside of training nothing changes a parameter just before it is used.
  p.weights_are_still = a.weight.param && a.y.var < 0;
  if (!skinny_takes(p)) return false;
  skinny_cuda(s, p);
  return true;
}

// C: what y is stored as.
template <class T, class C>
void half_product(const LinearArgs& a, Stream s) {
  HalfProduct<T, C> p;
  p.tb = Trans::yes;
  p.m = a.x.rows(), p.n = a.y.cols(), p.k = a.x.cols();
  p.a = a.x.ptr<T>(), p.lda = a.x.pitch;
  p.b = a.weight.ptr<T>(), p.ldb = a.weight.pitch;
  p.c = a.y.ptr<C>(), p.ldc = a.y.pitch;
  if (a.bias.dtype == dtype_of<T>() && dtype_of<C>() == dtype_of<T>() && a.bias &&
      packable(a.bias)) {
    p.bias = a.bias.ptr<T>();
  } else if (a.bias) {
    if (a.bias.dtype != dtype_of<C>())
      kernel_error("linear: a bias of %s cannot be added to an output of %s", name_of(a.bias.dtype),
                   name_of(dtype_of<C>()));
    each<C>("linear", s, p.m, p.n, {&a.bias, &a.y}, FillRows<C>{a.bias.ptr<C>(), a.y}, true);
    p.beta = 1, p.r = p.c, p.ldr = p.ldc;
  }
  gemm_cuda_half(s, p);
}

// y = x W^T + b. In float and double the bias goes in first, so that the product adds to it in one
// pass.
template <class T>
void linear_cuda(const LinearArgs& a, Stream s) {
  if constexpr (is_half<T>) {
    if (skinny<T>(a, s)) return;
    if (a.y.dtype == DType::f32)
      half_product<T, float>(a, s);
    else
      half_product<T, T>(a, s);
  } else {
    const int64_t rows = a.x.rows(), d_in = a.x.cols(), d_out = a.y.cols();
    if (a.bias)
      each<T>("linear", s, rows, d_out, {&a.bias, &a.y}, FillRows<T>{a.bias.ptr<T>(), a.y}, true);
    gemm_cuda<T>(s, Trans::no, Trans::yes, rows, d_out, d_in, 1, a.x.ptr<T>(), a.x.pitch,
                 a.weight.ptr<T>(), a.weight.pitch, a.bias ? 1 : 0, a.y.ptr<T>(), a.y.pitch);
  }
}

// db = sum over rows of dy: (rows, d_out); a block takes `lanes` columns.
template <class T>
__global__ void __launch_bounds__(kSumThreads, 2)
    bias_gradient_kernel(const T* dy, int64_t pitch, int64_t rows, int64_t d_out, Accum<T>* db,
                         bool accumulate, int lanes) {
  using A = Accum<T>;
  __shared__ A room[kSumThreads];
  const int64_t slices = (d_out + lanes - 1) / lanes;
  for (int64_t slice = blockIdx.x; slice < slices; slice += gridDim.x) {
    const int64_t c = slice * lanes + threadIdx.x % lanes;
    const A sum = sum_over_rows(int64_t{0}, rows, int64_t{1}, lanes, c < d_out, room,
                                [&](int64_t r) { return wide(dy[r * pitch + c]); });
    if (threadIdx.x < lanes && c < d_out) put(db + c, sum, accumulate);
  }
}

// The same where rows lie on 16 bytes, in two passes: block (x, y) sums 256 columns over every
// gridDim.y-th group of 8 rows into partial (gridDim.y, d_out), then those are added in order.
constexpr int kBiasLanes = 32, kBiasRows = 8, kBiasPieces = 64;
template <class T>
__global__ void __launch_bounds__(kBiasLanes* kBiasRows)
    bias_pieces_kernel(const T* dy, int64_t pitch, int64_t rows, int64_t d_out, float* partial) {
  constexpr int V = kPack<T>;
  __shared__ float room[kBiasRows][kBiasLanes * V];
  const int64_t c = (int64_t(blockIdx.x) * kBiasLanes + threadIdx.x) * V;
  float sum[V] = {};
  if (c < d_out) {
#pragma unroll 8
    for (int64_t r = blockIdx.y * kBiasRows + threadIdx.y; r < rows; r += gridDim.y * kBiasRows) {
      const Pack<float, V> p = widen(load_pack<V>(dy + r * pitch + c));
#pragma unroll
      for (int e = 0; e < V; ++e) sum[e] += p[e];
    }
  }
#pragma unroll
  for (int e = 0; e < V; ++e) room[threadIdx.y][threadIdx.x * V + e] = sum[e];
  __syncthreads();
  const int i = threadIdx.y * kBiasLanes + threadIdx.x;
  const int64_t column = int64_t(blockIdx.x) * kBiasLanes * V + i;
  if (column >= d_out) return;
  float all = 0;
#pragma unroll
  for (int r = 0; r < kBiasRows; ++r) all += room[r][i];
  partial[blockIdx.y * d_out + column] = all;
}
__global__ void bias_total_kernel(const float* partial, int pieces, int64_t d_out, float* db,
                                  bool accumulate) {
  STRATA_GRID_LOOP(c, d_out) {
    float sum = 0;
#pragma unroll 8
    for (int p = 0; p < pieces; ++p) sum += partial[p * d_out + c];
    put(db + c, sum, accumulate);
  }
}

template <class T>
void bias_gradient(const LinearBackwardArgs& a, Stream s) {
  const int64_t rows = a.x.rows(), d_out = a.dy.cols();
  const T* dy = a.dy.ptr<T>();
  Accum<T>* db = a.dbias.grad.ptr<Accum<T>>();
  if constexpr (is_half<T>) {
    const int64_t room = int64_t(kGemmWorkspace / sizeof(float)) / d_out;
    if (packable(a.dy) && d_out % kPack<T> == 0 && room > 0) {
      const int64_t groups = (rows + kBiasRows - 1) / kBiasRows;
      const int pieces = int(std::min({int64_t{kBiasPieces}, groups, room}));
      float* partial = static_cast<float*>(gemm_workspace(s));
      const dim3 grid(blocks_for(d_out, kBiasLanes * kPack<T>), unsigned(pieces > 0 ? pieces : 1));
      bias_pieces_kernel<T><<<grid, dim3(kBiasLanes, kBiasRows), 0, stream_of(s)>>>(
          dy, a.dy.pitch, rows, d_out, partial);
      bias_total_kernel<<<blocks_for(d_out, 64), 64, 0, stream_of(s)>>>(partial, int(grid.y), d_out,
                                                                        db, a.dbias.accumulate);
      check_launch("linear_backward");
      return;
    }
  }
  const int lanes = sum_lanes(d_out);
  bias_gradient_kernel<T><<<blocks_for(d_out, lanes), kSumThreads, 0, stream_of(s)>>>(
      dy, a.dy.pitch, rows, d_out, db, a.dbias.accumulate, lanes);
  check_launch("linear_backward");
}

// dW = dy^T x, stored as C
template <class T, class C>
void weight_gradient(const LinearBackwardArgs& a, Stream s) {
  gemm_cuda<T, C>(s, Trans::yes, Trans::no, a.dy.cols(), a.x.cols(), a.x.rows(), 1, a.dy.ptr<T>(),
                  a.dy.pitch, a.x.ptr<T>(), a.x.pitch, a.dweight.accumulate ? 1 : 0,
                  a.dweight.grad.ptr<C>(), a.dweight.grad.pitch);
}

// dx = dy W, dW = dy^T x
template <class T>
void linear_backward_cuda(const LinearBackwardArgs& a, Stream s) {
  const int64_t rows = a.x.rows(), d_in = a.x.cols(), d_out = a.dy.cols();
  if (a.dx.wanted)
    gemm_cuda<T>(s, Trans::no, Trans::no, rows, d_in, d_out, 1, a.dy.ptr<T>(), a.dy.pitch,
                 a.weight.ptr<T>(), a.weight.pitch, a.dx.accumulate ? 1 : 0, a.dx.grad.ptr<T>(),
                 a.dx.grad.pitch);
  if (a.dweight.wanted) {
    // Of float for a parameter; an activation that stands for a weight has a gradient of T.
    if (a.dweight.grad.dtype == dtype_of<T>())
      weight_gradient<T, T>(a, s);
    else
      weight_gradient<T, Accum<T>>(a, s);
  }
  if (a.dbias.wanted) bias_gradient<T>(a, s);
}

}  // namespace

STRATA_CUDA_KERNEL("linear", LinearArgs, linear_cuda)
STRATA_CUDA_HALF_KERNEL("linear", LinearArgs, linear_cuda)
STRATA_CUDA_KERNEL("linear_backward", LinearBackwardArgs, linear_backward_cuda)
STRATA_CUDA_BF16_KERNEL("linear_backward", LinearBackwardArgs, linear_backward_cuda)

}  // namespace strata
