// rms_norm of many short rows of two-byte numbers, as heads are: a few neighbouring lanes take a
// row, a pack each, and a thread keeps several rows in flight. Rows are one group wide.
#pragma once

#include "core/ops/cuda/norm.cuh"
#include "core/ops/rms_norm.h"

namespace strata {
namespace {

constexpr int kShortAhead = 4, kShortAheadBackward = 2;  // rows in flight

// The sum over `lanes` neighbouring lanes, a power of two.
template <class A>
__device__ __forceinline__ A lanes_sum(A x, int lanes) {
  for (int offset = lanes / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

// Calls f(i, row, whether it exists) for the kAhead rows that a thread has in flight.
template <int kAhead, class F>
__device__ __forceinline__ void each_short_row(int64_t first, int64_t rows, int lanes, const F& f) {
  const int64_t at = first + threadIdx.x / lanes;
#pragma unroll
  for (int i = 0; i < kAhead; ++i) {
    const int64_t row = at + i * (kThreads / lanes);
    f(i, row, row < rows);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) rms_norm_short_kernel(RmsNormArgs a, int lanes) {
  using A = Accum<T>;
  constexpr int N = kPack<T>;
  const int64_t rows = a.x.rows(), each = int64_t(kThreads / lanes) * kShortAhead;
  const int c = int(threadIdx.x) % lanes * N;
  const Pack<A, N> w =
      weights_at<N>(a.weight.ptr<A>(), int64_t(c), A(a.options.weight_plus_one ? 1 : 0));
  for (int64_t first = blockIdx.x * each; first < rows; first += gridDim.x * each) {
    Pack<T, N> raw[kShortAhead] = {};
    each_short_row<kShortAhead>(first, rows, lanes, [&](int i, int64_t row, bool there) {
      if (there) raw[i] = load_pack<N>(a.x.row<T>(row) + c);
    });
    each_short_row<kShortAhead>(first, rows, lanes, [&](int i, int64_t row, bool there) {
      Pack<A, N> v = widen(raw[i]);
      A sum = 0;
#pragma unroll
      for (int e = 0; e < N; ++e) sum += v[e] * v[e];
      const A inv = A(1) / sqrt_of(lanes_sum(sum, lanes) / A(a.options.group) + A(a.options.eps));
      if (!there) return;
      if (c == 0) a.inv.row<A>(row)[0] = inv;
#pragma unroll
      for (int e = 0; e < N; ++e) v[e] = v[e] * inv * w[e];
      store_pack(a.y.row<T>(row) + c, narrow<T>(v));
    });
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 3)
    rms_norm_short_backward_kernel(RmsNormBackwardArgs a, int lanes) {
  using A = Accum<T>;
  constexpr int N = kPack<T>;
  __shared__ A room[kThreads][N];
  const int64_t rows = a.x.rows(), each = int64_t(kThreads / lanes) * kShortAheadBackward;
  const int c = int(threadIdx.x) % lanes * N;
  const Pack<A, N> w =
      weights_at<N>(a.weight.ptr<A>(), int64_t(c), A(a.options.weight_plus_one ? 1 : 0));
  Pack<A, N> dw{};
  for (int64_t first = blockIdx.x * each; first < rows; first += gridDim.x * each) {
    Pack<T, N> raw_x[kShortAheadBackward] = {}, raw_dy[kShortAheadBackward] = {};
    A inv[kShortAheadBackward] = {};
    each_short_row<kShortAheadBackward>(first, rows, lanes, [&](int i, int64_t row, bool there) {
      if (!there) return;
      raw_x[i] = load_pack<N>(a.x.row<T>(row) + c);
      raw_dy[i] = load_pack<N>(a.dy.row<T>(row) + c);
      inv[i] = a.inv.row<A>(row)[0];
    });
    each_short_row<kShortAheadBackward>(first, rows, lanes, [&](int i, int64_t row, bool there) {
      const Pack<A, N> x = widen(raw_x[i]);
      Pack<A, N> out = widen(raw_dy[i]);
      A dot = 0;
#pragma unroll
      for (int e = 0; e < N; ++e) {
        const A product = out[e] * x[e];
        dot += product * w[e];
        dw[e] += product * inv[i];
      }
      const A pull = lanes_sum(dot, lanes) * inv[i] * inv[i] / A(a.options.group);
      if (!there || !a.dx.wanted) return;
#pragma unroll
      for (int e = 0; e < N; ++e) out[e] = inv[i] * (out[e] * w[e] - x[e] * pull);
      put_accum(a.dx.grad.row<T>(row) + c, out, a.dx.accumulate);
    });
  }
  if (!a.partial) return;
#pragma unroll
  for (int e = 0; e < N; ++e) room[threadIdx.x][e] = dw[e];
  __syncthreads();
  const int column = threadIdx.x;
  if (column >= lanes * N) return;
  A sum = 0;
  for (int i = column / N; i < kThreads; i += lanes) sum += room[i][column % N];
  a.partial.row<A>(blockIdx.x)[column] = sum;
}

// Lanes of a row; 0 where rows are not short ones.
template <class T>
int short_lanes(const Tensor& x, int64_t group, bool packs) {
  const int64_t lanes = group / kPack<T>;
  const bool power = group % kPack<T> == 0 && lanes > 0 && (lanes & (lanes - 1)) == 0;
  return is_half<T> && packs && group == x.cols() && power && lanes <= kWarp && x.rows() > 0
             ? int(lanes)
             : 0;
}
// Blocks for `rows` rows, `ahead` of them in flight in a thread; at most `most`.
inline int64_t short_blocks(int64_t rows, int lanes, int ahead, int64_t most) {
  const int64_t each = int64_t(kThreads / lanes) * ahead, all = (rows + each - 1) / each;
  return all < most ? all : most;
}

}  // namespace
}  // namespace strata
